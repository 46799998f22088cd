"""The careless sender: what comes at a position depends on nothing else, and ingestion has something to do."""

import json
import re

import pytest
from tests.support.clock import ManualClock

from mendstream.simulation.stream import CUT_EVERY, REPEAT_EVERY, CarelessFlights

N = 2000


def read(cuts, position=0, last=N):
    """(event lines, label lines) from `position` to `last`, polled in pieces of `cuts` lines."""
    source = CarelessFlights(7, 0.0, lambda: "normal", ManualClock())
    events, labels = [], []
    while position < last:
        more, known, following = source.poll(position, cuts, 1 << 20)
        assert len(more) <= max(cuts, 2)
        events += [line for line in more if line.position < last]
        labels += known
        position = following
    return events, labels


def number(line):
    return int(re.search(rb'"id":"f(\d+)"', line.value)[1])


@pytest.mark.parametrize("cuts", [1, 13, 500])
def test_the_same_comes_however_it_is_polled(cuts):
    assert read(cuts)[0] == read(64)[0]


def test_a_restarted_process_reads_what_the_one_before_would_have_read():
    events, _ = read(64)
    assert read(64, position=1234)[0] == [line for line in events if line.position >= 1234]


def test_every_event_comes_and_some_come_twice_as_they_came_first():
    events, _ = read(64)
    first = {}
    again = [line for line in events if first.setdefault(number(line), line) is not line]
    assert sorted(first) == list(range(N))
    assert len(again) > N // REPEAT_EVERY * 0.8  # the first 900 have no earlier one to bring again
    assert all(line.value == first[number(line)].value for line in again)
    assert {line.position - first[number(line)].position for line in again} == {1, 40, 900}


def test_cut_events_are_no_json_tell_their_number_and_come_once():
    events, _ = read(64)
    cut = [line for line in events if not whole(line)]
    assert [number(line) for line in cut] == list(range(CUT_EVERY - 1, N, CUT_EVERY))


def whole(line):
    try:
        json.loads(line.value)
    except ValueError:
        return False
    return True


def test_labels_come_once_each():
    _, labels = read(64)
    assert len(labels) > N // 2
    assert len({line.value for line in labels}) == len(labels)
