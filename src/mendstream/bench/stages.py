"""The real pipeline in this process: fused through the driver and the log, or the same steps in a loop without one."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mendstream.bench import ground
from mendstream.bench.sources import SATURATED, Saturated
from mendstream.contracts.agent import Agent, Batch, Counting, Outputs
from mendstream.contracts.knobs import LiveConfig
from mendstream.runtime.assembly import Parts
from mendstream.runtime.clock import WallClock
from mendstream.runtime.driver import COUNTS_EVERY_US, Driver
from mendstream.runtime.ground import prepare
from mendstream.runtime.local import LocalWorld
from mendstream.runtime.roster import Place


class Spent(NamedTuple):
    """Seconds; `cpu`: of this thread."""

    wall: float
    cpu: float


class Watch:
    """Time that the body of a `with` takes."""

    def __enter__(self) -> Watch:
        self._wall, self._cpu = time.perf_counter(), time.thread_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.spent = Spent(time.perf_counter() - self._wall, time.thread_time() - self._cpu)


class Fused:
    """All four stages in one driver on an LMDB log, at a source that never runs dry."""

    def __init__(self, root: Path) -> None:
        house = ground.settings(root, fuse=True, source=SATURATED)
        prepare(house)
        self.cuts: list[int] = []
        """Rows of each turn so far."""
        self.parts = Parts(house, Place("fused"), LocalWorld(house, Place("fused")), self._observe)
        self.parts.own((0,))
        self.driver: Driver = self.parts.drivers[0]
        while not self.cuts:  # the model is being loaded
            self.driver.pump()

    def _observe(self, agent: str, rows: int, seconds: float, outputs: Outputs) -> None:
        if agent == "ingestion" and rows:
            self.cuts.append(rows)

    def turns(self, rows: int) -> tuple[list[int], Spent]:
        """Turns until at least `rows` were decided; (rows of each turn, time)."""
        before = len(self.cuts)
        with Watch() as watch:
            while sum(self.cuts[before:]) < rows:
                self.driver.pump()
        return self.cuts[before:], watch.spent

    @property
    def agents(self) -> list[Agent[Any]]:
        return [leg.agent for leg in self.driver.legs]

    @property
    def config(self) -> LiveConfig:
        return self.driver.legs[0].config

    @property
    def decided(self) -> int:
        return self.parts.bus.bounds(ground.DECISIONS)[1]


@contextlib.contextmanager
def fused() -> Iterator[Fused]:
    """On a fresh log."""
    with ground.folder() as root:
        line = Fused(root)
        try:
            yield line
        finally:
            line.parts.close()


class Loop:
    """The steps of the same agents on the same events, with states of its own; nothing is encoded for a log."""

    def __init__(self, agents: Sequence[Agent[Any]], config: LiveConfig, *, position: int = 0) -> None:
        self._agents = list(agents)
        self._config = config
        self._states = [agent.start(0) for agent in agents]
        self._sent = [0] * len(agents)
        self._clock = WallClock()
        self._source = Saturated(0, 0, lambda: "normal", self._clock)
        self._position = position
        self._counts_at = 0
        self.outputs: list[Outputs] = []
        """Of the newest batch, stage by stage."""

    def batches(self, cuts: Sequence[int]) -> Spent:
        """One batch for each cut of so many rows."""
        with Watch() as watch:
            for rows in cuts:
                self.batch(rows)
        return watch.spent

    def batch(self, rows: int) -> None:
        lines, _, self._position = self._source.poll(self._position, rows, 0)
        batch = Batch("loop/0/1", 0, self._config, lines=lines)
        self.outputs = []
        for place, agent in enumerate(self._agents):
            self._states[place], outputs = agent.step(self._states[place], batch, self._clock.now_us())
            self.outputs.append(outputs)
            made = [(topic, frame) for topic, _, frame in outputs.frames]
            batch = Batch(
                "loop/0/1", 0, self._config, frames=[f for _, f in made], topics=[topic for topic, _ in made]
            )  # fmt: skip
        self._count()

    def _count(self) -> None:
        now = self._clock.now_us()
        if now - self._counts_at >= COUNTS_EVERY_US:
            self._counts_at = now
            for place, agent in enumerate(self._agents):
                if isinstance(agent, Counting):
                    _, self._sent[place] = agent.counts(self._states[place], self._sent[place])
