"""The parts that turn time into numbers: own times of steps, latency of decisions, the steps with and without a log."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec
import pytest

from mendstream.bench import budget, ground, kafka, sources, stages, start
from mendstream.bench.help import verbs
from mendstream.bench.latency import Reader
from mendstream.bench.mttr import WANTED
from mendstream.chaos.faults import FAULTS
from mendstream.contracts.ports import Block


def test_a_timed_function_is_charged_without_what_it_calls(monkeypatch):
    now = {"s": 0.0}
    monkeypatch.setattr(budget.time, "perf_counter", lambda: now["s"])
    times = budget.Times()

    def inner():
        now["s"] += 2.0

    def outer():
        now["s"] += 1.0
        timed_inner()
        now["s"] += 4.0

    timed_inner = times.timed("inner", inner)
    times.timed("outer", outer)()
    assert times.seconds == {"inner": 2.0, "outer": 5.0}


def test_a_function_that_raises_is_charged_too(monkeypatch):
    now = {"s": 0.0}
    monkeypatch.setattr(budget.time, "perf_counter", lambda: now["s"])
    times = budget.Times()

    def fails():
        now["s"] += 1.0
        raise ValueError("as it happens")

    with pytest.raises(ValueError, match="as it happens"):
        times.timed("fails", fails)()
    assert times.seconds == {"fails": 1.0}


def test_every_place_of_the_budget_is_there_and_is_put_back():
    before = [getattr(*budget._owner(place)) for _, place in budget.PLACES]
    with budget.instrumented():
        within = [getattr(*budget._owner(place)) for _, place in budget.PLACES]
    assert all(callable(function) for function in before)
    assert all(new is not old for new, old in zip(within, before, strict=True))
    assert [getattr(*budget._owner(place)) for _, place in budget.PLACES] == before


class StillBus:
    """What a reader needs: blocks that are all there."""

    def __init__(self, ids):
        self._blocks = [
            Block(ground.DECISIONS, n, 1, msgspec.json.encode({"event_id": name}), 0) for n, name in enumerate(ids)
        ]

    def listen(self, name, streams):
        return contextlib.closing(self)

    def bounds(self, stream):
        return 0, 0

    def close(self):
        pass

    def read(self, stream, position, **limits):
        return self._blocks[position:]


def test_latency_is_from_due_to_read_and_of_the_window_only(monkeypatch):
    now = iter([0, 0, 10_000, 2_000_000])
    monkeypatch.setattr("mendstream.bench.latency.monotonic_us", lambda: next(now))
    reader = Reader(StillBus(["1000.0", "4000.1", "7000.2", "9999.3", "10000.4"]))
    reader.read_for(1.0)
    found = reader.latency(4_000, 10_000, cpu_s=0.3)
    assert found.events == 3
    assert (found.p50_ms, found.worst_ms) == (3.0, 6.0)
    assert found.cpu_us == pytest.approx(100_000)


def test_no_decision_in_the_window_is_no_number(monkeypatch):
    now = iter([0, 0, 10_000, 2_000_000])
    monkeypatch.setattr("mendstream.bench.latency.monotonic_us", lambda: next(now))
    reader = Reader(StillBus(["1000.0"]))
    reader.read_for(1.0)
    assert reader.latency(4_000, 10_000, None).p50_ms is None


def test_the_hand_written_client_is_where_the_bench_looks_for_it_and_as_short_as_is_said():
    worker = Path(__file__).parents[3] / kafka.PEER
    assert len(worker.read_text().splitlines()) <= 82


def test_every_fault_that_mttr_heals_is_one_that_must_cause_an_incident():
    types = {row.name: row.incident_type for row in FAULTS}
    assert all(types[fault] is not None for fault in WANTED)


def test_seven_free_ports_in_a_row_are_found():
    assert start._free_ports() >= 18_001


def test_the_verbs_are_those_of_the_help():
    found = verbs()
    assert found[0] == "demo"
    assert {"run", "bench", "dead-letters", "version"} <= set(found)


@pytest.fixture
def short_stock(monkeypatch):
    lines = [sources.Line(value, n) for n, value in enumerate(sources.bench_lines(4_250))]
    monkeypatch.setattr(sources, "stock", lambda: lines)


@pytest.mark.slow
def test_the_loop_decides_the_same_events_in_the_same_way_as_the_fused_pipeline(short_stock):
    with stages.fused() as line:
        loop = stages.Loop(line.agents, line.config)
        loop.batches(line.cuts)
        before = len(line.cuts)
        cuts, spent = line.turns(1_000)
        assert line.decided == sum(line.cuts)
        loop.batches(cuts[:1])
        position = sum(line.cuts[:before])
        (block,) = line.parts.bus.read(ground.DECISIONS, position, max_rows=cuts[0], max_bytes=1 << 24)
        (_, _, decided, rows) = loop.outputs[-1].blocks[0]
    assert rows == block.rows == cuts[0]
    assert _without_time(decided) == _without_time(bytes(block.value))
    assert spent.wall > 0


def _without_time(lines):
    return [{**msgspec.json.decode(line), "at_us": 0} for line in lines.splitlines()]
