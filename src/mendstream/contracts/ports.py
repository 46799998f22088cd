"""What the house asks of the world: bus, clock, doorbell, source, sink, restarter. One contract suite a port."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from mendstream.contracts.agent import Line, TaskId
from mendstream.contracts.topics import Stream

Position = int
"""Where to read next in a stream: opaque, ordered, given by the bus. `block.position + row` lies inside a block."""


class Clock(Protocol):
    def now_us(self) -> int:
        """Microseconds since 1970, UTC."""


@dataclass(slots=True)
class Block:
    """Consecutive rows of a stream: a frame, or JSON lines. `rows` of them start at `position`."""

    stream: Stream
    position: Position
    rows: int
    value: bytes | memoryview
    at_us: int
    """When it was appended."""
    skip: int = 0
    """Rows at the front of `value` that lie before `position` (frames only; JSON lines come cut)."""

    @property
    def next(self) -> Position:
        return self.position + self.rows


@dataclass(slots=True)
class Out:
    """One block to append: a frame (`rows` of it) or JSON lines (`rows` lines)."""

    stream: Stream
    value: bytes
    rows: int


@dataclass(slots=True)
class Claim:
    """What a new owner gets: a higher epoch than anybody before, and what the last turn left."""

    task: TaskId
    epoch: int
    turns: int
    positions: dict[Stream, Position]
    snapshot: bytes | None
    changes: list[bytes]
    """Deltas since the snapshot, oldest first."""


@dataclass(slots=True)
class TaskCommit:
    """One task's part of a turn."""

    task: TaskId
    epoch: int
    turn: int
    positions: dict[Stream, Position]
    """After the turn; only those that moved."""
    before: dict[Stream, Position]
    """The same streams before it: checked, so that no turn is done twice."""
    outputs: Sequence[Out] = ()
    snapshot: bytes | None = None
    changes: bytes | None = None
    past_own: Sequence[Stream] = ()
    """Fused turns: streams to read on from behind this transaction's own writes. Their end before it must be the
    position in `before`, else Conflict."""


class Bell(Protocol):
    """Wakes one reader when a stream that it listens to grows."""

    def wait(self, timeout_s: float) -> bool:
        """True if it rang (also when it rang before the call)."""

    def ring(self) -> None:
        """Wake the reader from another thread of its process, or from a signal handler."""

    def fileno(self) -> int:
        """A descriptor that is readable once it has rung."""

    def close(self) -> None: ...


class Bus(Protocol):
    """A log of streams with fenced one-transaction turns."""

    @property
    def incarnation(self) -> str: ...
    def claim(self, task: TaskId, inputs: Sequence[Stream]) -> Claim:
        """Become the owner; whoever was it before is fenced from now on. New inputs start at the stream's first row."""

    def read(self, stream: Stream, position: Position, *, max_rows: int, max_bytes: int) -> list[Block]:
        """Blocks from `position` on, cut to `max_rows`. A position that retention has passed jumps to the first row."""

    def bounds(self, stream: Stream) -> tuple[Position, Position]:
        """(first row that is kept, end)."""

    def waiting(self, stream: Stream, position: Position) -> int:
        """Rows from `position` on. Exact at 0; a server may know a larger number only about."""

    def since(self, stream: Stream, at_us: int) -> Position:
        """Where the first block lies that was appended at `at_us` or later; the end if none was."""

    def position(self, task: TaskId, stream: Stream) -> Position | None:
        """How far `task` has committed, as far as is known by now; None if it was never claimed."""

    def commit(self, commits: Sequence[TaskCommit]) -> Mapping[Stream, Position]:
        """All or nothing; returns the new ends of the streams written. Raises Fenced, Conflict, LogFull or TooLarge."""

    def publish(self, outs: Sequence[Out]) -> None:
        """Append outside any turn: pulses, counts, and what people and sinks write."""

    def now_us(self) -> int:
        """By the clock that blocks are stamped with."""

    def listen(self, name: str, streams: Sequence[Stream]) -> Bell: ...
    def close(self) -> None: ...


class Mark(NamedTuple):
    """The rows that a task was working on."""

    position: Position
    rows: int
    attempts: int
    """How many owners have had a step on just these rows, this mark's owner included."""


class StepMarks(Protocol):
    """Which rows a task has a step on, kept where the process's death cannot take it: one mark a task."""

    def left(self) -> Mark | None:
        """What the last owner was working on when it died; None if it died between steps."""

    def begin(self, position: Position, rows: int, attempts: int) -> None: ...
    def end(self) -> None: ...


class Source(Protocol):
    """Where an ingestion task's events come from. Positions are its own; a replayable source starts anywhere."""

    @property
    def replayable(self) -> bool: ...
    def poll(self, position: int, max_lines: int, max_bytes: int) -> tuple[Sequence[Line], Sequence[Line], int]:
        """(event lines, feedback lines, the next position); empty when nothing is due."""

    def due_in_s(self) -> float | None:
        """Seconds until the next line, 0.0 if one is there, None if it has ended or will ring."""

    def wake_by(self, ring: Callable[[], None]) -> None:
        """`ring` wakes the reader: to be called when something arrives, by a source that cannot tell when it will."""

    def done(self, position: int) -> None:
        """Everything before `position` is durable."""

    def close(self) -> None: ...


@runtime_checkable
class Parted(Source, Protocol):
    """A source of several parts, each with positions of its own: those of a turn are committed together."""

    @property
    def parts(self) -> Mapping[int, Source]:
        """By number, which a part keeps for good: under it its position is in the log."""


class Sink(Protocol):
    """Reads records and acts on the world: database rows, process restarts, training runs. Reports back as records."""

    @property
    def name(self) -> str: ...
    @property
    def reads(self) -> tuple[Stream, ...]: ...
    @property
    def waits_for(self) -> str:
        """What keeps it from its work, for people; empty if nothing does. Any thread may ask."""

    def pump(self) -> bool:
        """Do what is due; True if something was."""

    def close(self) -> None: ...


class Started(NamedTuple):
    """A process was started."""

    generation: int
    pid: int


class Ended(NamedTuple):
    """A process has ended, by whatever."""

    process: str
    generation: int
    pid: int
    code: int
    """Exit code; minus the signal's number if a signal ended it."""


class LifeSign(NamedTuple):
    """The newest sign of life of a process, by the house's clock."""

    at_us: int
    """When it was given, in this or an earlier life; 0: never."""
    turn_us: int
    """When its work began the turn that it is in or waits after; 0: it has not come to one."""


class Restarter(Protocol):
    """Starts and ends the processes of a house; each has at most one life at a time."""

    def start(self, process: str) -> Started:
        """Start one that does not run, under a higher generation than it ever had, whoever started it then."""

    def stop(self, process: str) -> None:
        """Ask it to finish and end. Nothing if it has ended."""

    def kill(self, process: str) -> None:
        """End it at once, also if it is stopped. Nothing if it has ended."""

    def wait(self, timeout_s: float) -> list[Ended]:
        """Sleep until a process ends, a command arrives or time is up; the ends since the last call, each once."""

    def life_sign(self, process: str) -> LifeSign: ...

    def failure(self, process: str) -> tuple[str, str] | None:
        """(message, hint): why it could not go on, as it has left it; taken away. None if it has left nothing."""

    def close(self) -> None:
        """Whatever still runs ends with it."""
