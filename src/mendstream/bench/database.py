"""A database of a bench's own on a PostgreSQL server."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from sqlalchemy import URL, create_engine, make_url, text
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from mendstream.contracts.errors import CouldNot, UsageError


@contextlib.contextmanager
def database(server: str) -> Iterator[str]:
    """Its URL, password included; dropped at the end, whoever is still connected. Raises UsageError, CouldNot."""
    try:
        url = make_url(server)
    except ArgumentError as error:
        raise UsageError("--store is no URL", hint="postgresql://USER@HOST:PORT/NAME") from error
    name = f"bench_{time.time_ns():x}"
    _do(url, f"CREATE DATABASE {name}")
    try:
        yield url.set(database=name).render_as_string(hide_password=False)
    finally:
        _do(url, f"DROP DATABASE {name} WITH (FORCE)")


def _do(url: URL, statement: str) -> None:
    engine = create_engine(url.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            connection.execute(text(statement))
    except SQLAlchemyError as error:
        raise CouldNot(
            f"{statement.split(' bench')[0]} on {url.render_as_string()}: {error}",
            hint="scripts/services up postgres starts a server",
        ) from error
    finally:
        engine.dispose()
