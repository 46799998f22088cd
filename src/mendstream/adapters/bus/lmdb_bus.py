"""The embedded bus: two LMDB environments in a data directory, fenced one-transaction turns, retention in small steps.

A process writes one environment (its wing) and reads both. Layout of each:

    log     topic, partition, position, rows, bytes, time, digest (big-endian) -> payload
    ends    topic, partition -> first position kept, end, bytes, sum of the digests
    tasks   task -> epoch, turns, positions, digests of its state
    state   task, 0 -> snapshot; task, 1, turn -> changes since
    meta    incarnation, format, seal: the sum of the digests of all rows of ends and tasks

So each byte has its digest in another place, up to the one seal. Nobody looks at them but `inspect`, after an unclean
boot.
"""

from __future__ import annotations

import contextlib
import ctypes
import struct
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import lmdb
import msgspec

from mendstream.adapters.bus.ahead import Ahead
from mendstream.adapters.bus.bell import FifoBell, Ringer
from mendstream.adapters.bus.digest import MASK, digest, digest_of_row
from mendstream.adapters.bus.search import first_since
from mendstream.adapters.bus.watch import LockWatch
from mendstream.adapters.room import disk_full, says_full, told
from mendstream.contracts.agent import TaskId
from mendstream.contracts.errors import Conflict, CouldNot, DataDirError, Fenced, LogFull
from mendstream.contracts.ports import Block, Claim, Clock, Out, Position, TaskCommit
from mendstream.contracts.topics import SPECS, TOPICS, Codec, Stream, Topic, Wing, wing_of

_KEY = struct.Struct(">BHQIIQQ")
"""All about a block but its payload, which so is written without another copy and trimmed without being read."""
_PLACE = struct.Struct(">BHQ")
_STREAM = struct.Struct(">BH")
_ENDS = struct.Struct("<qqqQ")
_SEAL = struct.Struct(">Q")
_NUMBER = {spec.topic: number for number, spec in enumerate(TOPICS)}
_SNAPSHOT, _CHANGES = b"\0", b"\1"
_PIPELINE = frozenset({"feature", "model", "decision"})
_TRIM_EVERY = 16
_TRIM_BLOCKS = 8
"""At least so many blocks at a time; more where more were appended since, or the log would grow for ever."""
_FORMAT = 3
_KEPT_BYTES = 8 << 20
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


class _Task(msgspec.Struct):
    epoch: int = 0
    turns: int = 0
    positions: dict[str, int] = {}
    snapshot: int = 0
    """Its digest; 0 for none."""
    changes: int = 0
    """The sum of the digests of those since."""


class _Key(NamedTuple):
    topic: int
    partition: int
    position: Position
    rows: int
    bytes: int
    at_us: int
    """When the block was appended."""
    digest: int
    """Of the payload and `at_us`."""


class _Ends(NamedTuple):
    first: int = 0
    end: int = 0
    bytes: int = 0
    digests: int = 0
    """The sum of those of the blocks that are kept."""


_encode = msgspec.msgpack.Encoder().encode
_decode_task = msgspec.msgpack.Decoder(_Task).decode


def _stream_key(stream: Stream) -> bytes:
    return _STREAM.pack(_NUMBER[stream.topic], stream.partition)


class _Env:
    """One LMDB environment with its databases."""

    def __init__(self, path: Path, *, map_bytes: int, sync: bool, readonly: bool) -> None:
        try:
            self.env = lmdb.open(
                str(path), map_size=map_bytes, max_dbs=8, max_readers=510, sync=sync, metasync=sync,
                readonly=readonly, create=not readonly, lock=True,
            )  # fmt: skip
        except (lmdb.Error, OSError) as error:
            if says_full(path.parent, str(error)):
                raise disk_full(path.parent, error) from error
            raise DataDirError(
                f"cannot open the log {path}: {error}",
                hint="does the directory exist, is it writable, on a local disk? `mendstream doctor` looks closer",
            ) from error
        # A process that was killed while it read would pin the pages that it saw, and the log could only grow.
        self.env.reader_check()
        create = not readonly
        with _telling(path.parent):
            self.log = self.env.open_db(b"log", create=create)
            self.ends = self.env.open_db(b"ends", create=create)
            self.tasks = self.env.open_db(b"tasks", create=create)
            self.state = self.env.open_db(b"state", create=create)
            self.meta = self.env.open_db(b"meta", create=create)


