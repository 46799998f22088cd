"""Column types that behave the same on SQLite and PostgreSQL: text, UTC times, JSON, closed lists of words."""

from __future__ import annotations

from datetime import UTC, datetime
from math import isfinite
from typing import Any

from sqlalchemy import JSON, DateTime, Dialect, Enum, String
from sqlalchemy.types import TypeDecorator, TypeEngine

_NUL, _SHOWN = "\0", "\N{SYMBOL FOR NULL}"
"""PostgreSQL keeps no NUL in any text, and an event's text may have one."""


class Text(TypeDecorator[str]):
    """Text of any length; a NUL in it is stored as its symbol."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return value.replace(_NUL, _SHOWN) if value else value


class UtcDateTime(TypeDecorator[datetime]):
    """An aware time, stored as UTC. SQLite would drop the offset of anything else and give back a wrong hour."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value.isoformat()} has no time zone: store aware times only")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Json(TypeDecorator[Any]):
    """JSON on SQLite, JSONB on PostgreSQL; None is NULL. Replace the whole value: edits inside it are not seen.

    NaN is refused (SQLite would take it, PostgreSQL would not), a NUL in a text is stored as its symbol. JSONB does not
    keep the order of keys, so never hash what comes out.
    """

    impl = JSON(none_as_null=True)
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        return _fit(value)

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            # Not at the top: the dialect's import costs 70 ms that nobody needs on SQLite.
            from sqlalchemy.dialects.postgresql import JSONB

            return dialect.type_descriptor(JSONB(none_as_null=True))
        return dialect.type_descriptor(JSON(none_as_null=True))


def _fit(value: Any) -> Any:
    match value:
        case str():
            return value.replace(_NUL, _SHOWN)
        case dict():
            return {_fit(name): _fit(item) for name, item in value.items()}
        case list() | tuple():
            return [_fit(item) for item in value]
        case float() if not isfinite(value):
            raise ValueError(f"{value} is no number that JSON has")
    return value


def words(name: str, *allowed: str) -> Enum:
    """Text that must be one of `allowed`: checked here, not in the database, so a new word needs no migration."""
    return Enum(*allowed, name=name, native_enum=False, create_constraint=False, validate_strings=True, length=32)
