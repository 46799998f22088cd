"""Events out of a Kafka topic: what of a record comes through, where reading begins, and every record decided once."""

from __future__ import annotations

import io
import itertools
import json
import os
import threading
import time
from collections import Counter

import fastavro
import msgspec
import pyarrow as pa
import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from structlog.testing import capture_logs
from tests.processes.house import Running, wait_for
from tests.support.registry import FakeRegistry, framed
from tests.support.services import service
from tools.services.kafka import QUICK

from mendstream.adapters.sources.frames import MOST_ROWS, encode
from mendstream.adapters.sources.kafka import FEEDBACK_FROM, FRAMES_FROM, KafkaSource, open_kafka
from mendstream.client import FrameProducer
from mendstream.contracts.errors import CouldNot, SettingsError
from mendstream.contracts.ports import Parted
from mendstream.contracts.records import decode_block
from mendstream.contracts.table import Table
from mendstream.contracts.topics import SOURCE_PARTS, Stream, Topic
from mendstream.demo.pipeline import flights
from mendstream.demo.source import bench_lines
from mendstream.settings import Settings
from mendstream.settings.groups import Ingestion

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

    def source(self, topic, feedback="", **ingestion):
        names = f"{topic},{feedback}" if feedback else topic
        made = open_kafka(f"//{self.address}/{names}", Settings(ingestion=Ingestion(**ingestion)))
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


def first_of(source):
    return next(iter(source.parts.values()))


def values(found):
    return [line.value for line in found[0]]


def test_value_key_time_and_offset_of_a_record_come_through(cluster):
    topic = cluster.topic()
    cluster.write(topic, b'{"a":1}', key=b"k\xff", timestamp=1_700_000_000_123, headers=[("h", b"x")])
    cluster.write(topic, b"two", None)
    lines, feedback, position = take(first_of(cluster.source(topic)), 0, 3)
    assert [(line.value, line.position) for line in lines] == [(b'{"a":1}', 0), (b"two", 1), (b"", 2)]
    assert (lines[0].key, lines[0].at_us) == ("k\\xff", 1_700_000_000_123_000)
    assert (lines[1].key, list(feedback), position) == (None, [], 3)


def test_each_partition_is_a_part_with_positions_of_its_own(cluster):
    topic = cluster.topic(3)
    for n in range(3):
        cluster.write(topic, *[b"%d.%d" % (n, i) for i in range(5)], partition=n)
    source = cluster.source(topic)
    assert isinstance(source, Parted)
    assert [number % SOURCE_PARTS for number in source.parts] == [0, 1, 2]
    for n, part in enumerate(source.parts.values()):
        found = take(part, n, 5 - n)
        assert values(found) == [b"%d.%d" % (n, i) for i in range(n, 5)]
        assert {line.partition for line in found[0]} == {n}


def test_a_position_that_was_not_committed_is_given_again(cluster):
    topic = cluster.topic()
    cluster.write(topic, *[b"%d" % n for n in range(10)])
    part = first_of(cluster.source(topic))
    first = take(part, 0, 4, most=4)
    assert take(part, 0, 4, most=4) == first
    assert values(take(part, first[2], 3, most=3)) == [b"4", b"5", b"6"]
    assert part.due_in_s() == 0.0
    assert values(take(part, 7, 3)) == [b"7", b"8", b"9"]
    assert part.due_in_s() is None


def test_a_poll_is_bounded_by_bytes_and_gives_one_line_whatever_its_size(cluster):
    topic = cluster.topic()
    cluster.write(topic, b"x" * 100, b"y" * 100, b"z" * 100)
    part = first_of(cluster.source(topic))
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
    lines, _, position = take(first_of(cluster.source(topic)), 0, 1)
    assert [line.value for line in lines] == [b"committed"]
    assert position == lines[0].position + 1 > 1


def test_a_second_topic_has_the_feedback(cluster):
    events, labels = cluster.topic(2), cluster.topic()
    cluster.write(events, b"e")
    cluster.write(labels, b"f", b"g")
    source = cluster.source(events, labels)
    assert [number % SOURCE_PARTS for number in source.parts] == [0, 1, FEEDBACK_FROM]
    lines, feedback, position = take(list(source.parts.values())[-1], 0, 2)
    assert (lines, [line.value for line in feedback], position) == ((), [b"f", b"g"], 2)
    assert {line.partition for line in feedback} == {FEEDBACK_FROM}


def test_the_reader_is_woken_when_something_arrives(cluster):
    topic = cluster.topic()
    source = cluster.source(topic)
    rang = threading.Event()
    source.wake_by(rang.set)
    assert first_of(source).poll(0, MANY, MANY) == ([], (), 0)
    assert (source.due_in_s(), rang.is_set()) == (None, False)
    cluster.write(topic, b"now")
    assert rang.wait(20)
    assert source.due_in_s() == 0.0


