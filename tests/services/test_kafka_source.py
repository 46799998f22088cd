"""Events out of a Kafka topic: what of a record comes through, where reading begins, and every record decided once."""

from __future__ import annotations

import itertools
import json
import os
import threading
import time
from collections import Counter

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from tests.processes.house import Running, wait_for
from tests.support.services import service
from tools.services.kafka import QUICK

from mendstream.adapters.sources.kafka import FEEDBACK_FROM, KafkaSource, open_kafka
from mendstream.contracts.errors import CouldNot, SettingsError
from mendstream.contracts.ports import Parted
from mendstream.contracts.topics import Stream, Topic
from mendstream.demo.source import bench_lines

pytestmark = [pytest.mark.services, pytest.mark.timeout(240)]

MANY = 1 << 30
_numbers = itertools.count()


class Cluster:
    """Topics of the test's own, written by a producer that is not ours."""

    def __init__(self, broker):
        self.address = broker.address
        self.admin = AdminClient({"bootstrap.servers": broker.address})
        self.producer = Producer({"bootstrap.servers": broker.address})
        self._open: list[KafkaSource] = []

    def topic(self, partitions=1):
        name = f"source-{os.getpid()}-{next(_numbers)}"
        self.admin.create_topics([NewTopic(name, partitions, 1)])[name].result(20)
        return name

    def write(self, topic, *values, partition=0, **more):
        for value in values:
            self.producer.produce(topic, value, partition=partition, **more)
        assert self.producer.flush(20) == 0

    def source(self, topic, feedback=""):
        names = f"{topic},{feedback}" if feedback else topic
        made = open_kafka(f"//{self.address}/{names}", "", {}, {})
        self._open.append(made)
        return made

    def close(self):
        for source in self._open:
            source.close()


@pytest.fixture
def cluster(kafka):
    made = Cluster(kafka)
    yield made
    made.close()


def take(part, position, count, most=MANY):
    """(event lines, feedback lines, the next position), once so many lines are there."""
    found = ([], [], position)
    limit = time.monotonic() + 20

    def polled():
        nonlocal found
        found = part.poll(position, most, MANY)
        return len(found[0]) + len(found[1]) >= count or time.monotonic() > limit

    wait_for(polled, 30, why=f"{count} lines from {position}")
    return found


def values(found):
    return [line.value for line in found[0]]


def test_value_key_time_and_offset_of_a_record_come_through(cluster):
    topic = cluster.topic()
    cluster.write(topic, b'{"a":1}', key=b"k\xff", timestamp=1_700_000_000_123, headers=[("h", b"x")])
    cluster.write(topic, b"two", None)
    lines, feedback, position = take(cluster.source(topic).parts[0], 0, 3)
    assert [(line.value, line.position) for line in lines] == [(b'{"a":1}', 0), (b"two", 1), (b"", 2)]
    assert (lines[0].key, lines[0].at_us) == ("k\\xff", 1_700_000_000_123_000)
    assert (lines[1].key, list(feedback), position) == (None, [], 3)


def test_each_partition_is_a_part_with_positions_of_its_own(cluster):
    topic = cluster.topic(3)
    for n in range(3):
        cluster.write(topic, *[b"%d.%d" % (n, i) for i in range(5)], partition=n)
    source = cluster.source(topic)
    assert isinstance(source, Parted)
    assert list(source.parts) == [0, 1, 2]
    for n, part in source.parts.items():
        found = take(part, n, 5 - n)
        assert values(found) == [b"%d.%d" % (n, i) for i in range(n, 5)]
        assert {line.partition for line in found[0]} == {n}


def test_a_position_that_was_not_committed_is_given_again(cluster):
    topic = cluster.topic()
    cluster.write(topic, *[b"%d" % n for n in range(10)])
    part = cluster.source(topic).parts[0]
    first = take(part, 0, 4, most=4)
    assert take(part, 0, 4, most=4) == first
    assert values(take(part, first[2], 3, most=3)) == [b"4", b"5", b"6"]
    assert part.due_in_s() == 0.0
    assert values(take(part, 7, 3)) == [b"7", b"8", b"9"]
    assert part.due_in_s() is None


def test_a_poll_is_bounded_by_bytes_and_gives_one_line_whatever_its_size(cluster):
    topic = cluster.topic()
    cluster.write(topic, b"x" * 100, b"y" * 100, b"z" * 100)
    part = cluster.source(topic).parts[0]
    take(part, 0, 3)
    assert values(part.poll(0, MANY, 250)) == [b"x" * 100, b"y" * 100]
    assert values(part.poll(0, MANY, 10)) == [b"x" * 100]


def test_what_was_not_committed_by_its_producer_is_not_read(cluster):
    topic = cluster.topic()
    producer = Producer({"bootstrap.servers": cluster.address, "transactional.id": topic})
    producer.init_transactions(20)
    for value, end in ((b"never", producer.abort_transaction), (b"committed", producer.commit_transaction)):
        producer.begin_transaction()
        producer.produce(topic, value)
        producer.flush(20)
        end(20)
    lines, _, position = take(cluster.source(topic).parts[0], 0, 1)
    assert [line.value for line in lines] == [b"committed"]
    assert position == lines[0].position + 1 > 1