def create(root: Path, *, incarnation: str, map_bytes: int) -> str:
    """Make the two environments if they are missing; returns the log's incarnation (`incarnation` if it is new)."""
    versions: list[int] = []
    for wing in Wing:
        try:
            (root / wing.value).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataDirError(
                f"cannot make the data directory {root}: {error.strerror}", hint="choose a writable one with --data DIR"
            ) from error
        env = _Env(root / wing.value, map_bytes=map_bytes, sync=True, readonly=False)
        with _telling(root), env.env.begin(write=True, db=env.meta) as txn:
            held = txn.get(b"incarnation")
            if held is None:
                txn.put(b"incarnation", incarnation.encode())
                txn.put(b"format", str(_FORMAT).encode())
            else:
                incarnation = bytes(held).decode()
                versions.append(int(bytes(txn.get(b"format", b"0"))))
        env.env.close()
    for version in versions:
        _check_format(root, version)
    return incarnation


def _check_format(root: Path, version: int) -> None:
    if version == _FORMAT:
        return
    age, way = ("a newer", "upgrade mendstream") if version > _FORMAT else ("an older", "use that version")
    raise DataDirError(
        f"{root} was written by {age} mendstream (format {version}, this one reads {_FORMAT})",
        hint=f"{way}, or choose another directory with --data DIR",
    )


def renew(root: Path) -> None:
    """Give the log a new incarnation: some of what sinks have seen may be missing from it."""
    for wing in Wing:
        env = _Env(root / wing.value, map_bytes=0, sync=True, readonly=False)
        with _telling(root), env.env.begin(write=True, db=env.meta) as txn:
            held = bytes(txn.get(b"incarnation", b"")).decode()
            stem, _, count = held.partition(".")
            txn.put(b"incarnation", f"{stem}.{int(count or 0) + 1}".encode())
        env.env.close()


def inspect(env: lmdb.Environment, ends: dict[str, int], positions: list[tuple[str, str, int]]) -> list[str]:
    """What is wrong with one environment; fills `ends` (stream -> end) and `positions` (task, stream, position)."""
    problems: list[str] = []
    seal = 0
    with env.begin() as txn:
        log, kept, tasks, state, meta = (
            env.open_db(name, txn=txn, create=False) for name in (b"log", b"ends", b"tasks", b"state", b"meta")
        )
        blocks, states = _blocks_found(txn, log, problems), _states_found(txn, state)
        for key, value in _prefixed(txn, kept, b""):
            seal += digest_of_row(key, value)
            held, name = _Ends(*_ENDS.unpack(value)), _named(key)
            ends[name] = held.end
            if blocks.pop(key, _Ends(held.end, held.end)) != held:
                problems.append(f"{name} does not hold {held.first} to {held.end} as it should")
        for key, value in _prefixed(txn, tasks, b""):
            seal += digest_of_row(key, value)
            row, task = _decode_task(value), key.decode()
            positions += [(task, stream, position) for stream, position in row.positions.items()]
            if states.pop(key, _State()) != _State(row.snapshot, row.changes):
                problems.append(f"the state of {task} is not the one of its turn {row.turns}")
        problems += [f"{_named(prefix)} has no end" for prefix in blocks]
        problems += [f"the state of {name.decode()} has no task" for name in states]
        if seal & MASK != _sealed(txn, meta):
            problems.append("ends and positions are not all of one moment")
    return problems


class _State(NamedTuple):
    """The digests of what a task has in `state`."""

    snapshot: int = 0
    changes: int = 0


