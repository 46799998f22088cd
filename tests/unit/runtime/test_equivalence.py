"""However the stages are run and the input is cut, the decisions are the same: record by record, but for their time."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.clock import ManualClock
from tests.support.house import STAGES, ListSource, Stages, dead, decided, pump, serve, set_config
from tests.support.log import BothWings
from tests.support.models import LinearScorer, Shelf
from tests.support.same import difference
from tests.support.trips import trip

from mendstream.agents.pipeline.ingestion import Limits
from mendstream.contracts.ids import partitions_of
from mendstream.contracts.topics import Stream, Topic
from mendstream.runtime.driver import Driver

MODEL = LinearScorer("v1", {"delay": 0.05, "usual": 0.03, "seats": 0.001, "places": -0.001, "hour": 0.01})
N = 120
BAD = {17: b"{", 40: trip(40, delay=9999), 41: b"x" * 200_000, 90: b"\xff"}
LINES = [BAD.get(n, trip(n, poison=n in (33, 77))) for n in range(N)]
LINES[60] = LINES[5]  # a repeat
LINES[100] = LINES[99]
DECIDED = [n for n in range(N) if n not in {*BAD, 33, 77, 60, 100}]
LIMITS = Limits(max_record_bytes=100_000)


def run(cuts: list[int], *, fused: bool, max_rows: int = 2000, partitions: int = 1, restarts: int = 0):
    """All decisions, partition by partition, and the dead letters as (topic, reason, detail)."""
    clock = ManualClock()
    with tempfile.TemporaryDirectory() as folder:
        bus = BothWings(Path(folder), clock)
        set_config(bus, serve(MODEL, decision_threshold=0.6))
        source = ListSource(LINES, cuts=itertools.cycle(cuts))
        house = Stages(
            bus, clock, source, models=Shelf(MODEL), max_rows=max_rows, partitions=partitions, limits=LIMITS
        )  # fmt: skip
        make = house.fused if fused else house.apart
        drivers = make()
        for turn in itertools.count(1):
            clock.advance(ms=1)
            if not sum(driver.pump() for driver in drivers):  # each of them
                break
            if turn <= restarts:
                drivers = make()
        found = [decided(bus, p) for p in range(partitions)]
        letters = sorted((letter.topic, letter.reason.value) for letter in dead(bus))
        bus.close()
    return found, letters


@pytest.fixture(scope="module")
def plain():
    """All at once, fused."""
    return run([N], fused=True)


def test_every_good_event_is_decided_once_and_every_bad_one_is_a_dead_letter(plain):
    (decisions,), letters = plain
    assert [d["event_id"] for d in decisions] == [f"t{n}" for n in DECIDED]
    assert {(d["model"], d["mode"], d["config"]) for d in decisions} == {("v1", "NORMAL", 1)}
    assert {d["outcome"] for d in decisions} == {"late", "on-time"}
    assert letters == [
        ("raw-events", "STEP_FAILED"),
        ("raw-events", "STEP_FAILED"),
        ("source", "INVALID"),
        ("source", "MALFORMED"),
        ("source", "MALFORMED"),
        ("source", "TOO_LARGE"),
    ]


@settings(max_examples=12)
@given(cuts=st.lists(st.integers(1, 60), min_size=1, max_size=8), max_rows=st.integers(2, 60))
def test_a_process_per_stage_decides_as_a_fused_one_does_however_input_is_cut(plain, cuts, max_rows):
    assert difference(run(cuts, fused=False, max_rows=max_rows), plain) == ""


@settings(max_examples=8)
@given(cuts=st.lists(st.integers(1, 60), min_size=1, max_size=8))
def test_a_fused_process_decides_the_same_however_input_is_cut(plain, cuts):
    assert difference(run(cuts, fused=True), plain) == ""


@pytest.mark.parametrize("fused", [True, False])
def test_new_owners_at_every_moment_change_nothing(plain, fused):
    assert difference(run([7, 1, 13], fused=fused, restarts=50), plain) == ""


def test_three_partitions_decide_the_same_each_key_in_order(plain):
    (one,), letters = plain
    apart, apart_letters = run([11, 3], fused=False, partitions=3)
    assert apart_letters == letters
    assert all(len(part) > 10 for part in apart)
    for part, decisions in enumerate(apart):
        mine = [d for d in one if home(d["key"]) == part]
        assert difference(decisions, mine) == ""


def home(key: str) -> int:
    import pyarrow as pa

    return int(partitions_of(pa.array([key]), 3)[0])


# --- from one to the other in mid-stream -----------------------------------------------------------------------------


def switching(plan: list[tuple[str, int]], cuts: list[int], max_rows: int) -> tuple[list[dict], list[str]]:
    """Owners as `plan` says, each for so many turns; stages apart are run unevenly, so backlog lies between them."""
    clock = ManualClock()
    with tempfile.TemporaryDirectory() as folder:
        bus = BothWings(Path(folder), clock)
        set_config(bus, serve(MODEL, decision_threshold=0.6))
        house = Stages(
            bus, clock, ListSource(LINES, cuts=itertools.cycle(cuts)), models=Shelf(MODEL), limits=LIMITS,
            max_rows=max_rows,
        )  # fmt: skip
        for how, turns in plan:
            drivers = house.fused() if how == "fused" else house.apart()
            for turn in range(turns):
                clock.advance(ms=1)
                uneven(drivers, turn)
        pump(house.fused(), clock)
        for name, topic in zip(STAGES[1:], (Topic.RAW_EVENTS, Topic.FEATURES, Topic.PREDICTIONS), strict=True):
            (leg,) = house.driver(name).legs
            assert leg.backlog() == 0
            assert leg.positions[Stream(topic, 0)] == bus.bounds(Stream(topic, 0))[1]
        found = decided(bus)
        letters = [letter.reason.value for letter in dead(bus)]
        bus.close()
    return found, letters


def uneven(drivers: list[Driver], turn: int) -> None:
    """The first stage every time, the second in two turns of three, and so on."""
    for place, driver in enumerate(drivers):
        if place == 0 or turn % (place + 1):
            driver.pump()


@settings(max_examples=15)
@given(
    plan=st.lists(st.tuples(st.sampled_from(["fused", "apart"]), st.integers(1, 8)), min_size=1, max_size=6),
    cuts=st.lists(st.integers(1, 20), min_size=1, max_size=4),
    max_rows=st.integers(2, 40),
)
def test_changing_between_fused_and_apart_with_backlog_loses_and_repeats_nothing(plain, plan, cuts, max_rows):
    decisions, letters = switching(plan, cuts, max_rows)
    assert [d["event_id"] for d in decisions] == [f"t{n}" for n in DECIDED]
    assert difference(decisions, plain[0][0]) == ""
    assert sorted(letters) == sorted(reason for _, reason in plain[1])
