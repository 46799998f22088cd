"""The SQL database of a simulated house: the real recorder on a real SQLite, in memory, that can be away or slow.

What is simulated is the time that a transaction takes, so that a recorder may die in the middle of one and after it.
"""

from __future__ import annotations

import itertools
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Protocol

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from mendstream.adapters.store import database, schema
from mendstream.adapters.store.recorder import Log, Recorder
from mendstream.adapters.store.refusals import BUSY_TIMEOUT_MS, refusal

_AGAIN_US = 20_000
_NUMBERS = itertools.count(1)
_FREE: list[int] = []
"""Numbers of databases that are gone: their engines, which have compiled the recorder's statements, serve the next."""


class Client(Protocol):
    """The process that uses the database."""

    @property
    def dead(self) -> bool: ...
    def pass_time(self, us: int) -> None: ...
    def store_us(self) -> int:
        """Of one half of a transaction."""


class SimStore:
    """It outlives every process, and power cuts too: it syncs each commit."""

    def __init__(self) -> None:
        self.away = False
        """Fault: somebody else holds its lock."""
        self._number = _FREE.pop() if _FREE else next(_NUMBERS)
        self._address = f"file:/mendstream-{self._number}?vfs=memdb"
        self._url = f"sqlite:///{self._address}&uri=true"
        # In memory, it is there for as long as somebody is connected.
        self.connection = sqlite3.connect(self._address, uri=True)
        _template().backup(self.connection)
        self._holder: Client | None = None
        self._recorders: list[SimRecorder] = []

    def recorder(self, log: Log, client: Client, stopwatch: Callable[[], float]) -> SimRecorder:
        made = SimRecorder(log, self._url, self, client, stopwatch)
        self._recorders.append(made)
        return made

    def rebuild(self, log: Log) -> None:
        """What `mendstream db upgrade --rebuild` does, while the house is down."""
        recorder = Recorder(log, self._url)
        recorder.rebuild()
        while recorder.apply():
            pass
        recorder.close()

    @contextmanager
    def lock(self, client: Client) -> Iterator[None]:
        """As SQLite gives it: one after the other, and who has waited for too long gets none."""
        self._wait(client)
        self._holder = client
        try:
            yield
        finally:
            if self._holder is client:
                self._holder = None

    def _wait(self, client: Client) -> None:
        waited_us = 0
        while self.away or not (self._holder is None or self._holder.dead):
            if waited_us >= BUSY_TIMEOUT_MS * 1000:
                raise refusal("the simulated store", "database is locked")
            client.pass_time(_AGAIN_US)
            waited_us += _AGAIN_US

    @property
    def quiet(self) -> bool:
        """Nobody is in the middle of a transaction."""
        return self._holder is None or self._holder.dead

    def close(self) -> None:
        for recorder in self._recorders:
            recorder.close()
        self.connection.close()
        _FREE.append(self._number)


class SimRecorder(Recorder):
    def __init__(
        self, log: Log, url: str, store: SimStore, client: Client, stopwatch: Callable[[], float]
    ) -> None:  # fmt: skip
        super().__init__(log, url, stopwatch=stopwatch)
        self._engine = _engine(url)
        self._store = store
        self._client = client

    def _prepare(self) -> None:
        """The tables are there: what is left of it is a look at their version, for which the writers' lock is taken."""
        with self._store.lock(self._client):
            pass

    @contextmanager
    def _transaction(self) -> Iterator[Session]:
        with self._store.lock(self._client), super()._transaction() as session:
            yield session
            self._client.pass_time(self._client.store_us())  # everything is written and nothing committed
        self._client.pass_time(self._client.store_us())  # committed, and nobody knows it yet


@cache
def _engine(url: str) -> Engine:
    return database.engine(url)


@cache
def _template() -> sqlite3.Connection:
    """An empty database at the newest version, made by the real migrations."""
    kept = sqlite3.connect(":memory:")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.db"
        schema.upgrade(f"sqlite:///{path}")
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode = delete")  # there is no such file as a WAL in memory
            connection.backup(kept)
    return kept