def _blocks_found(txn: Any, log: Any, problems: list[str]) -> dict[bytes, _Ends]:
    """What there is of each stream; a torn block is a problem."""
    found: dict[bytes, _Ends] = {}
    for key, value in _prefixed(txn, log, b""):
        block, prefix = _key(key), key[: _STREAM.size]
        held = found.get(prefix) or _Ends(block.position, block.position)
        if held.end != block.position:
            problems.append(f"{_named(prefix)} has a gap before {block.position}")
        if len(value) != block.bytes or digest(value, block.at_us) != block.digest:
            problems.append(f"{_named(prefix)} is torn at {block.position}")
        found[prefix] = _with(held, block)
    return found


def _states_found(txn: Any, state: Any) -> dict[bytes, _State]:
    found: dict[bytes, _State] = {}
    for key, value in _prefixed(txn, state, b""):
        name, _, rest = key.partition(b"\0")
        held = found.get(name, _State())
        if rest == _SNAPSHOT:
            found[name] = held._replace(snapshot=digest(value))
        else:
            turn = int.from_bytes(rest.removeprefix(_CHANGES), "big")
            found[name] = held._replace(changes=held.changes + digest(value, turn) & MASK)
    return found


def _sealed(txn: Any, meta: Any) -> int:
    held = txn.get(b"seal", db=meta)
    return 0 if held is None else int(_SEAL.unpack(held)[0])


def _named(prefix: bytes) -> str:
    number, partition = _STREAM.unpack(prefix)
    return str(Stream(TOPICS[number].topic, partition))


