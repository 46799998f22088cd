"""A failing plan becomes the smallest that still fails in the same way."""

from hypothesis import given
from hypothesis import strategies as st

from mendstream.chaos.plan import Injection, Plan
from mendstream.simulation.shrink import shrink

NOISE = [Injection(fault="poison", at_ms=n) for n in range(7)]
CAUSE = [Injection(fault="dead-agent", at_ms=20), Injection(fault="drift", at_ms=30, for_ms=800)]


def breaks_with_both(plan):
    names = {injection.fault for injection in plan.injections}
    return ["each event once"] if {"dead-agent", "drift"} <= names else []


@given(st.permutations(NOISE + CAUSE))
def test_only_the_faults_that_matter_are_left(faults):
    smaller = shrink(Plan(seed=1, injections=tuple(faults)), "each event once", run=breaks_with_both)
    assert sorted(injection.fault for injection in smaller.injections) == ["dead-agent", "drift"]


def test_a_fault_lasts_no_longer_than_it_takes():
    smaller = shrink(Plan(seed=1, injections=tuple(CAUSE)), "each event once", run=breaks_with_both)
    assert [injection.for_ms for injection in smaller.injections] == [None, 100]


def test_settings_that_do_not_matter_are_left_out():
    plan = Plan(seed=1, settings={"run.fuse": True, "run.partitions": 2}, habits={"score_us": 1})
    smaller = shrink(plan, "x", run=lambda plan: ["x"] if plan.settings.get("run.fuse") else [])
    assert (smaller.settings, smaller.habits) == ({"run.fuse": True}, {})


def test_a_plan_that_fails_in_another_way_is_no_smaller_form_of_this_one():
    def run(plan):
        return ["each event once"] if len(plan.injections) == 2 else ["another"]

    plan = Plan(seed=1, injections=tuple(CAUSE))
    assert shrink(plan, "each event once", run=run).injections[0].fault == "dead-agent"
