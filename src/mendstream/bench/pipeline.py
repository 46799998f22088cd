"""What the log costs: fused with durable commits against the same steps without a log, and against a process each."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from mendstream.bench import budget, ground
from mendstream.bench.figures import Figure, Report
from mendstream.bench.ground import DECISIONS
from mendstream.bench.sources import SATURATED, STOCK, stock
from mendstream.bench.stages import Loop, Spent, fused
from mendstream.contracts.agent import STAGES
from mendstream.contracts.topics import Wing
from mendstream.runtime.ground import open_bus, prepare

PAIRS = 24
"""Of a run: fused, loop, fused, loop, ... so that what else the machine does meets both."""
CHUNK = 20_000
"""Events of one half of a pair: some 60 ms."""
WARM_PAIRS = 2
SETTLE_S = 2.0
WINDOW_S = 10.0
PROCESS_RUNS = 3


def measure(runs: int, note: Callable[[str], None]) -> Report:
    stock()
    inside = [_inside(n, runs, note) for n in range(runs)]
    note("budget of a fused turn")
    spent = budget.measure(CHUNK * 10)
    apart = [_apart(n, min(runs, PROCESS_RUNS), note) for n in range(min(runs, PROCESS_RUNS))]
    return Report(bench="pipeline", figures={**_inside_figures(inside), **_apart_figures(apart)},
                  details={"budget_us": spent})  # fmt: skip


# --- in this process -------------------------------------------------------------------------------------------------


class _Inside(NamedTuple):
    """One run of pairs; `rows` in each half."""

    pairs: list[tuple[int, Spent, Spent]]

    @property
    def ratio(self) -> float:
        """Median over the pairs of (loop / fused)."""
        return statistics.median(loop.wall / fused.wall for _, fused, loop in self.pairs)

    @property
    def ratio_cpu(self) -> float:
        return statistics.median(loop.cpu / fused.cpu for _, fused, loop in self.pairs)

    @property
    def rows(self) -> int:
        return sum(rows for rows, _, _ in self.pairs)

    @property
    def fused(self) -> Spent:
        return Spent(sum(fused.wall for _, fused, _ in self.pairs), sum(fused.cpu for _, fused, _ in self.pairs))

    @property
    def loop(self) -> Spent:
        return Spent(sum(loop.wall for _, _, loop in self.pairs), sum(loop.cpu for _, _, loop in self.pairs))


def _inside(n: int, runs: int, note: Callable[[str], None]) -> _Inside:
    with fused() as line:
        # Of other events than the ones that were just seen: those would still be in the processor's caches.
        loop = Loop(line.agents, line.config, position=STOCK // 2)
        pairs = []
        for _ in range(WARM_PAIRS + PAIRS):
            cuts, with_log = line.turns(CHUNK)
            pairs.append((sum(cuts), with_log, loop.batches(cuts)))
        assert line.decided == sum(line.cuts), "the log has not every decision"
    found = _Inside(pairs[WARM_PAIRS:])
    note(
        f"run {n + 1} of {runs}: fused {found.rows / found.fused.wall:,.0f} events/s, ratio to no log {found.ratio:.3f}"
    )
    return found


def _inside_figures(found: Sequence[_Inside]) -> dict[str, Figure]:
    return {
        "fused_ratio": Figure(
            what="time of the steps in a loop without a log, over time fused with the log", unit="",
            runs=tuple(run.ratio for run in found), least=0.85,
        ),
        "fused_events_per_s": Figure(
            what="fused, JSON in, decision record committed, one core", unit="events/s",
            runs=tuple(run.rows / run.fused.wall for run in found), least=200_000,
        ),
        "fused_ratio_cpu": Figure(
            what="the same ratio by CPU time of the thread", unit="", runs=tuple(run.ratio_cpu for run in found)
        ),
        "fused_events_per_cpu_s": Figure(
            what="fused, per second of CPU", unit="events/s", runs=tuple(run.rows / run.fused.cpu for run in found)
        ),
        "loop_events_per_s": Figure(
            what="the steps in a loop without a log", unit="events/s",
            runs=tuple(run.rows / run.loop.wall for run in found),
        ),
    }  # fmt: skip


# --- a process each --------------------------------------------------------------------------------------------------


class _Rate(NamedTuple):
    events_per_s: float
    cpu_us: float | None
    """CPU time of all its processes per event."""


class _Apart(NamedTuple):
    fused: _Rate
    each: _Rate


def _apart(n: int, runs: int, note: Callable[[str], None]) -> _Apart:
    found = _Apart(_saturated(fuse=True), _saturated(fuse=False))
    note(
        f"run {n + 1} of {runs}: fused in its own process {found.fused.events_per_s:,.0f} events/s, "
        f"a process each {found.each.events_per_s:,.0f}"
    )
    return found


def _saturated(*, fuse: bool) -> _Rate:
    """Only the pipeline's processes run: nothing watches or heals."""
    with ground.folder() as root:
        house = ground.settings(root, fuse=fuse, source=SATURATED)
        prepare(house)
        bus = open_bus(house, Wing.CONTROL, readonly=True)
        roles = ("fused",) if fuse else STAGES
        try:
            with ground.processes(house, [("agent", role) for role in roles]) as started:
                ground.wait_for("decision", lambda: bus.bounds(DECISIONS)[1] > 0, started)
                time.sleep(SETTLE_S)
                at, end, cpu = time.perf_counter(), bus.bounds(DECISIONS)[1], ground.cpu_s(started)
                time.sleep(WINDOW_S)
                events, seconds = bus.bounds(DECISIONS)[1] - end, time.perf_counter() - at
                after = ground.cpu_s(started)
        finally:
            bus.close()
    return _Rate(events / seconds, None if cpu is None or after is None else (after - cpu) / max(events, 1) * 1e6)


def _apart_figures(found: Sequence[_Apart]) -> dict[str, Figure]:
    return {
        "processes_ratio": Figure(
            what="events/s of a process per agent, saturated, over fused in its own process", unit="",
            runs=tuple(run.each.events_per_s / run.fused.events_per_s for run in found), least=1.3,
        ),
        "processes_events_per_s": Figure(
            what="a process per agent", unit="events/s", runs=tuple(run.each.events_per_s for run in found)
        ),
        "fused_process_events_per_s": Figure(
            what="fused in its own process", unit="events/s", runs=tuple(run.fused.events_per_s for run in found)
        ),
        "processes_cpu_us": Figure(
            what="CPU per event, a process per agent", unit="us", runs=tuple(run.each.cpu_us for run in found)
        ),
        "fused_process_cpu_us": Figure(
            what="CPU per event, fused in its own process", unit="us", runs=tuple(run.fused.cpu_us for run in found)
        ),
    }  # fmt: skip
