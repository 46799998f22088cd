"""The recorder: incident-log and config-updates come in, rows of the four tables go out.

Each pump is one SQL transaction that holds the rows and the position behind them, so a recorder that dies anywhere
goes on where the rows end. A database that does not answer is asked again, later and later: the log has everything, and
no other process needs the database.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import msgspec
import structlog
from sqlalchemy import delete
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from mendstream.adapters.store import chain, database, rows, schema
from mendstream.adapters.store.models import ConfigRow, HealingAction, Incident, MemoryChunk, RecorderPosition
from mendstream.contracts import records
from mendstream.contracts.errors import BadRecord, CouldNot, DataDirError, NoAnswer, NotLetIn
from mendstream.contracts.knobs import Fold, LiveConfig, fold
from mendstream.contracts.ports import Block, Position
from mendstream.contracts.records import ConfigChange, IncidentStep
from mendstream.contracts.topics import MIB, Stream, Topic

INCIDENT_LOG = Stream(Topic.INCIDENT_LOG, 0)
CONFIG_UPDATES = Stream(Topic.CONFIG_UPDATES, 0)
BATCH_ROWS = 1000
BATCH_BYTES = MIB
BACKOFF_S = (0.2, 5.0)
"""Between two tries while the database does not answer: twice as long each time."""
LOOK_S = 5.0
"""How often it is asked where the rows end, also if nothing is new: so that it is away is told before it matters."""
SLOW_S = 2.0
"""From here on it is told that the database takes its time."""
_REBUILD = "`mendstream db upgrade --rebuild`"
_log = structlog.get_logger("recorder")


class Log(Protocol):
    """What the recorder needs of the bus."""

    @property
    def incarnation(self) -> str: ...
    def read(self, stream: Stream, position: Position, *, max_rows: int, max_bytes: int) -> list[Block]: ...


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """How far one stream is applied, and what its next record builds on."""

    incarnation: str
    position: Position = 0
    seq: int = 0
    """incident-log: the number that the next record must have, and the hash that it must name."""
    hash: str = ""
    config: LiveConfig = LiveConfig()
    """config-updates: the fold so far."""


class Recorder:
    """A sink (see contracts.ports). Its first pump makes the database, or brings it to the newest version."""

    name = "recorder"
    reads: tuple[Stream, ...] = (INCIDENT_LOG, CONFIG_UPDATES)

    def __init__(
        self, log: Log, url: str, *, stopwatch: Callable[[], float] = time.monotonic, known: Path | None = None
    ) -> None:
        """`stopwatch`: seconds, to wait by. `known`: a file of the house that names the database which has let it in:
        for that one, every later process of the house waits.
        """
        self._log = log
        self._url = url
        self._stopwatch = stopwatch
        self._engine = database.engine(url)
        self._marks: dict[Stream, Mark] | None = None
        """As the database has them; None if that is not known."""
        self._loaded_at = 0.0
        self._prepared = False
        self._known = known
        self._asked_at: float | None = None
        """Since when an answer is waited for."""
        self._again_at = 0.0
        self._pause_s = BACKOFF_S[0]
        self._trouble = ""

    @property
    def waits_for(self) -> str:
        asked_at = self._asked_at
        if asked_at is not None and (took := self._stopwatch() - asked_at) > SLOW_S:
            return f"the database has not answered for {took:.0f} s"
        return self._trouble

    def pump(self) -> bool:
        """Apply at most a batch of each stream; True if there was one, False also if the database did not answer."""
        self._asked_at = self._stopwatch()
        if self._trouble and self._asked_at < self._again_at:
            self._asked_at = None
            return False
        if self._asked_at - self._loaded_at >= LOOK_S:
            self._marks = None
        try:
            if not self._prepared:
                self._prepare()
            applied = self.apply()
        except (NoAnswer, NotLetIn) as error:
            if isinstance(error, NotLetIn) and not (self._prepared or self._was_let_in()):
                raise  # whoever starts a house with a wrong password is there to mend it
            self._put_off(error)
            return False
        finally:
            self._asked_at = None
        if self._trouble:
            _log.warning("the database answers again")
        if not self._prepared:
            self._remember()
        self._trouble, self._pause_s, self._prepared = "", BACKOFF_S[0], True
        return applied

    def apply(self) -> bool:
        """Apply at most a batch of each stream; True if there was one. After an error nothing of it is applied."""
        marks = self._marks or self._load()
        found = {stream: self._read(stream, mark) for stream, mark in marks.items()}
        if not any(found.values()):
            return False
        self._marks = None  # until the commit
        with self._transaction() as session:
            held = {stream: _hold(session, stream) for stream in marks}
            if any(row is None or _mark(row) != marks[stream] for stream, row in held.items()):
                return True  # another recorder was here: go on from where it stands
            after = {stream: _apply(session, stream, marks[stream], blocks) for stream, blocks in found.items()}
            for stream, mark in after.items():
                session.merge(_row(stream, mark))
        self._marks = after
        return True

    def rebuild(self) -> None:
        """Empty the projection; the pumps after it fill it again from the log's first record."""
        self._marks = None
        with self._transaction() as session:
            # The positions first: who holds them keeps every other recorder out.
            for table in (RecorderPosition, MemoryChunk, HealingAction, ConfigRow, Incident):
                session.execute(delete(table))

    def close(self) -> None:
        self._engine.dispose()

    def _prepare(self) -> None:
        schema.init_db(self._url)

    def _was_let_in(self) -> bool:
        if self._known is None:
            return False
        with contextlib.suppress(OSError, UnicodeDecodeError):
            return self._known.read_text() == database.shown(self._url)
        return False

    def _remember(self) -> None:
        if self._known is not None and not self._was_let_in():
            self._known.write_text(database.shown(self._url))

    def _put_off(self, error: CouldNot) -> None:
        if not self._trouble:
            _log.warning("the database does not answer: asking again", why=str(error), hint=error.hint)
        self._trouble = str(error)
        self._again_at = self._stopwatch() + self._pause_s
        self._pause_s = min(2 * self._pause_s, BACKOFF_S[1])

    @contextmanager
    def _transaction(self) -> Iterator[Session]:
        with database.refusing(self._url), Session(self._engine) as session, session.begin():
            yield session

    def _read(self, stream: Stream, mark: Mark) -> list[Block]:
        return self._log.read(stream, mark.position, max_rows=BATCH_ROWS, max_bytes=BATCH_BYTES)

    def _load(self) -> dict[Stream, Mark]:
        """The database's marks, new ones for a new database; raises CouldNot if they are of another log."""
        incarnation = self._log.incarnation
        try:
            marks = self._found_or_made(incarnation)
        except IntegrityError:
            marks = self._found_or_made(incarnation)  # another recorder made them at the same moment
        others = {mark.incarnation for mark in marks.values()} - {incarnation}
        if others:
            raise CouldNot(
                f"{database.shown(self._url)} was filled from log {others.pop()}, and this log is {incarnation}",
                hint=f"run {_REBUILD}: it fills the tables again from this log",
            )
        self._marks, self._loaded_at = marks, self._stopwatch()
        return marks

    def _found_or_made(self, incarnation: str) -> dict[Stream, Mark]:
        with self._transaction() as session:
            for stream in self.reads:
                if _hold(session, stream) is None:
                    session.add(_row(stream, Mark(incarnation=incarnation)))
            return {stream: _mark(session.get_one(RecorderPosition, str(stream))) for stream in self.reads}