def test_what_retention_has_deleted_is_passed_over_and_the_rest_read(cluster):
    topic = cluster.topic()
    cluster.write(topic, *[b"%d" % n for n in range(6)])
    cluster.admin.delete_records([TopicPartition(topic, 0, 4)])[TopicPartition(topic, 0, 4)].result(20)
    assert values(take(first_of(cluster.source(topic)), 0, 2)) == [b"4", b"5"]
    assert values(take(first_of(cluster.source(topic)), 2, 2)) == [b"4", b"5"]


def test_a_topic_that_ends_before_the_position_is_another_topic(cluster):
    topic = cluster.topic()
    cluster.write(topic, b"one")
    part = first_of(cluster.source(topic))
    part.poll(7, MANY, MANY)
    wait_for(lambda: part.source.failure, 20)
    with pytest.raises(CouldNot, match="ends at 1, and was read up to 7") as caught:
        part.poll(7, MANY, MANY)
    assert "start anew" in caught.value.hint


def test_a_topic_that_was_made_again_is_another_source(cluster):
    topic = cluster.topic()
    (before,) = cluster.source(topic).parts
    cluster.admin.delete_topics([topic])[topic].result(20)
    wait_for(lambda: topic not in cluster.admin.list_topics(timeout=20).topics, 20)
    cluster.admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(20)
    (after,) = cluster.source(topic).parts
    assert after != before
    assert list(cluster.source(topic).parts) == [after], "and stays the same"


def test_a_topic_that_is_not_there_is_told_with_the_command_that_makes_it(cluster):
    with pytest.raises(SettingsError, match="has no topic nowhere") as caught:
        cluster.source("nowhere")
    assert "--create --topic nowhere" in caught.value.hint


def test_without_a_broker_there_is_no_source():
    with pytest.raises(SettingsError, match=r"bus\.bootstrap_servers"):
        open_kafka("topic", Settings())


def test_a_broker_that_was_killed_is_read_on_from_when_it_is_back():
    with service("kafka", jvm=QUICK) as broker:
        cluster = Cluster(broker)
        topic = cluster.topic()
        cluster.write(topic, b"before")
        part = first_of(cluster.source(topic))
        _, _, position = take(part, 0, 1)
        broker.kill()
        broker.restart()
        cluster.write(topic, b"after")
        assert values(take(part, position, 1)) == [b"after"]
        cluster.close()


# --- values with a schema registry's number -------------------------------------------------------------------------

FLIGHT = {
    "type": "record", "name": "Flight", "fields": [
        *({"name": name, "type": "string"} for name in ("id", "tailnum", "carrier", "origin", "dest")),
        *({"name": name, "type": "int"} for name in ("hour", "minute")),
        *({"name": name, "type": "double"} for name in ("distance", "dep_delay")),
        *({"name": name, "type": ["null", "int"]} for name in ("seats", "plane_year")),
    ],
}  # fmt: skip


def avro(number, record, schema=FLIGHT):
    written = io.BytesIO()
    fastavro.schemaless_writer(written, fastavro.parse_schema(schema), record)
    return framed(number, written.getvalue())


def test_avro_values_come_as_json_and_what_is_none_keeps_its_bytes(cluster):
    schema = {"type": "record", "name": "R", "fields": [{"name": "n", "type": "int"}]}
    with FakeRegistry() as registry:
        number = registry.avro(schema)
        bad = [b'{"n":1}', framed(number, b"\x80"), framed(99, b"\x02"), b""]
        topic = cluster.topic()
        cluster.write(topic, avro(number, {"n": 1}, schema), *bad, avro(number, {"n": 2}, schema), key=b"k")
        part = first_of(cluster.source(topic, value_format="avro", schema_registry=registry.url))
        lines, _, position = take(part, 0, 6)
    assert [line.value for line in lines] == [b'{"n":1}', b"", b"", b"", b"", b'{"n":2}']
    assert [line.original for line in lines[1:5]] == bad
    assert ([line.key for line in lines], position) == (["k"] * 6, 6)
    assert [line.unreadable is None for line in lines] == [True, False, False, False, False, True]


