"""What monitoring's counts cost per event: the same steps with them and without, in turns, within one run."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Iterator
from typing import Any

from mendstream.agents.pipeline.decision import DecisionAgent
from mendstream.agents.pipeline.model import ModelAgent
from mendstream.bench.figures import Figure, Report
from mendstream.bench.sources import stock
from mendstream.bench.stages import Loop, Watch, fused
from mendstream.contracts import state as states

PAIRS = 30
ROWS = {2000: 10, 100: 40, 10: 200}
"""Rows of a batch -> batches in one half of a pair."""
BOUND_ROWS = 2000
"""What a saturated pipeline works with; smaller batches share the cost of a call among fewer."""


def measure(runs: int, note: Callable[[str], None]) -> Report:
    stock()
    with fused() as line:
        agents, config = line.agents, line.config
    features = _width(agents)
    found: dict[int, list[float]] = {rows: [] for rows in ROWS}
    for n in range(runs):
        for rows, batches in ROWS.items():
            found[rows].append(_cost_us(agents, config, rows, batches))
        note(f"run {n + 1} of {runs}: {found[BOUND_ROWS][-1]:.3f} us per event in batches of {BOUND_ROWS}")
    figures = {
        "counts_us" if rows == BOUND_ROWS else f"counts_us_at_{rows}_rows": Figure(
            what=f"counts of {features} features, latencies and losses, in batches of {rows}", unit="us",
            runs=tuple(costs), most=1.0 if rows == BOUND_ROWS else None,
        )
        for rows, costs in found.items()
    }  # fmt: skip
    return Report(bench="counts", figures=figures, details={"features": features})


def _width(agents: list[Any]) -> int:
    model = next(agent for agent in agents if isinstance(agent, ModelAgent))
    assert model.probe_input is not None, "nothing was scored"
    return int(model.probe_input.shape[1])


def _cost_us(agents: list[Any], config: Any, rows: int, batches: int) -> float:
    """Median over the pairs; per event: the steps, and what a commit has to encode of the counts."""
    counted, plain = Loop(agents, config), Loop(agents, config)
    pairs = []
    for _ in range(PAIRS + 2):
        with_counts = _time(counted, rows, batches)
        with _uncounted():
            without = _time(plain, rows, batches)
        pairs.append((with_counts - without) / (rows * batches) * 1e6)
    return statistics.median(pairs[2:])


def _time(loop: Loop, rows: int, batches: int) -> float:
    """CPU seconds of the batches, the encoding of the state's changes included."""
    with Watch() as watch:
        for _ in range(batches):
            loop.batch(rows)
            for outputs in loop.outputs[2:]:  # model and decision: their changes are their counts
                if outputs.changes is not None:
                    states.encode(outputs.changes)
    return watch.spent.cpu


@contextlib.contextmanager
def _uncounted() -> Iterator[None]:
    """The agents count nothing within."""
    kinds: tuple[Any, ...] = (ModelAgent, DecisionAgent)
    held = [(kind, kind._count) for kind in kinds]
    for kind in kinds:
        kind._count = _nothing
    try:
        yield
    finally:
        for kind, count in held:
            kind._count = count


def _nothing(*_: Any) -> None:
    """In place of counting."""
