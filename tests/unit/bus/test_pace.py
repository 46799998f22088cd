"""A producer that met the marks of its last transaction leaves the broker a little more time after the next ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mendstream.adapters.bus.kafka.pace import Pace

QUICK, MET = 0.005, 0.025


def turns(pace, took, *, apart=0.0, at=100.0):
    """The pauses after transactions that take so long, each begun `apart` seconds after the pause before."""
    pauses = []
    for seconds in took:
        pace.begin(at)
        at += seconds
        pauses.append(pace.end(at))
        at += pauses[-1] + apart
    return pauses


def test_turns_that_never_meet_the_marks_are_not_held_back():
    assert turns(Pace(), [QUICK] * 50) == [0.0] * 50


def test_the_pause_grows_with_each_meeting_and_never_beyond_three_milliseconds():
    assert turns(Pace(), [MET] * 5) == pytest.approx([0.001, 0.002, 0.003, 0.003, 0.003])


def test_the_pause_fades_while_nothing_is_met():
    *_, first, last = turns(Pace(), [MET] * 3 + [QUICK] * 2000)
    assert last < first < 0.001


def test_turns_that_are_far_apart_anyway_get_no_pause():
    assert turns(Pace(), [MET] * 5, apart=0.01)[1:] == [0.0] * 4
    assert turns(Pace(), [MET] * 5, apart=0.002)[-1] == pytest.approx(0.001)


@given(st.lists(st.floats(0.0, 1.0), max_size=60), st.floats(0.0, 0.1))
def test_no_pause_is_negative_or_longer_than_the_most(took, apart):
    assert all(0.0 <= pause <= 0.003 for pause in turns(Pace(), took, apart=apart))