def _hold(session: Session, stream: Stream) -> RecorderPosition | None:
    """The stream's row, locked. SQLite ignores this lock: there the whole transaction began with one."""
    return session.get(RecorderPosition, str(stream), with_for_update=True)


def _mark(row: RecorderPosition) -> Mark:
    config = msgspec.convert(row.live_config, LiveConfig)
    return Mark(incarnation=row.incarnation, position=row.position, seq=row.seq, hash=row.hash, config=config)


def _row(stream: Stream, mark: Mark) -> RecorderPosition:
    return RecorderPosition(
        stream=str(stream), incarnation=mark.incarnation, position=mark.position, seq=mark.seq, hash=mark.hash,
        live_config=msgspec.to_builtins(mark.config),
    )  # fmt: skip


def _apply(session: Session, stream: Stream, mark: Mark, blocks: Sequence[Block]) -> Mark:
    for block in blocks:
        for line in bytes(block.value).split(b"\n"):
            if line:
                mark = _apply_line(session, stream, mark, line)
        mark = msgspec.structs.replace(mark, position=block.next)
    return mark


def _apply_line(session: Session, stream: Stream, mark: Mark, line: bytes) -> Mark:
    try:
        record = records.decode(stream.topic, line)
    except BadRecord as error:
        raise DataDirError(
            f"{stream}: a record at or behind position {mark.position} cannot be read: {error}",
            hint="if a newer mendstream wrote it, use that one; else the log is torn: restore it from a copy",
        ) from error
    match record:
        case IncidentStep():
            return _apply_step(session, mark, record, line)
        case ConfigChange():
            return _apply_change(session, mark, record)
        case _:
            return mark  # a fault of the chaos wing


def _apply_step(session: Session, mark: Mark, step: IncidentStep, line: bytes) -> Mark:
    flaw = chain.flaw(line, step, seq=mark.seq, prev_hash=mark.hash)
    if flaw:
        raise DataDirError(
            f"{INCIDENT_LOG}: the chain breaks at seq {mark.seq}: {flaw}",
            hint=f"records were changed or lost: restore the data directory from a copy, then run {_REBUILD}",
        )
    rows.put_step(session, step)
    return msgspec.structs.replace(mark, seq=step.seq + 1, hash=step.hash)


def _apply_change(session: Session, mark: Mark, change: ConfigChange) -> Mark:
    config, became = fold(mark.config, change)
    if became is not Fold.APPLIED:
        # Stale and invalid changes get no row: config_history says what was live. The log keeps them all.
        return mark
    rows.put_change(session, change)
    return msgspec.structs.replace(mark, config=config)
