"""The simulated log: what every process of the house reads and writes, and what a power cut leaves of it.

`SimLog` is what is durable. It tells its watchers of everything that happens to it, which is what invariants look at.
The port that a process gets of it is SimBus, in bus.py.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from mendstream.contracts.agent import TaskId
from mendstream.contracts.errors import Conflict, Fenced, LogFull
from mendstream.contracts.ports import Block, Claim, Out, Position, TaskCommit
from mendstream.contracts.records import Record, decode_each
from mendstream.contracts.topics import SPECS, Codec, Stream


@dataclass
class Append:
    """One block that has just become part of the log."""

    at_us: int
    stream: Stream
    position: Position
    rows: int
    value: bytes
    process: str
    generation: int
    task: TaskId | None
    """None: published outside any turn."""

    @cached_property
    def records(self) -> list[Record]:
        """The records in it; empty for a frame."""
        if SPECS[self.stream.topic].codec is Codec.FRAME:
            return []
        return [record for record in decode_each(self.stream.topic, self.value) if record is not None]


class Watcher(Protocol):
    """Is told of each thing once it has happened."""

    def appended(self, append: Append) -> None: ...
    def committed(self, commit: TaskCommit, process: str, generation: int) -> None: ...
    def claimed(self, task: TaskId, epoch: int, process: str, generation: int) -> None: ...
    def forgot(self, log: SimLog) -> None:
        """A power cut took what was not synced: what is left is all that ever was, and a new incarnation begins."""


@dataclass
class _Rows:
    starts: list[int] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    end: int = 0


@dataclass
class Task:
    """What the log holds of one task."""

    epoch: int = 0
    turns: int = 0
    positions: dict[Stream, Position] = field(default_factory=dict)
    snapshot: bytes | None = None
    changes: list[bytes] = field(default_factory=list)


@dataclass(frozen=True)
class Writer:
    """Who writes, and by which clock: blocks are stamped with it."""

    process: str
    generation: int
    now_us: Callable[[], int]


class SimLog:
    """All of it, in memory."""

    def __init__(self, *, incarnation: str = "sim.0", synced: bool = True) -> None:
        """`synced`: every commit reaches the disk (durability `power`); else only what `sync` brought there."""
        self.incarnation = incarnation
        self.full = False
        self.newest_us = 0
        """The latest stamp in it."""
        self.hidden: dict[Stream, Position] = {}
        """Where an open transaction hides what comes after it; readers see no further."""
        self.watchers: list[Watcher] = []
        self.cuts = 0
        """How often the power was cut: what was under way then never arrives."""
        self._synced = synced
        self._streams: dict[Stream, _Rows] = {}
        self._tasks: dict[TaskId, Task] = {}
        self._saved_streams: dict[Stream, tuple[int, int]] = {}
        """stream -> (blocks, end) that the disk has."""
        self._saved_tasks: dict[TaskId, Task] = {}
        self._bells: dict[Stream, dict[int, Callable[[], None]]] = {}
        self._bell_count = 0

    # --- reading -----------------------------------------------------------------------------------------------------

    def bounds(self, stream: Stream) -> tuple[Position, Position]:
        rows = self._streams.get(stream)
        end = 0 if rows is None else rows.end
        return (0, min(end, self.hidden[stream]) if stream in self.hidden else end)

    def read(self, stream: Stream, position: Position, *, max_rows: int, max_bytes: int) -> list[Block]:
        rows = self._streams.get(stream)
        if rows is None or position >= rows.end:
            return []
        if stream in self.hidden:
            max_rows = min(max_rows, self.hidden[stream] - position)
        found: list[Block] = []
        size = 0
        for block in rows.blocks[max(bisect.bisect_right(rows.starts, position) - 1, 0) :]:
            if max_rows <= 0 or (found and size + len(block.value) > max_bytes):
                break
            part = _cut(block, position, max_rows)
            found.append(part)
            size += len(block.value)
            max_rows -= part.rows
        return found

    def task(self, task: TaskId) -> Task | None:
        return self._tasks.get(task)

    @property
    def tasks(self) -> Mapping[TaskId, Task]:
        return self._tasks

    @property
    def streams(self) -> tuple[Stream, ...]:
        return tuple(self._streams)

    # --- writing -----------------------------------------------------------------------------------------------------

    def claim(self, task: TaskId, inputs: Sequence[Stream], writer: Writer) -> Claim:
        self._room()
        held = self._tasks.setdefault(task, Task())
        held.epoch += 1
        for stream in inputs:
            held.positions.setdefault(stream, 0)
        for watcher in self.watchers:
            watcher.claimed(task, held.epoch, writer.process, writer.generation)
        return Claim(
            task=task, epoch=held.epoch, turns=held.turns, positions={s: held.positions[s] for s in inputs},
            snapshot=held.snapshot, changes=list(held.changes),
        )  # fmt: skip

    def commit(self, commits: Sequence[TaskCommit], writer: Writer) -> dict[Stream, Position]:
        """All or nothing. Raises Fenced, Conflict or LogFull."""
        self._room()
        for commit in commits:
            self._check(commit)
        for commit in commits:
            for stream in commit.past_own:
                end = self._end(stream)
                if end != commit.before[stream]:
                    raise Conflict(f"{stream} ends at {end}, not at {commit.before[stream]}")
        grown: dict[Stream, Position] = {}
        appends = [self._append(out, writer, commit.task, grown) for commit in commits for out in commit.outputs]
        for commit in commits:
            self._advance(commit, grown)
        for append in appends:
            for watcher in self.watchers:
                watcher.appended(append)
        for commit in commits:
            for watcher in self.watchers:
                watcher.committed(commit, writer.process, writer.generation)
        self._ring(grown)
        return grown

    def publish(self, outs: Sequence[Out], writer: Writer) -> None:
        """Outside any turn. Raises LogFull."""
        self._room()
        grown: dict[Stream, Position] = {}
        for append in [self._append(out, writer, None, grown) for out in outs]:
            for watcher in self.watchers:
                watcher.appended(append)
        self._ring(grown)

    def _end(self, stream: Stream) -> Position:
        rows = self._streams.get(stream)
        return 0 if rows is None else rows.end

    def _room(self) -> None:
        if self.full:
            raise LogFull("the simulated disk is full", hint="make room and start the house again")

    def _check(self, commit: TaskCommit) -> None:
        held = self._tasks.get(commit.task) or Task()
        if held.epoch != commit.epoch:
            raise Fenced(f"{commit.task}: epoch {held.epoch} has taken over from {commit.epoch}")
        for stream, position in commit.before.items():
            if stream not in commit.past_own and held.positions.get(stream) != position:
                raise Fenced(f"{commit.task}: {stream} is at {held.positions.get(stream)}, not at {position}")

    def _append(self, out: Out, writer: Writer, task: TaskId | None, grown: dict[Stream, Position]) -> Append:
        rows = self._streams.setdefault(out.stream, _Rows())
        now = writer.now_us()
        self.newest_us = max(self.newest_us, now)
        rows.starts.append(rows.end)
        rows.blocks.append(Block(out.stream, rows.end, out.rows, out.value, now))
        append = Append(now, out.stream, rows.end, out.rows, out.value, writer.process, writer.generation, task)
        rows.end += out.rows
        grown[out.stream] = rows.end
        return append

    def _advance(self, commit: TaskCommit, grown: Mapping[Stream, Position]) -> None:
        held = self._tasks[commit.task]
        held.turns = commit.turn
        held.positions.update(commit.positions)
        for stream in commit.past_own:
            held.positions[stream] = grown.get(stream, self._end(stream))
        if commit.snapshot is not None:
            held.snapshot, held.changes = commit.snapshot, []
        elif commit.changes is not None:
            held.changes.append(commit.changes)

    # --- bells -------------------------------------------------------------------------------------------------------

    def listen(self, streams: Sequence[Stream], ring: Callable[[], None]) -> Callable[[], None]:
        """`ring` at each growth of one of them; the answer ends that."""
        self._bell_count += 1
        number = self._bell_count
        for stream in streams:
            self._bells.setdefault(stream, {})[number] = ring

        def end() -> None:
            for stream in streams:
                self._bells[stream].pop(number, None)

        return end

    def _ring(self, grown: Mapping[Stream, Position]) -> None:
        rung: set[int] = set()
        for stream in grown:
            for number, ring in list(self._bells.get(stream, {}).items()):
                if number not in rung:
                    rung.add(number)
                    ring()

    def ring(self, stream: Stream) -> None:
        """Wake who listens to it: there is something to see again."""
        self._ring({stream: 0})

    # --- power -------------------------------------------------------------------------------------------------------

    def sync(self) -> None:
        """Bring everything to the disk."""
        self._saved_streams = {stream: (len(rows.blocks), rows.end) for stream, rows in self._streams.items()}
        self._saved_tasks = {task: _copy(held) for task, held in self._tasks.items()}

    def cut_power(self) -> None:
        """What was not synced is gone; with durability `process` that begins a new incarnation."""
        self.cuts += 1
        if self._synced:
            return
        for stream, rows in self._streams.items():
            count, rows.end = self._saved_streams.get(stream, (0, 0))
            del rows.starts[count:], rows.blocks[count:]
        self._tasks = {task: _copy(held) for task, held in self._saved_tasks.items()}
        stem, _, number = self.incarnation.partition(".")
        self.incarnation = f"{stem}.{int(number) + 1}"
        self.newest_us = max((rows.blocks[-1].at_us for rows in self._streams.values() if rows.blocks), default=0)
        for watcher in self.watchers:
            watcher.forgot(self)


def _copy(task: Task) -> Task:
    return Task(task.epoch, task.turns, dict(task.positions), task.snapshot, list(task.changes))


def _cut(block: Block, position: Position, max_rows: int) -> Block:
    skip = max(position - block.position, 0)
    rows = min(block.rows - skip, max_rows)
    if skip == 0 and rows == block.rows:
        return block
    if SPECS[block.stream.topic].codec is Codec.FRAME:
        return Block(block.stream, block.position + skip, rows, block.value, block.at_us, skip)
    lines = bytes(block.value).split(b"\n")[skip : skip + rows]
    return Block(block.stream, block.position + skip, rows, b"\n".join(lines) + b"\n", block.at_us)
