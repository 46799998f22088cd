"""Where a fused turn's time goes: functions of the pipeline are timed while it runs, each without what it calls."""

from __future__ import annotations

import contextlib
import functools
import importlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa

from mendstream.bench.figures import rounded
from mendstream.bench.sources import stock
from mendstream.bench.stages import fused
from mendstream.contracts.ids import murmur2

PLACES: tuple[tuple[str, str], ...] = (
    ("decode_columns", "mendstream.agents.pipeline.ingestion:IngestionAgent._rows"),
    ("decode_columns", "mendstream.agents.pipeline.ingestion:IngestionAgent._columns"),
    ("ids_dedupe", "mendstream.agents.pipeline.ingestion:IngestionAgent._fresh"),
    ("ids_dedupe", "mendstream.agents.pipeline.ingestion:IngestionAgent._remember"),
    ("frames", "mendstream.agents.pipeline.ingestion:IngestionAgent._emit"),
    ("frames", "mendstream.contracts.frame:derive"),
    ("frames", "mendstream.contracts.frame:make"),
    ("frame_encode", "mendstream.contracts.frame:Frame.encode"),
    ("windows", "mendstream.agents.pipeline.windows:update"),
    ("features", "mendstream.contracts.pipeline:Pipeline.compute_features"),
    ("model", "mendstream.agents.pipeline.model:ModelAgent._matrix"),
    ("model", "mendstream.adapters.models.onnx:OnnxScorer.score"),
    ("counts", "mendstream.agents.pipeline.model:ModelAgent._count"),
    ("counts", "mendstream.agents.pipeline.decision:DecisionAgent._count"),
    ("counts", "mendstream.agents.panes:PaneTable.settle"),
    ("counts", "mendstream.runtime.driver:Driver._send_counts"),
    ("decision_records", "mendstream.agents.pipeline.decision:DecisionAgent._decide"),
    ("decision_records", "mendstream.agents.pipeline.decision:_records"),
    ("state_encode", "mendstream.runtime.leg:Leg.commit_of"),
    ("commit", "mendstream.adapters.bus.lmdb_bus:LmdbBus.commit"),
    ("source", "mendstream.runtime.leg:Leg._poll_source"),
)
"""(step, function): together the steps are the turn, but for what is left to the driver."""


class Times:
    """Own time of each step: what a timed function spends inside another one is counted there."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inner = [0.0]

    def timed(self, step: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **named: Any) -> Any:
            self._inner.append(0.0)
            started = time.perf_counter()
            try:
                return function(*args, **named)
            finally:
                spent = time.perf_counter() - started
                self.seconds[step] = self.seconds.get(step, 0.0) + spent - self._inner.pop()
                self._inner[-1] += spent

        return call


@contextlib.contextmanager
def instrumented() -> Iterator[Times]:
    """All of PLACES timed within."""
    times = Times()
    held = []
    for step, place in PLACES:
        owner, name = _owner(place)
        function = getattr(owner, name)
        held.append((owner, name, function))
        setattr(owner, name, times.timed(step, function))
    try:
        yield times
    finally:
        for owner, name, function in held:
            setattr(owner, name, function)


def _owner(place: str) -> tuple[Any, str]:
    module, _, path = place.partition(":")
    owner: Any = importlib.import_module(module)
    *parts, name = path.split(".")
    for part in parts:
        owner = getattr(owner, part)
    return owner, name


def measure(rows: int) -> dict[str, float | None]:
    """Microseconds per event of each step, fused, over `rows` events; `total` is all of them.

    `murmur2` is beside it: with one partition there is nothing to hash for.
    """
    with fused() as line, instrumented() as times:
        line.turns(rows // 4)
        times.seconds.clear()
        cuts, spent = line.turns(rows)
    done = sum(cuts)
    steps = {step: times.seconds.get(step, 0.0) for step in dict.fromkeys(step for step, _ in PLACES)}
    steps["driver_rest"] = spent.wall - sum(steps.values())
    found = {step: rounded(seconds / done * 1e6) for step, seconds in steps.items()}
    return {**found, "total": rounded(spent.wall / done * 1e6), "murmur2": rounded(_murmur2_us())}


def _murmur2_us(batches: int = 20, rows: int = 2000) -> float:
    keys = [line.value.split(b'"', 8)[7].decode() for line in stock()[: batches * rows]]
    columns = [pa.array(keys[n * rows : (n + 1) * rows]) for n in range(batches)]
    started = time.perf_counter()
    for column in columns:
        murmur2(column)
    return (time.perf_counter() - started) / (batches * rows) * 1e6
