"""Each invariant of events, counts, state and store fails when its bug is planted, and holds when none is."""

from __future__ import annotations

import pytest

from mendstream.chaos.plan import Injection, Plan
from mendstream.contracts.agent import TaskId
from mendstream.contracts.topics import Stream, Topic
from mendstream.simulation.bugs.events import BUGS
from mendstream.simulation.invariants.counting import CountedOnce, LabelsJoined
from mendstream.simulation.invariants.decisions import AsTheModelSays, SameDecision
from mendstream.simulation.invariants.events import DeadLetters, Decided, NoBug, OffsetsGrow, Order, Whole
from mendstream.simulation.invariants.state import StateIsTheLog
from mendstream.simulation.invariants.store import SqlIsTheLog
from mendstream.simulation.invariants.visible import EndsAreTold
from mendstream.simulation.schedule import Run

OURS = (NoBug, Decided, OffsetsGrow, SameDecision, Whole, Order, DeadLetters, AsTheModelSays, CountedOnce, LabelsJoined,
        EndsAreTold, StateIsTheLog, SqlIsTheLog)  # fmt: skip
SEEDS = range(1, 6)
CUT = Injection(fault="power-cut", at_ms=2_500)


def run_of(*injections: Injection, seed: int = 1, chaos_ms: int = 4_000, **settings: object) -> Run:
    held = {name.replace("__", "."): value for name, value in settings.items()}
    plan = Plan(seed=seed, injections=injections, chaos_ms=chaos_ms, settings=held)
    return Run(plan, OURS)


def broken(run: Run) -> list[str]:
    return [f"{found.invariant}: {found.text}" for found in run().violations]


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name.replace(" ", "-"))
def test_each_planted_bug_is_caught_by_its_invariant(bug):
    with bug.patch():
        caught = any(
            bug.invariant in {found.invariant for found in Run(bug.plan(seed), OURS)().violations} for seed in SEEDS
        )
    assert caught, f"no seed of {SEEDS} caught it"


def test_each_invariant_has_a_bug_that_breaks_it():
    assert {kind.name for kind in OURS} == {bug.invariant for bug in BUGS}


@pytest.mark.parametrize("fuse", [False, True])
def test_a_calm_run_breaks_none(fuse):
    assert broken(run_of(run__fuse=fuse, run__partitions=2)) == []


@pytest.mark.parametrize("regime", ["poison", "duplicates", "no-labels", "late-labels"])
def test_a_strange_stream_breaks_none(regime):
    assert broken(run_of(Injection(fault=regime, for_ms=3_000))) == []


def test_after_a_power_cut_what_was_lost_may_come_again():
    run = run_of(CUT, bus__durability="process")
    assert broken(run) == []
    assert run.machine.log.incarnation == "sim.1"


def test_with_durability_power_a_cut_takes_nothing():
    run = run_of(CUT, bus__durability="power")
    assert broken(run) == []
    assert run.machine.log.incarnation == "sim.0"


def test_a_database_that_is_away_stops_nobody_and_is_caught_up():
    run = run_of(Injection(fault="store-down", for_ms=3_500), Injection(fault="bad-model"), chaos_ms=8_000)
    assert broken(run) == []
    assert set(run.machine.generations.values()) == {1}, "somebody was started again"


def test_a_recorder_that_starts_while_the_database_is_away_waits_for_it():
    run = run_of(
        Injection(fault="store-down", for_ms=9_000), Injection(fault="bad-model"),
        Injection(fault="dead-agent", params={"target": "recorder-0"}, at_ms=500), chaos_ms=12_000,
    )  # fmt: skip
    assert broken(run) == []
    assert run.machine.generations.pop("recorder-0") == 2
    assert set(run.machine.generations.values()) == {1}, "somebody was started again"


def test_a_recorder_that_dies_in_a_transaction_goes_on_where_the_rows_end():
    run = run_of(
        Injection(fault="store-slow", for_ms=6_000), Injection(fault="bad-model"),
        *(Injection(fault="dead-agent", params={"target": "recorder-0"}, at_ms=at) for at in (1_000, 1_700, 2_400)),
        chaos_ms=8_000,
    )  # fmt: skip
    assert broken(run) == []


def test_the_story_of_a_run_counts_every_event_once():
    run = run_of(Injection(fault="duplicates", for_ms=2_000), Injection(fault="poison", for_ms=2_000))
    assert broken(run) == []
    trail = run.story.trail(run.machine)
    read = run.machine.log.task(TaskId("ingestion", 0)).positions[Stream(Topic.SOURCE, 0)]
    assert len(trail.outcomes.accepted) + trail.outcomes.repeats + len(trail.outcomes.letters) == read
    assert trail.outcomes.repeats > 5
    assert len(trail.outcomes.letters) > 5
