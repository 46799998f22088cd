"""The independent reader and the reckoning of `bench peers`: whatever is wrong is counted."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from confluent_kafka import OFFSET_BEGINNING, KafkaError
from tests.support.columns import columns_of

from mendstream.bench import tally as tallying
from mendstream.bench.tally import Read, Reader, Tally, reading, reckoned, tally
from mendstream.contracts.errors import CouldNot
from mendstream.demo import pipeline
from mendstream.demo.source import bench_lines

RATES = json.loads((Path(pipeline.__file__).parent / "data" / "rates.json").read_bytes())


def reads(*found):
    return [Read(0, offset, event_id, score) for offset, (event_id, score) in enumerate(found)]


def test_each_event_decided_once_with_the_reckoned_score_is_exact():
    counted = tally({"a": 0.25, "b": 0.5}, reads(("b", 0.5), ("a", 0.25 + 1e-6)))
    assert counted == Tally(missing=0, doubled=0, foreign=0, different=0)
    assert counted.exact


@pytest.mark.parametrize(
    ("found", "wrong"),
    [
        ([("a", 0.25)], {"missing": 1}),
        ([("a", 0.25), ("b", 0.5), ("b", 0.5), ("b", 0.5)], {"doubled": 2}),
        ([("a", 0.25), ("b", 0.5), ("c", 0.5)], {"foreign": 1}),
        ([("a", 0.25), ("b", 0.6)], {"different": 1}),
        ([("b", 0.6), ("b", 0.6)], {"missing": 1, "doubled": 1}),
        ([], {"missing": 2}),
    ],
    ids=["missing", "doubled", "foreign", "different", "two-of-them", "nothing"],
)
def test_whatever_is_wrong_is_counted_by_its_kind(found, wrong):
    counted = tally({"a": 0.25, "b": 0.5}, reads(*found))
    assert {name: count for name, count in counted._asdict().items() if count} == wrong
    assert not counted.exact


# --- the reckoning


def rows_of(lines):
    """The rows that the model is asked for."""
    asked = []

    def score(rows):
        asked.extend(rows.tolist())
        return [0.0] * len(rows)

    reckoned(lines, RATES, score)
    return asked


def flight(n, tail="N1", delay=0.0, **more):
    known = {"id": f"f{n}", "tailnum": tail, "carrier": "UA", "origin": "EWR", "dest": "IAH", "hour": 6, "minute": 30,
             "distance": 1400, "dep_delay": delay, "seats": 149, "plane_year": 1999}  # fmt: skip
    return json.dumps({**known, **more}).encode()


def smoothed(delay, usual):
    return pytest.approx(0.9 * delay + 0.1 * usual, abs=1e-4)


def test_a_planes_usual_delay_is_the_mean_of_its_last_four_without_this_one():
    delays = [10, 20, 30, 40, 50, 60]
    found = [row[-1] for row in rows_of([flight(n, delay=delay) for n, delay in enumerate(delays)])]
    before = [RATES["usual_delay"], 10, 15, 20, 25, 35]
    assert found == [smoothed(delay, usual) for delay, usual in zip(delays, before, strict=True)]


def test_planes_do_not_share_their_delays():
    lines = [flight(0, "N1", 100), flight(1, "N2", 0), flight(2, "N1", 0)]
    assert [row[-1] for row in rows_of(lines)][1:] == [smoothed(0, RATES["usual_delay"]), smoothed(0, 100)]


def test_what_is_not_known_of_a_plane_is_nan_and_of_a_carrier_the_overall_share():
    (row,) = rows_of([flight(0, carrier="ZZ", seats=None, plane_year=None)])
    assert math.isnan(row[2])
    assert math.isnan(row[3])
    assert row[4] == pytest.approx(RATES["late_share"])


def test_the_reckoning_and_the_pipeline_of_the_demo_are_the_same_job():
    lines = bench_lines(300)
    never_seen = np.full(len(lines), np.nan)
    theirs = pipeline.flights.compute_features(columns_of(lines), {"tail_delay4": never_seen})
    ours = np.array([rows_of([line])[0] for line in lines], dtype=np.float32)  # each on its own: no delay is known
    np.testing.assert_allclose(ours, np.column_stack(list(theirs.values())), rtol=1e-5)


# --- the reader


def message(partition, offset, value=b"", code=None):
    error = None if code is None else SimpleNamespace(code=lambda: code)
    return SimpleNamespace(
        error=lambda: error, partition=lambda: partition, offset=lambda: offset, value=lambda: value
    )  # fmt: skip


def decision(partition, offset, event_id):
    return message(partition, offset, json.dumps({"event_id": event_id, "score": 0.5, "outcome": "late"}).encode())


def end(partition):
    return message(partition, -1, code=KafkaError._PARTITION_EOF)


class Still:
    """A consumer whose polls are written down beforehand."""

    def __init__(self, *polls, partitions=1):
        self._polls = list(polls)
        self._partitions = range(partitions)
        self.assigned = []
        self.closed = False

    def list_topics(self, topic, timeout):
        return SimpleNamespace(topics={topic: SimpleNamespace(partitions=dict.fromkeys(self._partitions))})

    def assign(self, places):
        self.assigned.append([(place.partition, place.offset) for place in places])

    def consume(self, most, seconds):
        return self._polls.pop(0) if self._polls else []

    def position(self, places):
        return [SimpleNamespace(offset=7 if place.partition == 0 else -1001) for place in places]

    def get_watermark_offsets(self, place, timeout):
        return 0, 10 + place.partition

    def close(self):
        self.closed = True


def test_the_reader_begins_at_the_first_record_of_each_partition_and_keeps_where_each_stands():
    consumer = Still([decision(1, 4, "a"), end(1)], [decision(0, 0, "b")], partitions=2)
    reader = Reader(consumer, "out")
    assert [reader.more(), reader.more(), reader.more()] == [1, 2, 2]
    assert consumer.assigned == [[(0, OFFSET_BEGINNING), (1, OFFSET_BEGINNING)]]
    assert reader.found == [Read(1, 4, "a", 0.5), Read(0, 0, "b", 0.5)]
    assert reader.ends() == [10, 11]


def test_to_the_end_means_the_end_of_every_partition_and_not_one_that_was_seen_before():
    consumer = Still([end(0), end(1)], [end(1)], [decision(0, 7, "late")], [end(0)], partitions=2)
    reader = Reader(consumer, "out")
    reader.more()
    reader.to_the_end(60.0)
    assert [read.event_id for read in reader.found] == ["late"]
    assert consumer.assigned[-1] == [(0, 7), (1, OFFSET_BEGINNING)]


def test_an_end_that_does_not_come_is_told():
    with pytest.raises(CouldNot, match="the end of out was not reached"):
        Reader(Still(), "out").to_the_end(0.0)


def test_a_record_that_is_no_decision_is_shown():
    with pytest.raises(CouldNot, match="what is this"):
        Reader(Still([message(0, 0, b"what is this")]), "out").more()


def test_an_error_of_the_broker_ends_the_reading():
    with pytest.raises(CouldNot, match="cannot read out"):
        Reader(Still([message(0, 0, code=KafkaError._ALL_BROKERS_DOWN)]), "out").more()


def test_only_committed_records_are_read_and_nothing_is_committed(monkeypatch):
    told = {}
    consumer = Still()

    def make(settings):
        told.update(settings)
        return consumer

    monkeypatch.setattr(tallying, "Consumer", make)
    with reading("one:9092", "out") as reader:
        assert reader.ends() == [10]
    assert (told["isolation.level"], told["enable.auto.commit"]) == ("read_committed", False)
    assert consumer.closed
