"""A broker is killed again and again, and some of its owners with it: each number goes through once, and in order.

This is what finds transactions that a broker decides, dies, and then forgets to mark (docs/explanation/kafka.md).
"""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
import time

import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition
from tests.support.chain import THROUGH
from tests.support.services import service
from tools.services.kafka import QUICK

from mendstream.adapters.bus.kafka import topics
from mendstream.adapters.bus.kafka.client import Cluster
from mendstream.contracts.agent import STAGES

DEATHS = int(os.environ.get("BROKER_DEATHS", "8"))
SEED = int(os.environ.get("KILL_SEED", "20260101"))
AWAY_S = (0.0, 3.0, 8.0)
GOES_ON_S = 90.0
ANSWER_S = 10.0
CHAINS = 3
pytestmark = [pytest.mark.brokers, pytest.mark.timeout(120 + 100 * DEATHS)]


class Chains:
    """Several chains beside one another: each is one more turn that may be under way when the broker dies."""

    def __init__(self, root, broker):
        self._root = root
        self._broker = broker
        self.names = [f"chain-{number}" for number in range(CHAINS)]
        for name in self.names:
            topics.make(Cluster(broker.address, name), 1)
        self.processes = {key: self._begin(*key) for key in itertools.product(self.names, STAGES)}

    def _begin(self, name, stage):
        root = self._root / f"{name}-{stage}"
        root.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "tests.support.chain", self._broker.address, name, str(root), stage]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def kill(self, keys):
        for key in keys:
            self.processes[key].kill()
            self.processes[key].wait()
            self.processes[key] = self._begin(*key)

    def close(self):
        for process in self.processes.values():
            process.kill()
            process.wait()

    def through(self, name, topic):
        """The numbers that a reader of committed records finds, in order."""
        return [int(value) for value in read(self._broker.address, f"{name}.{topic}")]

    def goes_on(self, before):
        """Wait until more has come through each chain than `before`; returns how many numbers."""
        deadline, counts = time.monotonic() + GOES_ON_S, dict(before)
        while stuck := [name for name in self.names if counts[name] <= before[name]]:
            assert time.monotonic() < deadline, f"nothing more comes through {stuck}, seed {SEED}"
            for name in stuck:
                counts[name] = len(self.through(name, THROUGH[-1]))
        return counts


def read(address, topic):
    consumer = Consumer(
        {
            "bootstrap.servers": address, "group.id": "reader", "isolation.level": "read_committed",
            "enable.partition.eof": True, "enable.auto.commit": False,
        }
    )  # fmt: skip
    try:
        _, end = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=ANSWER_S)
        consumer.assign([TopicPartition(topic, 0, 0)])
        found = []
        while (message := consumer.poll(ANSWER_S)) is not None:
            error = message.error()
            if (error is not None and error.code() == KafkaError._PARTITION_EOF) or (message.offset() or 0) >= end:
                return found
            if error is None:
                found.append(message.value())
        raise AssertionError(f"nothing more of {topic} was sent for {ANSWER_S:.0f} s")
    finally:
        consumer.close()


def test_each_number_goes_through_once_and_in_order_however_often_the_broker_and_its_owners_die(tmp_path):
    dice = random.Random(SEED)
    with service("kafka", jvm=QUICK) as broker:
        chains = Chains(tmp_path, broker)
        try:
            counts = chains.goes_on(dict.fromkeys(chains.names, 0))
            for _ in range(DEATHS):
                broker.kill()
                time.sleep(dice.choice(AWAY_S))  # how long it is away; nothing is waited for
                broker.restart()
                time.sleep(dice.uniform(0, 2))  # how far the owners have come when they die
                chains.kill(dice.sample(list(chains.processes), dice.choice((0, len(chains.processes) // 2))))
                counts = chains.goes_on(counts)
            for name, topic in itertools.product(chains.names, THROUGH[1:]):
                numbers = chains.through(name, topic)
                assert numbers == list(range(len(numbers))), f"{name}, {topic}, seed {SEED}"
        finally:
            chains.close()
