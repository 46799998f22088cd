"""The databases that the store runs on, for tests: an empty one each, and plain SQL on it with no code of ours."""

from __future__ import annotations

import itertools
import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg import rows
from sqlalchemy import make_url

_NUMBERS = itertools.count(1)
_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}")


class SqliteStore:
    def __init__(self, path: Path) -> None:
        self.url = f"sqlite:///{path}"
        self._path = path

    def sql(self, statement: str, *values: Any) -> list[dict[str, Any]]:
        """Rows as both databases can have them: `%s` for values, times in UTC, JSON taken apart."""
        with closing(sqlite3.connect(self._path)) as connection:
            connection.row_factory = sqlite3.Row
            found = connection.execute(statement.replace("%s", "?"), values).fetchall()
            connection.commit()
        return [{name: _plain(row[name]) for name in row.keys()} for row in found]  # noqa: SIM118 - a Row is no dict

    def tables(self) -> set[str]:
        return {row["name"] for row in self.sql("SELECT name FROM sqlite_master WHERE type = 'table'")}


class PostgresStore:
    def __init__(self, url: str) -> None:
        self.url = url

    def sql(self, statement: str, *values: Any) -> list[dict[str, Any]]:
        """Rows as both databases can have them: `%s` for values, times in UTC, JSON taken apart."""
        with psycopg.connect(self.url, row_factory=rows.dict_row) as connection:
            cursor = connection.execute(statement.encode(), values or None)
            found = cursor.fetchall() if cursor.description else []
        return [{name: _plain(value) for name, value in row.items()} for row in found]

    def tables(self) -> set[str]:
        return {row["tablename"] for row in self.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}


Store = SqliteStore | PostgresStore


@contextmanager
def new_database(server_url: str) -> Iterator[PostgresStore]:
    """An empty database on a running server; dropped afterwards, whoever is still connected."""
    name = f"test_{next(_NUMBERS)}"
    with psycopg.connect(server_url, autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name}".encode())
        try:
            yield PostgresStore(make_url(server_url).set(database=name).render_as_string(hide_password=False))
        finally:
            server.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def _plain(value: Any) -> Any:
    match value:
        case datetime():
            return value.astimezone(UTC)
        case str() if _TIME.fullmatch(value):
            return datetime.fromisoformat(value).replace(tzinfo=UTC)
        case str() if value.startswith(("{", "[")):
            return json.loads(value)
    return value
