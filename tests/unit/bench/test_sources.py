"""Sources of the benches: one that never runs dry, and one that stamps when each event was due."""

from __future__ import annotations

import json

import pytest
from tests.support.clock import ManualClock

from mendstream.bench import sources
from mendstream.bench.sources import Paced, Saturated, due_of


@pytest.fixture
def stock(monkeypatch):
    lines = [sources.Line(value, n) for n, value in enumerate(sources.bench_lines(850))]
    monkeypatch.setattr(sources, "stock", lambda: lines)
    return lines


@pytest.fixture
def monotonic(monkeypatch):
    now = {"us": 5_000_000}
    monkeypatch.setattr(sources, "monotonic_us", lambda: now["us"])
    return now


def opened(kind, rate=0.0):
    return kind(seed=0, rate=rate, regime=lambda: "normal", clock=ManualClock())


def test_a_saturated_source_gives_as_many_as_are_asked_for_without_end(stock):
    source = opened(Saturated)
    position, seen = 0, []
    for _ in range(5):
        lines, labels, position = source.poll(position, 400, 1)
        seen += [line.value for line in lines]
        assert not labels
        assert source.due_in_s() == 0.0
    assert position == len(seen)
    assert seen == [stock[n % 850].value for n in range(len(seen))]


def test_the_stock_is_longer_than_what_ingestion_looks_for_repeats_in():
    from mendstream.agents.pipeline.ingestion import Limits

    assert 2 * Limits().dedupe_window < sources.STOCK


def test_a_paced_source_gives_an_event_when_it_is_due_and_not_before(stock, monotonic):
    source = opened(Paced, rate=1000.0)
    first, _, position = source.poll(0, 2000, 1)
    assert len(first) == 1
    assert source.due_in_s() == pytest.approx(0.001)
    monotonic["us"] += 4_500
    lines, _, position = source.poll(position, 2000, 1)
    assert position == 5
    assert [due_of(json.loads(line.value)["id"]) for line in lines] == [5_001_000, 5_002_000, 5_003_000, 5_004_000]


def test_a_paced_source_that_was_not_asked_for_a_while_owes_all_that_was_due(stock, monotonic):
    source = opened(Paced, rate=10_000.0)
    _, _, position = source.poll(0, 2000, 1)
    monotonic["us"] += 1_000_000
    assert source.due_in_s() == 0.0
    lines, _, _ = source.poll(position, 2000, 1)
    assert len(lines) == 2000


def test_every_id_of_a_paced_source_is_its_own_and_the_rest_is_a_real_flight(stock, monotonic):
    source = opened(Paced, rate=1e6)
    source.poll(0, 1, 1)
    monotonic["us"] += 3_000
    lines, _, _ = source.poll(1, 2000, 1)
    events = [json.loads(line.value) for line in lines]
    assert len({event["id"] for event in events}) == len(events)
    assert events[0]["tailnum"] == json.loads(stock[1].value)["tailnum"]
