"""The table of moves: every phase can be reached, and from every phase there is an end."""

from __future__ import annotations

import itertools

import pytest

from mendstream.contracts.errors import IllegalMove
from mendstream.contracts.incident import MOVES, STATUS_OF, Phase, move
from mendstream.contracts.records import Status

ENDS = {Phase.RESOLVED, Phase.FAILED}


def reachable(start: Phase) -> set[Phase]:
    found, waiting = {start}, [start]
    while waiting:
        for phase in MOVES[waiting.pop()] - found:
            found.add(phase)
            waiting.append(phase)
    return found


def test_every_phase_has_its_moves_and_its_status():
    assert set(MOVES) == set(STATUS_OF) == set(Phase)


@pytest.mark.parametrize("phase", Phase)
def test_every_phase_can_be_reached_and_reaches_an_end(phase):
    assert phase in reachable(Phase.DETECTED)
    assert reachable(phase) & ENDS


@pytest.mark.parametrize("phase", sorted(set(Phase) - ENDS))
def test_every_open_phase_can_end_in_failure(phase):
    assert Phase.FAILED in reachable(phase)


@pytest.mark.parametrize("phase", sorted(ENDS))
def test_an_end_is_an_end(phase):
    assert MOVES[phase] == frozenset()
    assert STATUS_OF[phase] in {Status.RESOLVED, Status.FAILED}


def test_nothing_is_resolved_right_after_an_act_without_being_verified():
    for phase in (Phase.APPROVED, Phase.EXECUTING):
        assert Phase.RESOLVED not in MOVES[phase]


def test_what_is_approved_is_put_out_and_nothing_else():
    """Both happen in one turn: nobody can come between with a closing, a failure or a change of mind."""
    assert MOVES[Phase.APPROVED] == {Phase.EXECUTING}


def test_what_is_escalated_comes_to_its_end_and_is_never_planned_again():
    assert MOVES[Phase.ESCALATED] == ENDS


@pytest.mark.parametrize(("now", "to"), list(itertools.product(Phase, Phase)))
def test_a_move_is_made_if_it_is_listed_and_is_a_bug_if_not(now, to):
    if to in MOVES[now]:
        assert move(now, to) is to
    else:
        with pytest.raises(IllegalMove, match=f"{now} -> {to}"):
            move(now, to)
