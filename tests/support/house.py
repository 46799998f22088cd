"""The four stages on one log, fused or apart, driven by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec
from tests.support.clock import ManualClock
from tests.support.log import BothWings, records, records_out
from tests.support.marks import MemoryMarks
from tests.support.models import LinearScorer, Shelf
from tests.support.trips import stages, trips

from mendstream.contracts.agent import Line
from mendstream.contracts.pipeline import Pipeline
from mendstream.contracts.ports import Bus
from mendstream.contracts.records import ConfigChange, decode_block
from mendstream.contracts.topics import CONFIG, Stream, Topic, Wing
from mendstream.runtime.driver import Driver
from mendstream.runtime.leg import Leg

STAGES = ("ingestion", "feature", "model", "decision")


class ListSource:
    """Lines from a list; positions are indices. `cuts`: how many lines each poll gives at most."""

    replayable = True

    def __init__(self, lines: Sequence[bytes] = (), *, cuts: Iterable[int] = ()) -> None:
        self.lines = list(lines)
        self.feedback: set[int] = set()
        """Indices of lines that are ground truth."""
        self.polls = 0
        self.finished = 0
        self._cuts: Iterator[int] = iter(cuts)

    def poll(self, position: int, max_lines: int, max_bytes: int) -> tuple[Sequence[Line], Sequence[Line], int]:
        self.polls += 1
        until = min(len(self.lines), position + min(max_lines, next(self._cuts, max_lines)))
        found = [(n, Line(self.lines[n], n)) for n in range(position, until)]
        events = [line for n, line in found if n not in self.feedback]
        return events, [line for n, line in found if n in self.feedback], until

    def due_in_s(self) -> float | None:
        return None

    def wake_by(self, ring: Callable[[], None]) -> None:
        """Nothing arrives by itself."""

    def done(self, position: int) -> None:
        self.finished = position

    def close(self) -> None:
        """Nothing was opened."""


class Stopwatch:
    """Seconds that pass by `step_s` with every look, and when they are spent."""

    def __init__(self, step_s: float = 0.001) -> None:
        self.step_s = step_s
        self._at = 0.0

    def spend(self, seconds: float) -> None:
        self._at += seconds

    def __call__(self) -> float:
        self._at += self.step_s
        return self._at


class Stages:
    """Owners of the pipeline's tasks on `bus`; make another one for what comes after a death."""

    def __init__(
        self, bus: Bus, clock: ManualClock, source: ListSource, *, models: Shelf | None = None,
        pipeline: Pipeline = trips, partitions: int = 1, max_rows: int = 2000,
        marks: dict[str, MemoryMarks] | None = None, ready: Any = lambda config: True, **options: Any,
    ) -> None:  # fmt: skip
        self.bus = bus
        self.clock = clock
        self.source = source
        self.models = models if models is not None else Shelf()
        self.pipeline = pipeline
        self.partitions = partitions
        self.max_rows = max_rows
        self.marks = marks if marks is not None else {}
        self.ready = ready
        self.options = options

    def leg(self, name: str, partition: int = 0) -> Leg:
        (agent,) = stages(
            self.models, pipeline=self.pipeline, partitions=self.partitions, only=[name], **self.options
        )  # fmt: skip
        marks = self.marks.setdefault(f"{name}/{partition}", MemoryMarks())
        source: Any = self.source if name == "ingestion" else None
        ready = self.ready if name == "model" else (lambda config: True)
        return Leg(
            self.bus, agent, partition, Wing.DATA, marks=marks, source=source, ready=ready, max_rows=self.max_rows
        )  # fmt: skip

    def driver(self, *names: str, partition: int = 0, **options: Any) -> Driver:
        legs = [self.leg(name, partition) for name in names]
        return Driver(self.bus, self.clock, legs, stopwatch=Stopwatch(), **options)

    def fused(self) -> list[Driver]:
        return [self.driver(*STAGES)]

    def apart(self) -> list[Driver]:
        rest = [self.driver(name, partition=p) for p in range(self.partitions) for name in STAGES[1:]]
        return [self.driver("ingestion"), *rest]


def pump(drivers: Iterable[Driver], clock: ManualClock, *, most: int = 10_000) -> int:
    """Turns until nothing is due; how many there were."""
    drivers = list(drivers)
    for turns in range(most):
        clock.advance(ms=1)
        if not sum(driver.pump() for driver in drivers):  # each of them
            return turns
    raise AssertionError(f"still busy after {most} turns")


def set_config(bus: BothWings, *changes: ConfigChange) -> None:
    """Write to config-updates, as a process of the control wing does."""
    bus.elsewhere(records_out(CONFIG, changes))


def change(base: int, **knobs: Any) -> ConfigChange:
    return ConfigChange(id=f"c{base}", base_version=base, changes=knobs, actor="test", reason="", at_us=1)


def serve(scorer: LinearScorer, base: int = 0, **knobs: Any) -> ConfigChange:
    """`scorer` goes live."""
    return change(base, model_version=scorer.card.version, model_digest=scorer.card.digest, **knobs)


def decided(bus: Any, partition: int = 0) -> list[dict[str, Any]]:
    """Decisions without their time, in order."""
    return [
        {name: value for name, value in msgspec.structs.asdict(r).items() if name != "at_us"}
        for r in records(bus, Topic.DECISIONS, partition)
    ]


def dead(bus: Any) -> list[Any]:
    return records(bus, Topic.DEAD_LETTERS)


def metrics(bus: Any, position: int = 0) -> list[Any]:
    stream = Stream(Topic.AGENT_METRICS, 0)
    found = bus.read(stream, position, max_rows=1 << 30, max_bytes=1 << 40)
    return [r for block in found for r in decode_block(Topic.AGENT_METRICS, bytes(block.value))]
