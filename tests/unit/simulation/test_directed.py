"""Plans for the moments that dice rarely hit: each leads where it says, and no promise is broken there."""

import pytest

from mendstream.contracts.incident import MOVES
from mendstream.simulation import directed
from mendstream.simulation.campaign import be_quiet
from mendstream.simulation.schedule import Run

LEADS_TO = {
    directed.closed_early: (
        "move LOGGED -> FAILED", "move PLANNED -> FAILED", "move UNDOING -> FAILED", "move EXECUTING -> FAILED",
        "move VERIFYING -> FAILED",
    ),
    directed.closed_while_asked: ("move ASKED -> FAILED",),
    directed.well_by_itself: ("move LOGGED -> RESOLVED", "move PLANNED -> RESOLVED", "move ASKED -> RESOLVED"),
    directed.well_without_help: ("move ESCALATED -> RESOLVED",),
    directed.said_no: ("move ASKED -> LOGGED",),
    directed.late_policy: ("verdict EXPIRED",),
    directed.half_granted: ("verdict MODIFIED", "move PLANNED -> UNDOING"),
    directed.half_answered: ("verdict MODIFIED", "move ASKED -> UNDOING"),
    directed.half_paid: ("move UNDOING -> ESCALATED",),
    directed.promotion: ("move VERIFYING -> PLANNED",),
}  # fmt: skip


@pytest.fixture(autouse=True)
def quiet():
    be_quiet()


@pytest.mark.parametrize(("draw", "wanted"), LEADS_TO.items(), ids=lambda one: getattr(one, "__name__", ""))
def test_a_plan_leads_to_the_moment_that_it_is_for(draw, wanted):
    outcome = Run(directed.plan_of(draw, 1))()
    assert [str(broken) for broken in outcome.violations] == []
    assert [name for name in wanted if not outcome.counted.get(name)] == []


def test_moves_that_are_waited_for_are_legal_ones():
    legal = {f"move {now} -> {to}" for now, targets in MOVES.items() for to in targets}
    assert {name for wanted in LEADS_TO.values() for name in wanted if name.startswith("move")} <= legal


def test_a_hung_control_process_is_ended_in_a_simulated_house():
    run = Run(directed.plan_of(directed.hung_control, 1))
    target = run.plan.injections[0].params["target"]
    assert not run().violations
    assert any(life.process == target and life.what == "ended" and life.ordered for life in run.machine.life)
