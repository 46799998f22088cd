"""A harvest finds each labelled row once, whatever order and partition labels come in."""

from __future__ import annotations

import numpy as np
import pytest
from tests.unit.models.world import NAMES, START_US, Hand, MemoryBus, feedback, population, serve

from mendstream.adapters.models.harvest import Harvest
from mendstream.contracts.errors import ModelError
from mendstream.contracts.ports import Out
from mendstream.contracts.topics import Stream, Topic


@pytest.fixture
def bus() -> MemoryBus:
    return MemoryBus(Hand())


def harvest(bus: MemoryBus, **changed) -> Harvest:
    settings = {"features": NAMES, "since_us": START_US, "rows_min": 50, "rows_max": 1000, **changed}
    return Harvest(bus, 2, **settings)


def test_rows_are_joined_by_id_over_all_partitions_in_order_of_time(bus):
    matrix, labels = population(100, 1)
    serve(bus, matrix[:60], labels[:60], partition=1)
    bus.clock.pass_s(1)
    serve(bus, matrix[60:], labels[60:], first=60, partition=0)
    rows = harvest(bus).rows()
    assert rows is not None
    np.testing.assert_array_equal(rows.matrix, matrix)
    np.testing.assert_array_equal(rows.labels, labels)
    assert (rows.from_us, rows.until_us) == (START_US, START_US + 1_000_000)
    assert rows.window == "100 labelled rows served 2023-11-14 22:13:20 UTC to 2023-11-14 22:13:21 UTC"


def test_only_rows_since_the_asked_time_count(bus):
    matrix, labels = population(200, 1)
    serve(bus, matrix[:100], labels[:100])
    bus.clock.pass_s(10)
    serve(bus, matrix[100:], labels[100:], first=100)
    rows = harvest(bus, since_us=START_US + 1).rows()
    assert rows is not None
    np.testing.assert_array_equal(rows.matrix, matrix[100:])


def test_the_newest_rows_are_taken_when_there_are_more_than_wanted(bus):
    matrix, labels = population(300, 1)
    for part in range(3):
        serve(bus, matrix[part * 100 : part * 100 + 100], labels[part * 100 : part * 100 + 100], first=part * 100)
        bus.clock.pass_s(1)
    rows = harvest(bus, rows_max=120).rows()
    assert rows is not None
    np.testing.assert_array_equal(rows.matrix, matrix[180:])


def test_late_labels_are_waited_for_and_frames_are_not_read_meanwhile(bus):
    matrix, labels = population(100, 1)
    serve(bus, matrix, labels, labelled=0.3)
    waiting = harvest(bus)
    assert waiting.rows() is None
    before = bus.reads
    assert waiting.rows() is None
    assert bus.reads - before == 2  # one look at each feedback partition
    feedback(bus, [(f"e{i}", f"k{i}", labels[i]) for i in range(30, 90)])
    rows = waiting.rows()
    assert rows is not None
    np.testing.assert_array_equal(rows.labels, labels[:90])


def test_labels_of_unknown_events_do_not_count(bus):
    matrix, labels = population(100, 1)
    feedback(bus, [(f"old{i}", "k", 1.0) for i in range(70)])
    serve(bus, matrix, labels, labelled=0.4)
    waiting = harvest(bus)
    assert waiting.rows() is None
    assert waiting.found == 40
    feedback(bus, [(f"e{i}", f"k{i}", labels[i]) for i in range(40, 49)])
    assert waiting.rows() is None
    feedback(bus, [("e49", "k49", labels[49])])
    rows = waiting.rows()
    assert rows is not None
    assert len(rows.labels) == 50


def test_however_many_labels_of_unknown_events_come_first_the_known_ones_are_found(bus):
    matrix, labels = population(100, 1)
    waiting = harvest(bus, rows_max=50)
    for part in range(3):
        feedback(bus, [(f"old{part}-{i}", "k", 1.0) for i in range(200)])
        assert waiting.rows() is None
    assert waiting.labels == 50
    serve(bus, matrix, labels)
    rows = waiting.rows()
    assert rows is not None
    np.testing.assert_array_equal(rows.labels, labels[50:])


def test_a_repeated_label_counts_once_and_the_newest_holds(bus):
    matrix, labels = population(60, 1)
    serve(bus, matrix, labels)
    feedback(bus, [(f"e{i}", f"k{i}", 1.0 - labels[i]) for i in range(60)])
    rows = harvest(bus).rows()
    assert rows is not None
    np.testing.assert_array_equal(rows.labels, 1.0 - labels)


def test_ids_are_unique_per_key_and_a_label_without_a_key_finds_its_event_by_id(bus):
    matrix, labels = population(60, 1)
    serve(bus, matrix, labels, labelled=0.0)
    feedback(bus, [(f"e{i}", "another key", 1.0) for i in range(60)])
    waiting = harvest(bus)
    assert waiting.rows() is None
    feedback(bus, [(f"e{i}", "", labels[i]) for i in range(60)])
    rows = waiting.rows()
    assert rows is not None
    np.testing.assert_array_equal(rows.labels, labels)


def test_unreadable_lines_and_frames_are_counted_and_passed_over(bus):
    matrix, labels = population(60, 1)
    serve(bus, matrix, labels)
    bus.publish([Out(Stream(Topic.FEEDBACK, 0), b"{oops\n\xff", 2), Out(Stream(Topic.FEATURES, 0), b"no frame", 1)])
    found = harvest(bus)
    rows = found.rows()
    assert rows is not None
    assert len(rows.labels) == 60
    assert found.unreadable == 3


def test_frames_without_a_wanted_feature_are_an_error_that_names_it(bus):
    serve(bus, *population(60, 1))
    with pytest.raises(ModelError, match="lack d") as caught:
        harvest(bus, features=("a", "d")).rows()
    assert "a, b, c" in caught.value.hint


def test_held_labels_are_bounded_in_each_partition(bus):
    matrix, labels = population(400, 1)
    serve(bus, matrix[:200], labels[:200], partition=0)
    serve(bus, matrix[200:], labels[200:], first=200, partition=1)
    found = harvest(bus, rows_max=80)
    rows = found.rows()
    assert found.labels == 160
    assert rows is not None
    assert len(rows.labels) == 80
