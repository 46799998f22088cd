"""Sources of the benches, opened by `ingestion.source = python:mendstream.bench.sources:NAME` like any user's own."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from functools import lru_cache

from mendstream.contracts.agent import Line
from mendstream.contracts.ports import Clock
from mendstream.demo.source import bench_lines

STOCK = 300 * 850
"""Events that are made before anything is measured. More than a repeat is looked for among, so that an id may come
again: ingestion keeps between one and two of its windows of 100,000 ids."""
SATURATED = "python:mendstream.bench.sources:Saturated"
PACED = "python:mendstream.bench.sources:Paced"


@lru_cache(maxsize=1)
def stock() -> list[Line]:
    """Real flights as lines. Nobody's collector shall look at them again: no real source keeps so many."""
    lines = [Line(value, n) for n, value in enumerate(bench_lines(STOCK))]
    gc.collect()
    gc.freeze()
    return lines


class Saturated:
    """As many events as are asked for, at once and without end; making them is not part of what is measured."""

    replayable = True

    def __init__(self, seed: int, rate: float, regime: Callable[[], str], clock: Clock) -> None:
        self._stock = stock()

    def poll(self, position: int, max_lines: int, max_bytes: int) -> tuple[Sequence[Line], Sequence[Line], int]:
        first = position % len(self._stock)
        lines = self._stock[first : first + max_lines]
        return lines, (), position + len(lines)

    def due_in_s(self) -> float:
        return 0.0

    def wake_by(self, ring: Callable[[], None]) -> None:
        """It knows when its next line is due."""

    def done(self, position: int) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        """Nothing was opened."""


class Paced:
    """`rate` events a second. Each id is `DUE.NUMBER`: when the event was due, in microseconds of the machine's
    monotonic clock, which all processes share; so what a late wake-up costs counts as latency.
    """

    replayable = True

    def __init__(self, seed: int, rate: float, regime: Callable[[], str], clock: Clock) -> None:
        # A line begins with {"id":"f123", and its own id makes room for ours.
        self._rests = [line.value.partition(b",")[2] for line in stock()]
        self._gap_us = 1e6 / rate
        self._anchor: tuple[int, int] | None = None
        self._next = 0

    def poll(self, position: int, max_lines: int, max_bytes: int) -> tuple[Sequence[Line], Sequence[Line], int]:
        if self._anchor is None:
            self._anchor = monotonic_us(), position
        stop = position + max(0, min(max_lines, self._due() - position))
        lines = [Line(self._line(n), n) for n in range(position, stop)]
        self._next = stop
        return lines, (), stop

    def due_in_s(self) -> float:
        if self._anchor is None:
            return 0.0
        return max(0.0, (self._due_us(self._next) - monotonic_us()) / 1e6)

    def wake_by(self, ring: Callable[[], None]) -> None:
        """It knows when its next line is due."""

    def done(self, position: int) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        """Nothing was opened."""

    def _line(self, n: int) -> bytes:
        return b'{"id":"%d.%d",%b' % (self._due_us(n), n, self._rests[n % len(self._rests)])

    def _due_us(self, n: int) -> int:
        at, first = self._anchor or (0, 0)
        return at + int((n - first) * self._gap_us)

    def _due(self) -> int:
        """The number behind the newest event that is due."""
        at, first = self._anchor or (0, 0)
        return first + int((monotonic_us() - at) / self._gap_us) + 1


def monotonic_us() -> int:
    return time.monotonic_ns() // 1000


def due_of(event_id: str) -> int:
    """When the event of that id was due."""
    return int(event_id.partition(".")[0])
