"""The bus as one simulated process has it: every call may take time, and the process may die in the middle of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Protocol

from mendstream.adapters.bus.search import first_since
from mendstream.contracts.agent import TaskId
from mendstream.contracts.errors import CommitUnknown, CouldNot, MendstreamError
from mendstream.contracts.ports import Block, Claim, Out, Position, TaskCommit
from mendstream.contracts.topics import Stream, Wing, wing_of
from mendstream.simulation.log import SimLog, Writer

UNKNOWN_AFTER_US = 500_000
"""How long a process waits for the answer to a commit before it takes the outcome for unknown."""


class Fate(Enum):
    """What becomes of one commit."""

    DONE = "done"
    LOST = "lost"  # never arrives, and nobody says so
    LATE = "late"  # arrives when the sender has given up waiting
    ORPHANED = "orphaned"  # arrives when the sender has been dead for a while
    UNHEARD = "unheard"  # done, but the answer is lost
    REFUSED = "refused"  # the disk answers with an error


class Host(Protocol):
    """The simulated process around a bus. Each call raises GreenletExit once it is dead."""

    @property
    def writer(self) -> Writer: ...
    def pass_time(self, us: int) -> None: ...
    def latency_us(self) -> int:
        """Of one half of a call: to the log, or back."""

    def fate(self) -> tuple[Fate, int]:
        """Of the next commit; the delay of a late one in microseconds."""

    def alive(self) -> None: ...
    def reach(self, wing: Wing | None = None) -> None:
        """Returns once the log can be reached; with `wing`, once its write lock is free too."""

    def twice(self) -> bool:
        """Whether what is published outside a turn arrives twice."""

    def passing(self, stage: str, commits: Sequence[TaskCommit]) -> None:
        """A commit comes by: `sent`, `done` (in the log), `heard` (the sender knows)."""

    def die(self) -> None: ...
    def later(self, us: int, call: Callable[[], None]) -> None:
        """Whether or not the process lives then."""

    def bell(self, streams: Sequence[Stream]) -> SimBell: ...


class SimBell(Protocol):
    def wait(self, timeout_s: float) -> bool: ...
    def ring(self) -> None: ...
    def fileno(self) -> int: ...
    def close(self) -> None: ...


class SimBus:
    """`contracts.ports.Bus`."""

    def __init__(self, log: SimLog, wing: Wing, host: Host) -> None:
        self._log = log
        self._wing = wing
        self._host = host

    @property
    def incarnation(self) -> str:
        return self._log.incarnation

    def now_us(self) -> int:
        return self._host.writer.now_us()

    def bounds(self, stream: Stream) -> tuple[Position, Position]:
        self._host.reach()
        return self._log.bounds(stream)

    def waiting(self, stream: Stream, position: Position) -> int:
        first, end = self.bounds(stream)
        return max(0, end - max(first, position))

    def since(self, stream: Stream, at_us: int) -> Position:
        return first_since(self, stream, at_us)

    def read(self, stream: Stream, position: Position, *, max_rows: int, max_bytes: int) -> list[Block]:
        self._host.reach()
        return self._log.read(stream, position, max_rows=max_rows, max_bytes=max_bytes)

    def position(self, task: TaskId, stream: Stream) -> Position | None:
        self._host.reach()
        held = self._log.task(task)
        return None if held is None else held.positions.get(stream)

    def claim(self, task: TaskId, inputs: Sequence[Stream]) -> Claim:
        self._host.pass_time(self._host.latency_us())
        self._host.reach(self._wing)
        claim = self._log.claim(task, inputs, self._host.writer)
        self._host.pass_time(self._host.latency_us())
        return claim

    def commit(self, commits: Sequence[TaskCommit]) -> Mapping[Stream, Position]:
        self._of_this_wing([out for commit in commits for out in commit.outputs])
        self._host.passing("sent", commits)
        self._host.pass_time(self._host.latency_us())
        self._host.reach(self._wing)
        fate, delay_us = self._host.fate()
        if fate in (Fate.LOST, Fate.LATE, Fate.ORPHANED):
            if fate is not Fate.LOST:
                writer, cuts = self._host.writer, self._log.cuts
                self._host.later(delay_us, lambda: self._arrive(commits, writer, cuts))
            if fate is Fate.ORPHANED:
                self._host.die()
            self._host.pass_time(UNKNOWN_AFTER_US)
            raise CommitUnknown("the log did not answer a commit")
        if fate is Fate.REFUSED:
            raise CouldNot("the log refused a write: input/output error", hint="look at the disk")
        ends = self._log.commit(commits, self._host.writer)
        self._host.passing("done", commits)
        self._host.pass_time(self._host.latency_us())
        self._host.passing("heard", commits)
        if fate is Fate.UNHEARD:
            self._host.pass_time(UNKNOWN_AFTER_US)
            raise CommitUnknown("the log did not answer a commit")
        return ends

    def _arrive(self, commits: Sequence[TaskCommit], writer: Writer, cuts: int) -> None:
        if self._log.cuts != cuts:
            return  # the machine that it was under way on has gone down since
        try:
            self._log.commit(commits, writer)
        except MendstreamError:
            return  # refused, and there is nobody left to hear it

    def publish(self, outs: Sequence[Out]) -> None:
        self._of_this_wing(outs)
        self._host.pass_time(self._host.latency_us())
        self._host.reach(self._wing)
        self._log.publish(outs, self._host.writer)
        if self._host.twice():
            self._log.publish(outs, self._host.writer)

    def _of_this_wing(self, outs: Sequence[Out]) -> None:
        for out in outs:
            if wing_of(out.stream) is not self._wing:
                raise CouldNot(f"{out.stream} belongs to the other wing; this process writes {self._wing.value}")

    def listen(self, name: str, streams: Sequence[Stream]) -> SimBell:
        return self._host.bell(streams)

    def sync(self) -> None:
        self._log.sync()

    def close(self) -> None:
        """Nothing is held open."""