def test_a_second_topic_has_the_feedback(cluster):
    events, labels = cluster.topic(2), cluster.topic()
    cluster.write(events, b"e")
    cluster.write(labels, b"f", b"g")
    source = cluster.source(events, labels)
    assert list(source.parts) == [0, 1, FEEDBACK_FROM]
    lines, feedback, position = take(source.parts[FEEDBACK_FROM], 0, 2)
    assert (lines, [line.value for line in feedback], position) == ((), [b"f", b"g"], 2)
    assert {line.partition for line in feedback} == {FEEDBACK_FROM}


def test_the_reader_is_woken_when_something_arrives(cluster):
    topic = cluster.topic()
    source = cluster.source(topic)
    rang = threading.Event()
    source.wake_by(rang.set)
    assert source.parts[0].poll(0, MANY, MANY) == ([], (), 0)
    assert (source.due_in_s(), rang.is_set()) == (None, False)
    cluster.write(topic, b"now")
    assert rang.wait(20)
    assert source.due_in_s() == 0.0


def test_what_retention_has_deleted_is_passed_over_and_the_rest_read(cluster):
    topic = cluster.topic()
    cluster.write(topic, *[b"%d" % n for n in range(6)])
    cluster.admin.delete_records([TopicPartition(topic, 0, 4)])[TopicPartition(topic, 0, 4)].result(20)
    assert values(take(cluster.source(topic).parts[0], 0, 2)) == [b"4", b"5"]
    assert values(take(cluster.source(topic).parts[0], 2, 2)) == [b"4", b"5"]


def test_a_topic_that_ends_before_the_position_is_another_topic(cluster):
    topic = cluster.topic()
    cluster.write(topic, b"one")
    part = cluster.source(topic).parts[0]
    part.poll(7, MANY, MANY)
    wait_for(lambda: part.source.failure, 20)
    with pytest.raises(CouldNot, match="ends at 1, and was read up to 7") as caught:
        part.poll(7, MANY, MANY)
    assert "new name" in caught.value.hint


def test_a_topic_that_is_not_there_is_told_with_the_command_that_makes_it(cluster):
    with pytest.raises(SettingsError, match="has no topic nowhere") as caught:
        cluster.source("nowhere")
    assert "--create --topic nowhere" in caught.value.hint


def test_without_a_broker_there_is_no_source():
    with pytest.raises(SettingsError, match=r"bus\.bootstrap_servers"):
        open_kafka("topic", "", {}, {})


def test_a_broker_that_was_killed_is_read_on_from_when_it_is_back():
    with service("kafka", jvm=QUICK) as broker:
        cluster = Cluster(broker)
        topic = cluster.topic()
        cluster.write(topic, b"before")
        part = cluster.source(topic).parts[0]
        _, _, position = take(part, 0, 1)
        broker.kill()
        broker.restart()
        cluster.write(topic, b"after")
        assert values(take(part, position, 1)) == [b"after"]
        cluster.close()


# --- a whole house ---------------------------------------------------------------------------------------------------

EVENTS = 6000
KILLS = 3
"""An incident has a restart left for each of them, however close they are."""


@pytest.mark.parametrize("bus", ["lmdb", "kafka"])
def test_every_record_is_decided_once_through_kills_of_ingestion(cluster, tmp_path, bus):
    """No window of ids hides a repeat: positions alone have to do it."""
    topic = cluster.topic(3)
    over = {"ingestion__source": f"kafka://{cluster.address}/{topic}", "ingestion__dedupe_window": 0}
    if bus == "kafka":
        over |= {"ingestion__source": f"kafka:{topic}", "bus__kind": "kafka",
                 "bus__bootstrap_servers": cluster.address, "run__namespace": topic}  # fmt: skip
    lines = bench_lines(EVENTS)
    share = EVENTS // (KILLS + 1)
    with Running(tmp_path, policy__restarts_per_10min=1000, healing__actions_per_hour=1000, **over) as house:
        for n in range(KILLS + 1):
            for part in range(3):
                cluster.write(topic, *lines[n * share : (n + 1) * share][part::3], partition=part)
            if n == KILLS:
                cluster.write(topic, *lines[(n + 1) * share :])
                break
            seen = house.end(Topic.DECISIONS)
            house.until(lambda seen=seen: house.end(Topic.DECISIONS) > seen, why="decisions come out")
            generation = house.shown("ingestion-0")["generation"]
            house.kill("ingestion-0")
            house.until(lambda generation=generation: house.shown("ingestion-0")["generation"] > generation)
        house.until(lambda: len(decided(house)) >= EVENTS, why=f"{EVENTS} decisions")
        house.drain()
        counts = Counter(decided(house))
    assert set(counts.values()) == {1}
    assert counts.keys() == {json.loads(line)["id"] for line in lines}


def decided(house):
    stream = Stream(Topic.DECISIONS, 0)
    blocks = house.bus.read(stream, 0, max_rows=MANY, max_bytes=MANY)
    return [json.loads(line)["event_id"] for block in blocks for line in bytes(block.value).splitlines()]
