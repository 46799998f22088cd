"""Every topic of a house on Kafka, read with the console consumer of Kafka's own distribution, and decoded."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest
from tests.processes.house import Running
from tools.services.kafka import tool

from mendstream.contracts.frame import Frame
from mendstream.contracts.records import Decision, decode
from mendstream.contracts.topics import SPECS, TOPICS, Codec, Topic

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]

PARTITIONS = 2
EVENTS = 2000
CONSUMER = "org.apache.kafka.tools.consumer.ConsoleConsumer"
BYTES = "org.apache.kafka.common.serialization.BytesDeserializer"
_ENDS = "terminating consumer process"
_QUIET_MS = 4000
"""Nothing is written any more, so this is for a slow start only."""


@pytest.fixture(scope="module")
def topics(kafka, tmp_path_factory):
    """topic -> the values of its messages, as the console consumer prints them."""
    prefix = f"console-{os.getpid()}"
    root = tmp_path_factory.mktemp("console")
    over = {"bus__kind": "kafka", "bus__bootstrap_servers": kafka.address, "run__namespace": prefix,
            "run__partitions": PARTITIONS}  # fmt: skip
    with Running(root, **over) as house:
        house.until(lambda: sum(house.end(Topic.DECISIONS, p) for p in range(PARTITIONS)) > EVENTS)
        at_us = house.hurt("dead-agent")
        house.ended(house.incident(at_us, "AGENT_DOWN"))
        house.drain()
    with ThreadPoolExecutor(2) as two:
        read = two.map(lambda spec: console(kafka, f"{prefix}.{spec.topic}"), TOPICS)
        return {spec.topic: values for spec, values in zip(TOPICS, read, strict=True)}


def console(broker, topic):
    """Bytes that are no printable ASCII are printed as \\xNN, and so is the backslash. It ends when nothing comes."""
    command = tool(
        broker.folder, CONSUMER, "--bootstrap-server", broker.address, "--topic", topic, "--from-beginning",
        "--isolation-level", "read_committed", "--timeout-ms", str(_QUIET_MS), "--formatter-property",
        f"value.deserializer={BYTES}",
    )  # fmt: skip
    said = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    lines = list(itertools.takewhile(lambda line: "TimeoutException" not in line and _ENDS not in line,
                                     said.stdout.splitlines()))  # fmt: skip
    count = re.search(r"Processed a total of (\d+) messages", said.stderr)
    assert count, said.stderr
    assert len(lines) == int(count[1])
    return [plain(line) for line in lines]


def plain(printed):
    return re.sub(r"\\x([0-9A-F]{2})", lambda found: chr(int(found[1], 16)), printed).encode("latin-1")


def test_every_message_of_every_topic_is_what_the_table_says(topics):
    empty = {topic for topic, values in topics.items() if not values}
    assert empty == {Topic.DEAD_LETTERS}
    for topic, values in topics.items():
        for value in values:
            if SPECS[topic].codec is Codec.FRAME:
                assert Frame.decode(value).rows > 0
            else:
                decode(topic, value)


def test_a_decision_is_one_json_record_and_every_event_has_one(topics):
    events = [i for value in topics[Topic.RAW_EVENTS] for i in ids(value)]
    decided = Counter(msgspec.json.decode(value, type=Decision).event_id for value in topics[Topic.DECISIONS])
    assert len(events) == len(set(events)) > EVENTS
    assert set(decided) == set(events)
    assert set(decided.values()) == {1}


def test_frames_of_all_stages_have_the_same_events(topics):
    events = {topic: sorted(i for value in topics[topic] for i in ids(value))
              for topic in (Topic.RAW_EVENTS, Topic.FEATURES, Topic.PREDICTIONS)}  # fmt: skip
    assert events[Topic.FEATURES] == events[Topic.RAW_EVENTS] == events[Topic.PREDICTIONS]


def ids(value):
    return Frame.decode(value).strings("event_id")
