"""What happens to topics behind the bus's back: trimmed, made again, missing, too small. Nothing passes unseen."""

from __future__ import annotations

import itertools
import os
import threading
import time

import pytest
import structlog
from confluent_kafka import KafkaError, KafkaException
from tests.processes.house import wait_for
from tests.support.brokers import Operator
from tests.support.log import out

from mendstream.adapters.bus.kafka import topics
from mendstream.adapters.bus.kafka.client import Cluster
from mendstream.adapters.bus.kafka.kafka_bus import KafkaBus
from mendstream.contracts.agent import TaskId
from mendstream.contracts.errors import CouldNot, NoAnswer, TooLarge
from mendstream.contracts.ports import Out, TaskCommit
from mendstream.contracts.topics import Stream, Topic

pytestmark = [pytest.mark.services, pytest.mark.timeout(120)]

ALERTS = Stream(Topic.ALERTS, 0)
RAW = Stream(Topic.RAW_EVENTS, 0)
JUDGE = TaskId("judge", 0)
DEADLINE_S = 30.0
_numbers = itertools.count()


@pytest.fixture
def cluster(kafka):
    found = Cluster(kafka.address, namespace=f"trouble-{os.getpid()}-{next(_numbers)}")
    topics.make(found, 1)
    yield found
    topics.delete(found)


@pytest.fixture
def operator(kafka):
    return Operator(kafka.address)


@pytest.fixture
def bus(cluster, tmp_path, clock):
    found = KafkaBus(cluster, tmp_path, clock, partitions=1)
    yield found
    found.close()


def write(bus, count, start=0):
    bus.publish([out(ALERTS, *(b"%d" % n for n in range(start, start + count)))])


def read_on(bus, position, until):
    """What is read from `position` on, up to the line `until`."""
    found = []
    deadline = time.monotonic() + DEADLINE_S
    while not found or found[-1] != until:
        assert time.monotonic() < deadline, found
        for block in bus.read(ALERTS, position, max_rows=1000, max_bytes=1 << 20):
            found += bytes(block.value).splitlines()
            position = block.next
    return found


