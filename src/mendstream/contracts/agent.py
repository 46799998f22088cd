"""One shape for all that thinks: `step(state, batch, now) -> (state, outputs)`.

A step owns the state it is handed and may change it in place: if the turn is not finished, that state is thrown away
and read again from the log. It does no I/O; time, ids and dice come in with the arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar, runtime_checkable

from mendstream.contracts.knobs import LiveConfig
from mendstream.contracts.records import Counts, DeadLetter, DeadReason, Record
from mendstream.contracts.topics import Topic

if TYPE_CHECKING:  # Arrow is a heavy import, and the supervisor needs none of it
    from mendstream.contracts.frame import Frame


STAGES = ("ingestion", "feature", "model", "decision")
"""The pipeline, in order. They may run in one process each, or fused in one."""


class TaskId(NamedTuple):
    """One agent on one partition number: the unit that is owned, moved, fenced and restored."""

    agent: str
    partition: int

    def __str__(self) -> str:
        return f"{self.agent}/{self.partition}"


class Unreadable(NamedTuple):
    """A record of which its source could make no line, and why: a dead letter, with its own bytes."""

    value: bytes
    reason: DeadReason
    detail: str


class Line(NamedTuple):
    """One record as it came from outside, as JSON not yet decoded; `position` is the source's own."""

    value: bytes
    """Empty, and so no JSON, if `unreadable` is given."""
    position: int
    key: str | None = None
    at_us: int | None = None
    """When it was written, as its own record has it."""
    partition: int = 0
    """Of the source, where that has some."""
    unreadable: Unreadable | None = None

    @property
    def original(self) -> bytes:
        """For a dead letter."""
        return self.value if self.unreadable is None else self.unreadable.value


@dataclass(slots=True)
class Batch:
    """What one step gets to see. An empty batch is a tick."""

    turn: str
    """Prefix of the ids that this step gives out."""
    partition: int
    config: LiveConfig
    frames: Sequence[Frame] = ()
    records: Sequence[Record] = ()
    lines: Sequence[Line] = ()
    feedback: Sequence[Line] = ()
    """Ground truth as it came from outside."""
    resumed: bool = False
    """The first step of this owner: what it knew outside the state is gone."""
    topics: Sequence[Topic] = ()
    """The topic of each of `frames`."""

    @property
    def empty(self) -> bool:
        return not (self.frames or self.records or self.lines or self.feedback)


@dataclass(slots=True)
class Outputs:
    """What one step publishes; all of it in the turn's transaction."""

    turn: str
    records: list[Record] = field(default_factory=list)
    frames: list[tuple[Topic, int, Frame]] = field(default_factory=list)
    """(topic, partition, frame)"""
    blocks: list[tuple[Topic, int, bytes, int]] = field(default_factory=list)
    """(topic, partition, JSON lines, rows): the fast way out for decisions and feedback."""
    dead: list[DeadLetter] = field(default_factory=list)
    changes: Any = None
    """For an incremental agent: what changed in its state; None if nothing did."""
    wake_at_us: int | None = None
    """When to be called again without input."""
    _ids: int = 0

    def id(self) -> str:
        """The next id of a control record of this turn."""
        self._ids += 1
        return f"{self.turn}/{self._ids}"


S = TypeVar("S")


class Agent(Protocol[S]):
    """The frozen object holds what a person set; `state` holds what the stream taught."""

    @property
    def name(self) -> str: ...
    @property
    def reads(self) -> tuple[Topic, ...]:
        """Input topics besides config-updates, which the driver folds for everybody (into `batch.config`)."""

    @property
    def state_type(self) -> type[S]:
        """A msgspec.Struct; numpy arrays in it are allowed (see contracts.state)."""

    def start(self, partition: int) -> S: ...
    def step(self, state: S, batch: Batch, now: int) -> tuple[S, Outputs]: ...


@runtime_checkable
class Incremental(Protocol[S]):
    """An agent with large keyed state: its commits carry `outputs.changes`, and a snapshot now and then."""

    def apply(self, state: S, changes: Any) -> S:
        """Redo what a step with these changes did to the state. They come back as msgpack gives them: lists, bytes."""


@runtime_checkable
class Counting(Protocol):
    """An agent that counts what it serves."""

    def counts(self, state: Any, after: int) -> tuple[list[Counts], int]:
        """The totals with a revision above `after`, and the newest revision. Sent outside the transaction."""


def dead_letter(
    outputs: Outputs, *, topic: str, partition: int, position: int, stage: str, code_version: str, reason: DeadReason,
    detail: str, value: bytes, now: int, attempts: int = 1,
) -> None:  # fmt: skip
    """Put one unusable record out, with its bytes."""
    outputs.dead.append(
        DeadLetter(
            id=outputs.id(), topic=topic, partition=partition, position=position, stage=stage,
            code_version=code_version, reason=reason, detail=detail[:1024], attempts=attempts, value=value, at_us=now,
        )
    )  # fmt: skip
