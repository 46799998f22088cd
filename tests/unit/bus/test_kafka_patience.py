"""Calls that may never return."""

import threading

import pytest

from mendstream.adapters.bus.kafka.patience import Patience


@pytest.fixture
def patience():
    found = Patience()
    yield found
    found.close()


def refused():
    raise ValueError("no")


def test_a_call_is_done_beside_and_its_error_is_the_callers(patience):
    done = []
    patience.within(20, lambda: done.append(threading.current_thread()))
    assert done != [threading.current_thread()]
    with pytest.raises(ValueError, match="no"):
        patience.within(20, refused)


def test_a_call_that_never_returns_is_left_behind_and_the_next_one_is_served(patience):
    for_ever, done = threading.Event(), []
    with pytest.raises(TimeoutError):
        patience.within(0.01, for_ever.wait)
    patience.within(20, lambda: done.append(True))
    assert done == [True]
    for_ever.set()