class LmdbBus:
    """`contracts.ports.Bus` on LMDB. Safe for use by several threads of one process."""

    def __init__(
        self,
        root: Path,
        wing: Wing,
        clock: Clock,
        *,
        map_bytes: int = 4 << 30,
        durability: Literal["power", "process"] = "process",
        readonly: bool = False,
    ) -> None:
        self._root = root
        self._wing = wing
        self._clock = clock
        self._readonly = readonly
        if not (root / Wing.DATA.value / "data.mdb").exists():
            raise CouldNot(
                f"{root} holds no log", hint="is a pipeline running there? start one, or name another --data DIR"
            )
        self._envs = {
            side: _Env(
                root / side.value,
                map_bytes=map_bytes,
                sync=durability == "power",
                readonly=readonly or side is not wing,
            )
            for side in Wing
        }
        self._mine = self._envs[wing]
        if not readonly:
            _keep_freed_memory()
        self._ahead = Ahead(self._mine.env)
        self._watch = LockWatch(root / "run" / f"lock-{wing.value}", clock)
        self._ringer = Ringer(root / "bells")
        self._writing = threading.Lock()
        self._commits = 0
        self._unsealed = 0
        """What the rows put in the transaction under way add to the seal."""
        self._grown: dict[Stream, int] = {}
        """Blocks appended since the last look at what may go."""
        with self._envs[Wing.CONTROL].env.begin(db=self._envs[Wing.CONTROL].meta) as txn:
            self._incarnation = bytes(txn.get(b"incarnation", b"")).decode()
            version = int(bytes(txn.get(b"format", b"0")))
        try:
            _check_format(root, version)
        except DataDirError:
            self.close()
            raise

    @property
    def incarnation(self) -> str:
        return self._incarnation

    def now_us(self) -> int:
        return self._clock.now_us()

    # --- reading -----------------------------------------------------------------------------------------------------

    def bounds(self, stream: Stream) -> tuple[Position, Position]:
        env = self._envs[wing_of(stream)]
        with env.env.begin(db=env.ends) as txn:
            ends = _ends(txn, env, stream)
        return ends.first, ends.end

    def waiting(self, stream: Stream, position: Position) -> int:
        first, end = self.bounds(stream)
        return max(0, end - max(first, position))

    def since(self, stream: Stream, at_us: int) -> Position:
        return first_since(self, stream, at_us)

    def read(self, stream: Stream, position: Position, *, max_rows: int, max_bytes: int) -> list[Block]:
        env = self._envs[wing_of(stream)]
        number, size = _NUMBER[stream.topic], 0
        blocks: list[Block] = []
        prefix = _stream_key(stream)
        with env.env.begin(db=env.log) as txn, txn.cursor() as cursor:
            if not _seek(cursor, prefix, number, stream.partition, position):
                return []
            for key, value in cursor:
                if not key.startswith(prefix) or max_rows <= 0 or (blocks and size + len(value) > max_bytes):
                    break
                block = _block(stream, _key(key), value, position, max_rows)
                if block is None:
                    continue
                blocks.append(block)
                size += len(value)
                max_rows -= block.rows
        return blocks

    def position(self, task: TaskId, stream: Stream) -> Position | None:
        for env in self._envs.values():
            with env.env.begin(db=env.tasks) as txn:
                row = txn.get(str(task).encode())
                if row is not None:
                    return _decode_task(row).positions.get(str(stream))
        return None

    # --- turns -------------------------------------------------------------------------------------------------------

    def claim(self, task: TaskId, inputs: Sequence[Stream]) -> Claim:
        name = str(task).encode()
        env = self._mine
        with self._write() as txn:
            held = txn.get(name, db=env.tasks)
            row = _decode_task(held) if held is not None else _Task()
            row.epoch += 1
            for stream in inputs:
                if str(stream) not in row.positions:
                    row.positions[str(stream)] = 0 if stream.topic is Topic.SOURCE else self.bounds(stream)[0]
            self._put_row(txn, env.tasks, name, _encode(row))
            snapshot = txn.get(name + b"\0" + _SNAPSHOT, db=env.state)
            changes = [value for _, value in _prefixed(txn, env.state, name + b"\0" + _CHANGES)]
        return Claim(
            task=task,
            epoch=row.epoch,
            turns=row.turns,
            positions={stream: row.positions[str(stream)] for stream in inputs},
            snapshot=None if snapshot is None else bytes(snapshot),
            changes=changes,
        )

    def commit(self, commits: Sequence[TaskCommit]) -> Mapping[Stream, Position]:
        ends: dict[Stream, _Ends] = {}
        with self._write() as txn:
            rows = [self._checked(txn, commit) for commit in commits]
            for commit in commits:
                for stream in commit.past_own:
                    self._expect_drained(txn, stream, commit.before[stream])
            for commit in commits:
                for out in commit.outputs:
                    self._append(txn, ends, out)
            for commit, row in zip(commits, rows, strict=True):
                row.turns = commit.turn
                for stream, position in commit.positions.items():
                    row.positions[str(stream)] = position
                for stream in commit.past_own:
                    row.positions[str(stream)] = (ends.get(stream) or _ends(txn, self._mine, stream)).end
                self._put_task(txn, commit, row)
            self._put_ends(txn, ends)
        self._ringer.ring(ends)
        return {stream: kept.end for stream, kept in ends.items()}

    def publish(self, outs: Sequence[Out]) -> None:
        ends: dict[Stream, _Ends] = {}
        with self._write() as txn:
            for out in outs:
                self._append(txn, ends, out)
            self._put_ends(txn, ends)
        self._ringer.ring(ends)

    def _checked(self, txn: Any, commit: TaskCommit) -> _Task:
        held = txn.get(str(commit.task).encode(), db=self._mine.tasks)
        row = _decode_task(held) if held is not None else _Task()
        if row.epoch != commit.epoch:
            raise Fenced(f"{commit.task}: epoch {row.epoch} has taken over from {commit.epoch}")
        for stream, position in commit.before.items():
            if stream not in commit.past_own and row.positions.get(str(stream)) != position:
                raise Fenced(f"{commit.task}: {stream} is at {row.positions.get(str(stream))}, not at {position}")
        return row

    def _expect_drained(self, txn: Any, stream: Stream, position: Position) -> None:
        end = _ends(txn, self._mine, stream).end
        if end != position:
            raise Conflict(f"{stream} ends at {end}, not at {position}: somebody else wrote to it")

    def _append(self, txn: Any, ends: dict[Stream, _Ends], out: Out) -> None:
        if wing_of(out.stream) is not self._wing:
            raise CouldNot(f"{out.stream} belongs to the other wing; this process writes {self._wing.value}")
        held = ends.get(out.stream) or _ends(txn, self._mine, out.stream)
        number, size = _NUMBER[out.stream.topic], len(out.value)
        at_us = self._clock.now_us()
        block = _Key(
            number, out.stream.partition, held.end, out.rows, size, at_us, digest(out.value, at_us)
        )  # fmt: skip
        txn.put(_KEY.pack(*block), out.value, db=self._mine.log)
        self._grown[out.stream] = self._grown.get(out.stream, 0) + 1
        ends[out.stream] = _with(held, block)

    def _put_task(self, txn: Any, commit: TaskCommit, row: _Task) -> None:
        name, env = str(commit.task).encode(), self._mine
        if commit.snapshot is not None:
            row.snapshot, row.changes = digest(commit.snapshot), 0
            txn.put(name + b"\0" + _SNAPSHOT, commit.snapshot, db=env.state)
            for key in list(_keys(txn, env.state, name + b"\0" + _CHANGES)):
                txn.delete(key, db=env.state)
        elif commit.changes is not None:
            row.changes = row.changes + digest(commit.changes, commit.turn) & MASK
            txn.put(name + b"\0" + _CHANGES + commit.turn.to_bytes(8, "big"), commit.changes, db=env.state)
        self._put_row(txn, env.tasks, name, _encode(row))

    def _put_row(self, txn: Any, db: Any, key: bytes, value: bytes) -> None:
        """A row that the seal tells of."""
        held = txn.replace(key, value, db=db)
        self._unsealed += digest_of_row(key, value) - digest_of_row(key, held)

    def _put_ends(self, txn: Any, ends: dict[Stream, _Ends]) -> None:
        for stream, held in ends.items():
            self._put_row(txn, self._mine.ends, _stream_key(stream), _ENDS.pack(*held))
        self._commits += 1
        if self._commits % _TRIM_EVERY == 0:
            for stream, blocks in self._grown.items():
                kept = self._trim(txn, stream, _ends(txn, self._mine, stream), 2 * blocks + _TRIM_BLOCKS)
                self._put_row(txn, self._mine.ends, _stream_key(stream), _ENDS.pack(*kept))
            self._grown.clear()
            self._ahead.keep()

    def _trim(self, txn: Any, stream: Stream, ends: _Ends, most: int) -> _Ends:
        """Delete at most `most` of the oldest blocks: over the limits, and not still to be read by a pipeline stage."""
        spec = SPECS[stream.topic]
        if not spec.retention_bytes and not spec.retention_s:
            return ends
        oldest = self._clock.now_us() - spec.retention_s * 1_000_000
        needed = min(
            (self._read_to(txn, reader, stream) for reader in spec.readers if reader in _PIPELINE), default=ends.end
        )
        first, size, digests = ends.first, ends.bytes, ends.digests
        for _, key in zip(range(most), _keys(txn, self._mine.log, _stream_key(stream)), strict=False):
            block = _key(key)
            too_big = spec.retention_bytes and size > spec.retention_bytes
            too_old = spec.retention_s and block.at_us < oldest
            if not (too_big or too_old) or first + block.rows > needed:
                break
            txn.delete(key, db=self._mine.log)
            first, size, digests = first + block.rows, size - block.bytes, digests - block.digest
        return _Ends(first, ends.end, size, digests & MASK)

    def _read_to(self, txn: Any, reader: str, stream: Stream) -> Position:
        """How far a pipeline stage has come; one that was never started still has to read all of it."""
        row = txn.get(f"{reader}/{stream.partition}".encode(), db=self._mine.tasks)
        return 0 if row is None else _decode_task(row).positions.get(str(stream), 0)

    @contextlib.contextmanager
    def _write(self) -> Iterator[Any]:
        if self._readonly:
            raise CouldNot("this log is open for reading only")
        with (
            self._writing,
            _telling(self._root),
            self._watch.held() as taken,
            self._mine.env.begin(write=True) as txn,
        ):
            taken()
            self._unsealed = 0
            yield txn
            if self._unsealed:
                seal = _sealed(txn, self._mine.meta) + self._unsealed & MASK
                txn.put(b"seal", _SEAL.pack(seal), db=self._mine.meta)

    # --- the rest ----------------------------------------------------------------------------------------------------

    def listen(self, name: str, streams: Sequence[Stream]) -> FifoBell:
        with told(self._root):
            return FifoBell(self._root / "bells", name, streams)

    def ring(self, stream: Stream) -> None:
        """Wake who listens to `stream`, for what grows outside the log: a source's spool."""
        self._ringer.ring([stream])

    def sync(self) -> None:
        """Bring what was committed to the disk, whatever the durability."""
        with _telling(self._root):
            self._mine.env.sync(True)

    def close(self) -> None:
        self._ringer.close()
        self._watch.close()
        for env in self._envs.values():
            env.env.close()