def test_protobuf_values_come_as_json(cluster):
    field = FieldDescriptorProto
    file = FileDescriptorProto(name="r.proto", syntax="proto3")
    file.message_type.add(name="R").field.add(name="n", number=1, type=field.TYPE_INT32, label=field.LABEL_OPTIONAL)
    with FakeRegistry() as registry:
        number = registry.protobuf(file)
        topic = cluster.topic()
        cluster.write(topic, framed(number, b"\x08\x05", indexes=b"\0"), framed(number, b"\x08", indexes=b"\0"))
        part = first_of(cluster.source(topic, value_format="protobuf", schema_registry=registry.url))
        lines, _, _ = take(part, 0, 2)
    assert (lines[0].value, lines[1].original) == (b'{"n":5}', framed(number, b"\x08", indexes=b"\0"))


def test_a_registry_that_is_away_is_waited_for_and_no_record_is_given_up(cluster):
    schema = {"type": "record", "name": "R", "fields": [{"name": "n", "type": "int"}]}
    registry = FakeRegistry().start()
    number, url, port = registry.avro(schema), registry.url, registry.port
    registry.stop()
    topic = cluster.topic()
    cluster.write(topic, *[avro(number, {"n": n}, schema) for n in range(3)])
    with capture_logs() as told:
        part = first_of(cluster.source(topic, value_format="avro", schema_registry=url))
        part.poll(0, MANY, MANY)
        wait_for(lambda: any("waits for its schema registry" in entry["event"] for entry in told), 20)
    assert part.poll(0, MANY, MANY) == ([], (), 0)
    registry.answers = [(503, b"{}")]
    registry.start(port)
    try:
        assert values(take(part, 0, 3)) == [b'{"n":0}', b'{"n":1}', b'{"n":2}']
    finally:
        registry.stop()


def test_a_source_that_waits_for_its_registry_can_be_closed(cluster):
    registry = FakeRegistry().start()
    url = registry.url
    registry.stop()
    topic = cluster.topic()
    cluster.write(topic, framed(1, b""))
    with capture_logs() as told:
        source = cluster.source(topic, value_format="avro", schema_registry=url)
        first_of(source).poll(0, MANY, MANY)
        wait_for(lambda: any("waits for its schema registry" in entry["event"] for entry in told), 20)
    source._thread.join(0.0)
    assert source._thread.is_alive()
    cluster.close()
    assert not source._thread.is_alive()


def test_a_registry_that_does_not_let_us_in_ends_the_turn_with_what_to_do(cluster):
    with FakeRegistry(answers=[(401, b'{"error_code":401,"message":"Unauthorized"}')]) as registry:
        topic = cluster.topic()
        cluster.write(topic, framed(1, b""))
        part = first_of(cluster.source(topic, value_format="avro", schema_registry=registry.url))
        part.poll(0, MANY, MANY)
        wait_for(lambda: part.source.failure, 20)
        with pytest.raises(CouldNot, match="does not let us in"):
            part.poll(0, MANY, MANY)


# --- frames ----------------------------------------------------------------------------------------------------------


def frame(*numbers):
    return encode(pa.RecordBatch.from_pydict({"n": list(numbers)}))


def test_frames_come_as_tables_and_what_is_none_as_a_line_with_its_bytes(cluster):
    topic = cluster.topic()
    cluster.write(topic, frame(0, 1, 2), frame(3), b'{"n":4}', frame(5))
    source = cluster.source(topic, value_format="frame")
    ((number, part),) = source.parts.items()
    assert number % SOURCE_PARTS == FRAMES_FROM
    wait_for(lambda: part.poll(0, MANY, MANY) and part.ahead == 4, 20)
    table, feedback, position = part.poll(0, MANY, MANY)
    assert isinstance(table, Table)
    assert [(line.value, line.position % MOST_ROWS) for line in table] == [
        (b'{"n":0}', 0), (b'{"n":1}', 1), (b'{"n":2}', 2), (b'{"n":3}', 0)
    ]  # fmt: skip
    assert (feedback, position, {line.partition for line in table}) == ((), 2 * MOST_ROWS, {FRAMES_FROM})
    (bad,), _, position = part.poll(position, MANY, MANY)
    assert (bad.value, bad.original, bad.position, position) == (b"", b'{"n":4}', 2 * MOST_ROWS, 3 * MOST_ROWS)
    assert part.due_in_s() == 0.0
    table, _, position = part.poll(position, MANY, MANY)
    assert (values((table,)), position, part.due_in_s()) == ([b'{"n":5}'], 4 * MOST_ROWS, None)


def test_a_frame_is_cut_where_a_turn_can_take_no_more_and_read_on_from_there(cluster):
    topic = cluster.topic()
    cluster.write(topic, frame(*range(5)), frame(5, 6))
    found, position = [], 0
    while len(found) < 7:
        part = first_of(cluster.source(topic, value_format="frame"))  # as after a restart
        wait_for(lambda part=part, position=position: part.poll(position, 3, MANY) and part.ahead == 2, 20)
        table, _, position = part.poll(position, 3, MANY)
        found += values((table,))
        assert 1 <= len(table) <= 3
    assert (found, position) == ([b'{"n":%d}' % n for n in range(7)], 2 * MOST_ROWS)


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


