"""A new database at the newest version, one for each test."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from mendstream.adapters.store.schema import init_db


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store.db"


@pytest.fixture
def url(path):
    init_db(f"sqlite:///{path}")
    return f"sqlite:///{path}"


@pytest.fixture
def sql(path):
    """Runs a statement as another program would: plain SQL on the file, no code of ours."""

    def run(statement, *values):
        with closing(sqlite3.connect(path)) as connection:
            connection.row_factory = sqlite3.Row
            found = [dict(row) for row in connection.execute(statement, values)]
            connection.commit()
            return found

    return run