def _keep_freed_memory() -> None:
    """LMDB allocates each large value anew while it commits. glibc would give such blocks back to the kernel at once,
    and getting them again, page by page, costs more than the write itself.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:  # musl has none
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


@contextlib.contextmanager
def _telling(root: Path) -> Iterator[None]:
    """What LMDB says when it does not write, in words that help."""
    try:
        yield
    except lmdb.MapFullError as error:
        raise LogFull(
            f"the log in {root} is full ({error}); the turn was not finished and nothing is lost",
            hint="raise bus.map_size_mb, then start again",
        ) from error
    except lmdb.Error as error:
        if says_full(root, str(error)):
            raise disk_full(root, error) from error
        raise CouldNot(f"the log in {root} refused a write: {error}", hint="`mendstream doctor`") from error


def _ends(txn: Any, env: _Env, stream: Stream) -> _Ends:
    held = txn.get(_stream_key(stream), db=env.ends)
    return _Ends() if held is None else _Ends(*_ENDS.unpack(held))


def _with(held: _Ends, block: _Key) -> _Ends:
    """With one more block at the end."""
    return _Ends(
        held.first, block.position + block.rows, held.bytes + block.bytes, held.digests + block.digest & MASK
    )  # fmt: skip


def _key(key: bytes) -> _Key:
    return _Key(*_KEY.unpack(key))


def _prefixed(txn: Any, db: Any, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
    with txn.cursor(db=db) as cursor:
        if cursor.set_range(prefix):
            for key, value in cursor:
                if not key.startswith(prefix):
                    return
                yield bytes(key), bytes(value)


def _keys(txn: Any, db: Any, prefix: bytes) -> Iterator[bytes]:
    with txn.cursor(db=db) as cursor:
        if cursor.set_range(prefix):
            for key in cursor.iternext(keys=True, values=False):
                if not key.startswith(prefix):
                    return
                yield bytes(key)


def _seek(cursor: Any, prefix: bytes, number: int, partition: int, position: int) -> bool:
    """To the block that holds `position`, or the first one behind it."""
    wanted = _PLACE.pack(number, partition, position)
    if not cursor.set_range(wanted):
        return bool(cursor.last()) and cursor.key().startswith(prefix)
    if cursor.key().startswith(wanted):
        return True
    # `position` may lie inside the block before, if that is of this stream; else the first one behind it.
    return (bool(cursor.prev()) and cursor.key().startswith(prefix)) or bool(cursor.set_range(wanted))


def _block(stream: Stream, key: _Key, payload: bytes, position: int, max_rows: int) -> Block | None:
    """The part of a stored block from `position` on, at most `max_rows`; None if it ends before `position`."""
    skip = max(0, position - key.position)
    if skip >= key.rows:
        return None
    take = min(key.rows - skip, max_rows)
    if SPECS[stream.topic].codec is Codec.JSON:
        if skip or take < key.rows:
            payload = b"\n".join(payload.split(b"\n")[skip : skip + take])
        return Block(stream, key.position + skip, take, payload, key.at_us)
    return Block(stream, key.position + skip, take, payload, key.at_us, skip)