def test_avro_records_are_decided_once_through_a_kill_and_a_registry_that_is_away(cluster, tmp_path):
    """What is no record goes to dead-letters with its own bytes, once as well."""
    topic = cluster.topic(2)
    rows = [json.loads(line) for line in bench_lines(2000)]
    registry = FakeRegistry().start()
    number, url, port = registry.avro(FLIGHT), registry.url, registry.port
    bad = [b"{}", framed(number, b"\x02"), framed(77, b"x"), avro(number, {**rows[0], "hour": 99})]
    for n in range(2):
        cluster.write(topic, *[avro(number, row) for row in rows[n:1000:2]], *bad[n::2], partition=n)
    over = {"ingestion__source": f"kafka://{cluster.address}/{topic}", "ingestion__dedupe_window": 0,
            "ingestion__value_format": "avro", "ingestion__schema_registry": url,
            "policy__restarts_per_10min": 1000, "healing__actions_per_hour": 1000}  # fmt: skip
    with Running(tmp_path, **over) as house:
        house.until(lambda: house.end(Topic.DECISIONS) > 0, why="decisions come out")
        registry.stop()  # a restarted process has to ask again
        generation = house.shown("ingestion-0")["generation"]
        house.kill("ingestion-0")
        house.until(lambda: house.shown("ingestion-0")["generation"] > generation)
        cluster.write(topic, *[avro(number, row) for row in rows[1000:]])
        registry.start(port)
        house.until(lambda: len(decided(house)) >= len(rows), why="all decisions")
        house.drain()
        counts = Counter(decided(house))
        letters = Counter(dead(house))
    registry.stop()
    assert set(counts.values()) == {1}
    assert counts.keys() == {row["id"] for row in rows}
    assert {value: n for value, n in letters.items() if value in bad} == dict.fromkeys(bad[:3], 1)
    (invalid,) = [value for value in letters if value not in bad]
    assert json.loads(invalid) == {**rows[0], "hour": 99}


@pytest.mark.parametrize("bus", ["lmdb", "kafka"])
def test_events_of_frames_are_decided_once_through_kills_of_ingestion(cluster, tmp_path, bus):
    """A bad row is set aside, in a frame too; a kill inside of a frame neither loses nor repeats a row."""
    topic = cluster.topic(2)
    over = {"ingestion__source": f"kafka://{cluster.address}/{topic}", "ingestion__dedupe_window": 0,
            "ingestion__value_format": "frame", "policy__restarts_per_10min": 1000,
            "healing__actions_per_hour": 1000, "bus__max_batch_rows": 300}  # fmt: skip
    if bus == "kafka":
        over |= {"bus__kind": "kafka", "bus__bootstrap_servers": cluster.address, "run__namespace": topic}
    rows = [msgspec.json.decode(line, type=flights.event) for line in bench_lines(4000)]
    bad = msgspec.structs.replace(rows[0], id="bad", hour=99)
    with (
        FrameProducer(cluster.address, topic, event=flights.event, key="tailnum") as out,
        Running(tmp_path, **over) as house,
    ):
        for start in range(0, len(rows), 1000):
            out.send(rows[start : start + 1000])
            if start == 1000:
                out.send([bad])
            out.flush()
            seen = house.end(Topic.DECISIONS)
            house.until(lambda seen=seen: house.end(Topic.DECISIONS) > seen, why="decisions come out")
            if start < 2000:
                generation = house.shown("ingestion-0")["generation"]
                house.kill("ingestion-0")
                house.until(lambda generation=generation: house.shown("ingestion-0")["generation"] > generation)
        house.until(lambda: len(decided(house)) >= len(rows), why="all decisions")
        house.drain()
        counts = Counter(decided(house))
        letters = [json.loads(value) for value in dead(house) if b'"bad"' in value]
    assert set(counts.values()) == {1}
    assert counts.keys() == {row.id for row in rows}
    assert letters == [msgspec.to_builtins(bad)]


def decided(house):
    stream = Stream(Topic.DECISIONS, 0)
    blocks = house.bus.read(stream, 0, max_rows=MANY, max_bytes=MANY)
    return [json.loads(line)["event_id"] for block in blocks for line in bytes(block.value).splitlines()]


def dead(house):
    blocks = house.bus.read(Stream(Topic.DEAD_LETTERS, 0), 0, max_rows=MANY, max_bytes=MANY)
    return [letter.value for block in blocks for letter in decode_block(Topic.DEAD_LETTERS, block.value)]
