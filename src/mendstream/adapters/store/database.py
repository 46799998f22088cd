"""A database URL becomes an engine that behaves; what the database refuses becomes an error that says what to do."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as NoneFree
from sqlalchemy.orm import Session

from mendstream.adapters.store.refusals import BUSY_TIMEOUT_MS, refusal
from mendstream.contracts.errors import CouldNot, NoAnswer, SettingsError

_BACKENDS = "sqlite:///PATH or postgresql://USER@HOST:PORT/NAME"
_DRIVERS = ("sqlite", "sqlite+pysqlite", "postgresql", "postgresql+psycopg")
_HOW: dict[str, Any] = {
    "json_serializer": partial(json.dumps, ensure_ascii=False),
    "hide_parameters": True,
}


def engine(url: str, *, read_only: bool = False, migrating: bool = False) -> Engine:
    """An engine for `url`. Nothing is connected yet."""
    parsed = parse(url)
    if parsed.get_backend_name() == "sqlite":
        made = create_engine(parsed, **_HOW)
        _tame_sqlite(made, read_only=read_only, migrating=migrating)
        return made
    from mendstream.adapters.store import postgres

    return postgres.engine(parsed, read_only=read_only, migrating=migrating, **_HOW)


@contextmanager
def reading(url: str) -> Iterator[Session]:
    """A session on one snapshot that can change nothing; its rows stay usable afterwards."""
    path = sqlite_path(url)
    if path is not None and not path.is_file():
        raise CouldNot(f"no database at {path}", hint="`mendstream run` makes it, or `mendstream db upgrade`")
    made = engine(url, read_only=True)
    try:
        with refusing(url), Session(made, expire_on_commit=False) as session:
            yield session
    finally:
        made.dispose()


@contextmanager
def refusing(url: str) -> Iterator[None]:
    """Turn the database's refusals into CouldNot. A broken constraint is a bug and stays what it is."""
    try:
        yield
    except (IntegrityError, DataError):
        raise
    except DBAPIError as error:
        raise _refusal(url, error) from error
    except NoneFree as error:
        raise NoAnswer(
            f"{shown(url)}: all connections of this process are in use", hint="raise store.pool_size"
        ) from error


def parse(url: str) -> URL:
    """Raises SettingsError if `url` is not one of a database that we know."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:  # the latter from a port that is no number
        raise SettingsError("the store is not a database URL", hint=f"use {_BACKENDS}") from error
    if parsed.drivername not in _DRIVERS:
        raise SettingsError(f"no support for {parsed.drivername!r} as store", hint=f"use {_BACKENDS}")
    if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise SettingsError("a store in memory would be empty for every other process", hint=f"use {_BACKENDS}")
    return parsed.set(drivername="postgresql+psycopg") if parsed.get_backend_name() == "postgresql" else parsed


def sqlite_path(url: str) -> Path | None:
    """The file of a SQLite URL; None for other databases and for SQLite's own `file:` addresses."""
    parsed = parse(url)
    database = parsed.database or ""
    return Path(database) if parsed.get_backend_name() == "sqlite" and not database.startswith("file:") else None


def shown(url: str) -> str:
    """`url` as people may see it, and name the store by: its query too can hold secrets."""
    parsed = parse(url)
    plain = parsed._replace(drivername=parsed.get_backend_name(), password=None)
    return plain.difference_update_query(parsed.query).render_as_string()


def _refusal(url: str, error: DBAPIError) -> CouldNot:
    said = str(error.orig)
    if parse(url).get_backend_name() == "sqlite":
        return refusal(shown(url), said)
    from mendstream.adapters.store import postgres

    return postgres.refusal(parse(url), shown(url), getattr(error.orig, "sqlstate", None), said)


def _tame_sqlite(made: Engine, *, read_only: bool, migrating: bool) -> None:
    @event.listens_for(made, "connect")
    def _connected(connection: sqlite3.Connection, _record: Any) -> None:
        connection.isolation_level = None  # or the driver would choose where transactions begin
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")  # first: the next ones may have to wait
        # Off for migrations alone: SQLite alters a table by dropping and copying it.
        connection.execute(f"PRAGMA foreign_keys = {'off' if migrating else 'on'}")
        if read_only:
            connection.execute("PRAGMA query_only = on")
        else:
            connection.execute("PRAGMA journal_mode = wal")
            connection.execute("PRAGMA synchronous = normal")

    @event.listens_for(made, "begin")
    def _begun(connection: Connection) -> None:
        # A writer takes the lock before it reads: without it two of them read the same row and one update is lost.
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")
