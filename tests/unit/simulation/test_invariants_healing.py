"""Invariants of healing, governance, config and watching: each can fail, and none does without a reason."""

from __future__ import annotations

import pytest

from mendstream.chaos.plan import Injection, Plan
from mendstream.simulation.bugs.healing import BUGS
from mendstream.simulation.invariants import INVARIANTS, config, gates, governance, healing, watching
from mendstream.simulation.invariants.base import Invariant
from mendstream.simulation.schedule import Run

FILES = (config, gates, governance, healing, watching)
OURS = tuple(kind for kind in INVARIANTS if kind.__module__ in {file.__name__ for file in FILES})
BY_NAME = {kind.name: kind for kind in OURS}
SEEDS = 5
"""Each bug is found sooner."""


def found(bug) -> list[str]:
    """What the bug's own invariant says, from the first seed in which it says anything."""
    invariants: tuple[type[Invariant], ...] = (BY_NAME[bug.invariant],) if bug.invariant in BY_NAME else ()
    with bug.patch():
        for seed in range(SEEDS):
            violations = Run(bug.plan(seed), invariants=invariants)().violations
            texts = [broken.text for broken in violations if broken.invariant == bug.invariant]
            if texts:
                return texts
    return []


@pytest.mark.slow
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_found(bug):
    assert found(bug)


def test_each_invariant_has_a_bug_that_it_has_to_find():
    assert set(BY_NAME) <= {bug.invariant for bug in BUGS}


def test_each_invariant_says_what_a_user_would_lose():
    assert all("else" in (kind.__doc__ or "") for kind in OURS)


def test_bugs_are_gone_when_their_patch_is_left():
    plan = Plan(seed=1, injections=(Injection(fault="dead-agent", params={"target": "model-0"}),), chaos_ms=2_000)
    before = Run(plan)()
    for bug in BUGS:
        with bug.patch():
            pass
    after = Run(plan)()
    assert not after.violations
    assert after.digest == before.digest


@pytest.mark.parametrize("seed", [1, 2])
def test_a_calm_house_breaks_nothing_and_does_nothing(seed):
    run = Run(Plan(seed=seed, chaos_ms=6_000, settings={"run.fuse": seed == 2}))
    assert not run().violations
    assert not run.story.alarms
    assert not run.story.commands
    assert run.story.config.version == 1


def test_a_house_that_was_hurt_and_healed_breaks_nothing():
    run = Run(Plan(seed=3, injections=(Injection(fault="dead-agent", params={"target": "model-0"}),), chaos_ms=4_000))
    assert not run().violations
    assert [case.last.incident.outcome for case in run.story.cases.values()] == ["mitigated"]
