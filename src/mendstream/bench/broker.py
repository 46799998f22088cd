"""A broker that the user has started: topics of a run's own there, filled, read and away afterwards."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import cast

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import NewTopic  # type: ignore[attr-defined] # it exports it all the same

from mendstream.adapters.bus.kafka import topics
from mendstream.adapters.bus.kafka.client import ANSWER_S, Cluster, explained
from mendstream.contracts.errors import CouldNot
from mendstream.contracts.topics import Topic
from mendstream.settings import Settings


@dataclass(frozen=True, slots=True)
class Broker:
    """`cluster` has the namespace of one run."""

    cluster: Cluster

    def holds(self, settings: Settings) -> Settings:
        """The same house on this broker."""
        bus = msgspec.structs.replace(settings.bus, kind="kafka", bootstrap_servers=self.cluster.servers)
        run = msgspec.structs.replace(settings.run, namespace=self.cluster.namespace)
        return msgspec.structs.replace(settings, bus=bus, run=run)

    @property
    def decisions(self) -> str:
        return self.cluster.topic(Topic.DECISIONS)

    def make(self, name: str, partitions: int) -> str:
        """A topic of this run; its name on the broker."""
        topic = self.cluster.topic(name)
        admin = self.cluster.admin()
        admin.create_topics([NewTopic(topic, partitions)], operation_timeout=ANSWER_S)[topic].result()
        return topic

    def fill(self, topic: str, partitions: int, lines: Iterable[bytes]) -> None:
        """One record a line, dealt out in turn."""
        producer = self.cluster.producer(**{"linger.ms": 50})
        for n, line in enumerate(lines):
            while True:
                try:
                    producer.produce(topic, line, partition=n % partitions)
                except BufferError:
                    producer.poll(0.1)
                else:
                    break
        if producer.flush(6 * ANSWER_S):
            raise CouldNot("bench: the broker does not take the events", hint="is it overloaded?")

    def reader(self) -> Consumer:
        """Of committed records, and of nobody's group."""
        return self.cluster.consumer("bench")

    def end(self, reader: Consumer, topic: str) -> list[int]:
        """Of each partition, the offset behind what can be read; the marks of transactions count. [] without topic."""
        return [reader.get_watermark_offsets(place, timeout=ANSWER_S)[1] for place in self._places(reader, topic)]

    def tail(self, reader: Consumer, topic: str) -> None:
        """Read all of `topic`, and what comes to it."""
        reader.assign(self._places(reader, topic))

    @contextlib.contextmanager
    def reading(self, topic: str) -> Iterator[Callable[[], list[tuple[int, int, bytes]]]]:
        """What gives (partition, offset, value) of all that can be read, or of what has come since the last call."""
        with contextlib.closing(self.reader()) as reader:
            self.tail(reader, topic)

            def more() -> list[tuple[int, int, bytes]]:
                found = []
                for message in reader.consume(10_000, 0.05):
                    error = message.error()
                    if error is None:
                        place = cast("int", message.partition()), cast("int", message.offset())
                        found.append((*place, message.value() or b""))
                    elif error.code() != KafkaError._PARTITION_EOF:
                        raise explained(KafkaException(error), f"reading {topic}", self.cluster)
                return found

            yield more

    def _places(self, reader: Consumer, topic: str) -> list[TopicPartition]:
        found = reader.list_topics(topic, timeout=ANSWER_S).topics[topic]
        return [TopicPartition(topic, n, OFFSET_BEGINNING) for n in sorted(found.partitions)]


@contextlib.contextmanager
def broker(servers: str) -> Iterator[Broker]:
    """With a namespace of its own, whose topics are deleted at the end. Raises NoAnswer."""
    one = Broker(Cluster(servers, f"bench-{time.time_ns() // 1_000_000:x}"))
    try:
        one.cluster.admin().list_topics(timeout=ANSWER_S)
    except KafkaException as error:
        raise explained(error, "looking for the broker of the bench", one.cluster) from error
    try:
        yield one
    finally:
        topics.delete(one.cluster)
