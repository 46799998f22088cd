"""Whoever takes over a stage has the very state that the owner before had, after every single turn."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.clock import ManualClock
from tests.support.house import STAGES, ListSource, Stages, change, decided, metrics, pump, serve, set_config
from tests.support.log import BothWings
from tests.support.models import FeatureReference, LinearScorer, Shelf
from tests.support.same import difference
from tests.support.trips import trip, trip_lines

from mendstream.agents.pipeline.ingestion import Limits
from mendstream.contracts.ports import Out
from mendstream.contracts.topics import Stream, Topic
from mendstream.runtime.leg import SNAPSHOT_TURNS

REFERENCE = {
    "delay": FeatureReference(edges=(-10.0, 0.0, 20.0), counts=(1, 2, 3, 4, 0)),
    "seats": FeatureReference(edges=(100.5,), counts=(1, 1, 1)),
}
FIRST = LinearScorer("v1", {"delay": 0.1, "seats": 0.001}, reference=REFERENCE)
SECOND = LinearScorer("v2", {"hour": 0.1, "seats": 0.001}, reference={"seats": REFERENCE["seats"]})
SHADOW = LinearScorer("v3", {"delay": 0.2})
LINES = [trip(3) if n % 9 == 0 else b"{" if n % 10 == 0 else trip(n, poison=n % 25 == 0) for n in range(400)]


def check(house: Stages, held: list) -> list:
    """A new owner of each stage has the state of the one before; returns the new ones."""
    fresh = [house.driver(name) for name in STAGES]
    for old, new in zip(held, fresh, strict=True):
        (before,), (after,) = old.legs, new.legs
        assert difference(before.state, after.state, before.agent.name) == ""
        assert before.config == after.config
        assert before.turn == after.turn
        assert before.positions == after.positions
    return fresh


@pytest.mark.parametrize("max_keys", [5, 200_000])
def test_state_is_the_same_after_every_turn_of_every_stage(bus, clock, max_keys):
    house = Stages(
        bus, clock, ListSource(LINES, cuts=[13] * 100), models=Shelf(FIRST, SECOND, SHADOW), max_keys=max_keys,
        limits=Limits(dedupe_window=20),
    )  # fmt: skip
    changes = {
        3: serve(FIRST),
        7: change(1, shadow_version="v3", shadow_digest=SHADOW.card.digest),
        11: change(2, safe_mode=("incident",)),
        14: change(3, safe_mode=()),
        17: serve(SECOND, 4, shadow_version="", shadow_digest=""),
        20: change(5, model_version="v9", model_digest="not at hand"),
        24: serve(FIRST, 6),
    }
    drivers = [house.driver(name) for name in STAGES]
    for turn in range(45):  # the source ends before that: idle turns are among them
        clock.advance(ms=700)
        if turn in changes:
            set_config(bus, changes[turn])
        for driver in drivers:
            driver.pump()
        drivers = check(house, drivers)
    assert {d["model"] for d in decided(bus)} == {"", "v1", "v2"}


def test_state_is_the_same_across_a_snapshot(bus, clock):
    house = Stages(bus, clock, ListSource(trip_lines(2 * SNAPSHOT_TURNS), cuts=[2] * 10_000), models=Shelf(FIRST))
    set_config(bus, serve(FIRST))
    drivers = [house.driver(name) for name in STAGES]
    pump(drivers, clock)
    assert drivers[1].legs[0].turn >= SNAPSHOT_TURNS
    check(house, drivers)


@settings(max_examples=10)
@given(cuts=st.lists(st.integers(1, 40), min_size=1, max_size=12), step_ms=st.integers(1, 4000))
def test_a_fused_owner_leaves_the_same_states_as_it_has(tmp_path_factory, cuts, step_ms):
    clock = ManualClock()
    bus = BothWings(tmp_path_factory.mktemp("log"), clock)
    house = Stages(bus, clock, ListSource(LINES[:80], cuts=cuts), models=Shelf(FIRST), max_keys=6)
    set_config(bus, serve(FIRST))
    (driver,) = house.fused()
    for _ in cuts:
        clock.advance(ms=step_ms)
        driver.pump()
        (fresh,) = house.fused()
        for before, after in zip(driver.legs, fresh.legs, strict=True):
            assert difference(before.state, after.state, before.agent.name) == ""
        driver = fresh
    bus.close()


def test_a_state_that_a_conflict_has_touched_is_read_again(bus, clock):
    house = Stages(bus, clock, ListSource(LINES[:40], cuts=[20, 20, 20]), models=Shelf(FIRST))
    (driver,) = house.fused()
    driver.pump()
    (stranger,) = bus.read(Stream(Topic.RAW_EVENTS, 0), 0, max_rows=1000, max_bytes=1 << 30)
    bus.publish([Out(Stream(Topic.RAW_EVENTS, 0), bytes(stranger.value), stranger.rows)])
    driver.pump()  # runs into it
    (fresh,) = house.fused()
    for before, after in zip(driver.legs, fresh.legs, strict=True):
        assert difference(before.state, after.state, before.agent.name) == ""


def test_totals_that_are_sent_again_after_a_restart_are_the_same(bus, clock):
    """Also of a model that no longer serves: its bins are still named by feature."""
    house = Stages(bus, clock, ListSource(trip_lines(30), cuts=[15, 15]), models=Shelf(FIRST, SECOND))
    set_config(bus, serve(FIRST))
    (driver,) = house.fused()
    driver.pump()
    clock.advance(ms=150)
    set_config(bus, serve(SECOND, 1))
    driver.pump()
    clock.advance(ms=150)
    driver.pump()
    sent = {(c.task, c.pane, c.model, c.config, c.arm): c for c in metrics(bus)}
    position = bus.bounds(Stream(Topic.AGENT_METRICS, 0))[1]
    (again,) = house.fused()
    again.pump()
    repeated = {(c.task, c.pane, c.model, c.config, c.arm): c for c in metrics(bus, position)}
    assert repeated == sent
    by_model = {c.model: set(c.hists) for c in repeated.values() if c.task == "model/0"}
    assert by_model == {
        "v1": {"model_ms", "feature:delay", "feature:seats"},
        "v2": {"model_ms", "feature:seats"},
    }
