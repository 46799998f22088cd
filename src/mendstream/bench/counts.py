"""What monitoring's counts cost per event: the steps that count, with it and without, in turns on the same frames."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Iterator
from typing import Any

from mendstream.agents.pipeline.decision import DecisionAgent
from mendstream.agents.pipeline.model import ModelAgent
from mendstream.bench.figures import Figure, Report
from mendstream.bench.stages import Loop, Watch, fused
from mendstream.contracts import state as states
from mendstream.contracts.agent import Agent, Batch
from mendstream.contracts.frame import Frame
from mendstream.contracts.knobs import LiveConfig
from mendstream.contracts.topics import Topic
from mendstream.runtime.clock import WallClock

PAIRS = 40
ROWS = {2000: 5, 100: 20, 10: 100}
"""Rows of a batch -> batches in one half of a pair."""
BOUND_ROWS = 2000
"""What a saturated pipeline works with; smaller batches share the cost of a call among fewer."""


def measure(runs: int, note: Callable[[str], None]) -> Report:
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
            what=f"counts of {features} features, scores' latencies and losses, in batches of {rows}", unit="us",
            runs=tuple(costs), most=1.0 if rows == BOUND_ROWS else None,
        )
        for rows, costs in found.items()
    }  # fmt: skip
    return Report(bench="counts", figures=figures, details={"features": features})


def _width(agents: list[Agent[Any]]) -> int:
    model = next(agent for agent in agents if isinstance(agent, ModelAgent))
    assert model.probe_input is not None, "nothing was scored"
    return int(model.probe_input.shape[1])


def _cost_us(agents: list[Agent[Any]], config: LiveConfig, rows: int, batches: int) -> float:
    """Median over the pairs. Who comes first changes, for the second one finds the frames in the caches."""
    source = Loop(agents[:2], config)
    counted, plain = _Counters(agents[2:], config), _Counters(agents[2:], config)
    costs = []
    for pair in range(PAIRS):
        frames = [_features(source, rows) for _ in range(batches)]
        spent = {}
        for counts in (True, False) if pair % 2 else (False, True):
            with contextlib.nullcontext() if counts else _uncounted():
                spent[counts] = (counted if counts else plain).time_s(frames)
        costs.append((spent[True] - spent[False]) / (rows * batches) * 1e6)
    # The first of each order only warms up; an even number of the others weighs both orders alike.
    return statistics.fmean([statistics.median(costs[2::2]), statistics.median(costs[3::2])])


def _features(source: Loop, rows: int) -> Frame:
    source.batch(rows)
    ((_, _, frame),) = source.outputs[-1].frames
    return frame


class _Counters:
    """The two stages that count per event: model and decision."""

    def __init__(self, agents: list[Agent[Any]], config: LiveConfig) -> None:
        self._model, self._decision = agents
        self._config = config
        self._clock = WallClock()
        self._states = [agent.start(0) for agent in agents]

    def time_s(self, frames: list[Frame]) -> float:
        """CPU seconds of both steps and of encoding what a commit has to keep: their changes are their counts."""
        with Watch() as watch:
            for frame in frames:
                predicted = self._step(0, self._model, frame, Topic.FEATURES)
                self._step(1, self._decision, predicted, Topic.PREDICTIONS)
        return watch.spent.cpu

    def _step(self, place: int, agent: Agent[Any], frame: Frame, topic: Topic) -> Frame:
        batch = Batch("counts/0/1", 0, self._config, frames=[frame], topics=[topic])
        self._states[place], outputs = agent.step(self._states[place], batch, self._clock.now_us())
        if outputs.changes is not None:
            states.encode(outputs.changes)
        return outputs.frames[0][2] if outputs.frames else frame


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