def again_and_again(call):
    """Until it raises: a broker obeys a moment after it has agreed."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        call()


def told(logs, words):
    return [entry for entry in logs if words in entry["event"]]


# --- the thread that fetches -----------------------------------------------------------------------------------------


def test_a_stream_that_two_threads_begin_to_read_at_once_is_followed_once(bus):
    write(bus, 5)
    bus.listen("reader", [ALERTS])
    together, waiting = threading.Barrier(2), []

    def pulse():
        together.wait(DEADLINE_S)
        waiting.append(bus.waiting(ALERTS, 0))

    threads = [threading.Thread(target=pulse) for _ in range(2)]
    with structlog.testing.capture_logs() as logs:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE_S)
        assert waiting == [5, 5]
        write(bus, 5, start=5)
        assert read_on(bus, 0, b"9") == [b"%d" % n for n in range(10)]
    assert not told(logs, "refused an order")


def test_a_consumer_that_refuses_an_order_is_replaced_and_nothing_is_missed_or_read_twice(bus):
    write(bus, 5)
    bus.listen("reader", [ALERTS])
    assert read_on(bus, 0, b"4")[0] == b"0"

    def refused():
        raise KafkaException(KafkaError(KafkaError._CONFLICT))

    with structlog.testing.capture_logs() as logs:
        bus._follower._orders.append(refused)
        write(bus, 5, start=5)
        assert read_on(bus, 0, b"9") == [b"%d" % n for n in range(10)]
        wait_for(lambda: told(logs, "refused an order"), DEADLINE_S)
        write(bus, 5, start=10)
        assert read_on(bus, 10, b"14") == [b"%d" % n for n in range(10, 15)]


# --- retention -------------------------------------------------------------------------------------------------------


def test_what_retention_took_before_it_was_read_is_counted_and_the_rest_is_read(bus, cluster, operator):
    write(bus, 10)
    assert operator.trim(cluster.topic(Topic.ALERTS), 4) == 4
    with structlog.testing.capture_logs() as logs:
        bus.listen("reader", [ALERTS])
        assert read_on(bus, 0, b"9") == [b"%d" % n for n in range(4, 10)]
    (lost,) = told(logs, "deleted by retention")
    assert (lost["stream"], lost["messages"]) == ("alerts/0", 4)


def test_a_reader_that_has_all_there_was_loses_nothing_by_retention(bus, cluster, operator):
    write(bus, 5)
    with structlog.testing.capture_logs() as logs:
        bus.listen("reader", [ALERTS])
        read_on(bus, 0, b"4")
        operator.trim(cluster.topic(Topic.ALERTS), 5)
        write(bus, 5, start=5)
        assert read_on(bus, 5, b"9") == [b"%d" % n for n in range(5, 10)]
    assert not told(logs, "deleted by retention")


def test_a_topic_that_was_made_again_is_not_read_as_if_it_were_the_old_one(bus, cluster, operator):
    write(bus, 5)
    name = cluster.topic(Topic.ALERTS)
    operator.delete(name)
    operator.make(name)
    bus.listen("reader", [ALERTS])
    with pytest.raises(CouldNot, match=r"alerts/0 ends at 0, and was read up to 5: the topic was made again") as caught:
        again_and_again(lambda: bus.read(ALERTS, 5, max_rows=10, max_bytes=1 << 20))
    assert "run.namespace" in caught.value.hint


# --- topics that are missing or too small ----------------------------------------------------------------------------


def turn(claim, number, outputs, **left):
    return TaskCommit(
        task=claim.task, epoch=claim.epoch, turn=number, positions={}, before={}, outputs=outputs, **left
    )  # fmt: skip


@pytest.mark.parametrize("size", [200_000, 17 << 20], ids=["for the topic", "for the client"])
def test_a_turn_that_is_too_large_leaves_nothing_and_smaller_ones_go_on(bus, cluster, operator, size):
    operator.set(cluster.topic(Topic.RAW_EVENTS), max_message_bytes=100_000)
    claim = bus.claim(JUDGE, [])
    with pytest.raises(TooLarge) as caught:
        bus.commit([turn(claim, 1, [out(ALERTS, b"never"), Out(RAW, os.urandom(size), 10)], snapshot=b"never")])
    assert "mendstream topics check" in caught.value.hint
    claim = bus.claim(JUDGE, [])
    assert (claim.turns, claim.snapshot) == (0, None)
    bus.commit([turn(claim, 1, [out(ALERTS, b"one"), Out(RAW, os.urandom(50_000), 5)], snapshot=b"x")])
    bus.listen("reader", [ALERTS])
    assert read_on(bus, 0, b"one") == [b"one"]


def test_a_turn_whose_first_message_is_too_large_says_so_however_much_comes_after_it(bus, cluster, operator):
    operator.set(cluster.topic(Topic.RAW_EVENTS), max_message_bytes=100_000)
    claim = bus.claim(JUDGE, [])

    def outs():
        yield Out(RAW, os.urandom(200_000), 10)
        deadline = time.monotonic() + 5.0
        while time.monotonic() < deadline:
            yield out(ALERTS, b"never")

    with pytest.raises(TooLarge):
        bus.commit([turn(claim, 1, outs(), snapshot=b"x")])


def test_a_sign_of_life_that_is_too_large_is_told_at_once(bus, cluster, operator):
    operator.set(cluster.topic(Topic.ALERTS), max_message_bytes=1000)
    with pytest.raises(TooLarge):
        again_and_again(lambda: bus.publish([out(ALERTS, os.urandom(2000).hex().encode())]))
    write(bus, 1)


def test_a_topic_that_goes_missing_is_waited_for_and_served_again_when_it_is_back(bus, cluster, operator):
    name = cluster.topic(Topic.ALERTS)
    operator.delete(name)
    with pytest.raises(NoAnswer):
        again_and_again(lambda: write(bus, 1))
    with pytest.raises(NoAnswer, match="has no such topic") as caught:
        again_and_again(lambda: bus.since(ALERTS, 0))
    assert "mendstream topics create" in caught.value.hint
    assert topics.make(cluster, 1) == [name]
    claim = bus.claim(JUDGE, [])
    bus.commit([turn(claim, 1, [out(ALERTS, b"back")], snapshot=b"x")])
    bus.listen("reader", [ALERTS])
    assert read_on(bus, 0, b"back") == [b"back"]
