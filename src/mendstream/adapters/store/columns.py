"""Column types that behave the same on SQLite and PostgreSQL: UTC times, JSON, closed lists of words."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, Dialect, Enum
from sqlalchemy.types import TypeDecorator, TypeEngine


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

    NaN is refused by the engine's serializer (SQLite would take it, PostgreSQL would not). JSONB does not keep the
    order of keys, so never hash what comes out.
    """

    impl = JSON(none_as_null=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            # Not at the top: the dialect's import costs 70 ms that nobody needs on SQLite.
            from sqlalchemy.dialects.postgresql import JSONB

            return dialect.type_descriptor(JSONB(none_as_null=True))
        return dialect.type_descriptor(JSON(none_as_null=True))


def words(name: str, *allowed: str) -> Enum:
    """Text that must be one of `allowed`: checked here, not in the database, so a new word needs no migration."""
    return Enum(*allowed, name=name, native_enum=False, create_constraint=False, validate_strings=True, length=32)
