"""Records of a Kafka topic: one part a partition, whose positions are its offsets.

The positions are committed with the outputs, as those of any source, and never with the broker: no consumer group is
joined, so nothing of the source's cluster decides what is read next. Only committed records are read.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import cast

import structlog
from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, KafkaError, KafkaException, Message, TopicPartition

from mendstream.adapters.bus.kafka.client import ANSWER_S, Cluster, code_of, explained
from mendstream.contracts.agent import Line
from mendstream.contracts.errors import CouldNot, MendstreamError, NoAnswer, SettingsError

FEEDBACK_FROM = 1 << 16
"""Partition 0 of the feedback topic is part number so: those of the events may become more."""
_POLL_S = 0.1
_BATCH = 2000
_MOST_BYTES = 32 << 20
"""Of one part in memory; from then on it is fetched no further until half of it has been read."""
_AGAIN_S = 1.0
_log = structlog.get_logger("source")


class KafkaSource:
    """`contracts.ports.Parted`: the partitions of `topic`, and of `feedback` if there is such a topic."""

    replayable = True

    def __init__(self, cluster: Cluster, topic: str, feedback: str = "") -> None:
        self._cluster = cluster
        self._consumer = cluster.consumer("mendstream.source", **{"auto.offset.reset": "error"})
        self._ring: Callable[[], None] = lambda: None
        self._closing = False
        self._orders: deque[Callable[[], None]] = deque()
        """What the thread is to do with its consumer, oldest first: a call from another would wait for its poll."""
        self.failure: MendstreamError | None = None
        self.parts: Mapping[int, Part] = {
            **{n: Part(self, topic, n, n) for n in range(self._partitions(topic))},
            **{FEEDBACK_FROM + n: Part(self, feedback, n, FEEDBACK_FROM + n, feedback=True)
               for n in range(self._partitions(feedback) if feedback else 0)},
        }  # fmt: skip
        self._named: Mapping[tuple[str | None, int | None], Part] = {
            (part.topic, part.partition): part for part in self.parts.values()
        }
        self._thread = threading.Thread(target=self._run, name="kafka-source", daemon=True)
        self._thread.start()

    def poll(self, position: int, max_lines: int, max_bytes: int) -> tuple[Sequence[Line], Sequence[Line], int]:
        """Of the first part; whoever reads all of them asks each."""
        return self.parts[0].poll(position, max_lines, max_bytes)

    def due_in_s(self) -> float | None:
        return 0.0 if any(part.due_in_s() == 0.0 for part in self.parts.values()) else None

    def wake_by(self, ring: Callable[[], None]) -> None:
        self._ring = ring

    def done(self, position: int) -> None:
        """The topic is its own memory."""

    def close(self) -> None:
        self._closing = True
        self._thread.join()
        self._consumer.close()

    def begin(self, part: Part, offset: int) -> None:
        """Have `part` fetched from `offset` on."""

        def order() -> None:
            self._consumer.incremental_assign([TopicPartition(part.topic, part.partition, self._start(part, offset))])

        self._orders.append(order)

    def pause(self, part: Part, *, on: bool) -> None:
        place = [TopicPartition(part.topic, part.partition)]
        self._orders.append(lambda: self._consumer.pause(place) if on else self._consumer.resume(place))

    # --- the thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closing:
            try:
                while self._orders:
                    self._orders[0]()
                    self._orders.popleft()
                raw = self._consumer.poll(_POLL_S)
                if raw is not None and self._take([raw, *self._consumer.consume(_BATCH, 0)]):
                    self._ring()
            except NoAnswer as error:
                _log.warning("the source does not answer: asked again", cause=str(error))
                time.sleep(_AGAIN_S)
            except CouldNot as error:
                self._fail(error)
            except KafkaException as error:
                self._fail(explained(error, "reading the source", self._cluster.servers))

    def _fail(self, error: MendstreamError) -> None:
        """The next turn tells it."""
        self.failure, self._closing = error, True
        self._ring()

    def _take(self, raws: Sequence[Message]) -> bool:
        """Whether there is anything new."""
        found: dict[tuple[str | None, int | None], list[Line]] = {}
        for raw in raws:
            error, place = raw.error(), (raw.topic(), raw.partition())
            if error is not None:
                self._told(error, place)
            elif place in found:
                found[place].append(_line(raw, found[place][0].partition))
            else:
                found[place] = [_line(raw, self._named[place].number)]
        new = [self._named[place].add(lines) for place, lines in found.items()]
        return any(new)

    def _told(self, error: KafkaError, place: tuple[str | None, int | None]) -> None:
        if error.code() == KafkaError._AUTO_OFFSET_RESET:  # it was trimmed, or made again: there it is looked at
            part = self._named[place]
            self._consumer.incremental_unassign([TopicPartition(part.topic, part.partition)])
            self.begin(part, part.ahead)
        elif error.code() != KafkaError._PARTITION_EOF:
            _log.warning("the source could not give what was asked for", cause=error.str())

    def _start(self, part: Part, offset: int) -> int:
        """Where to read: `offset`, or the first record that is kept. Raises NoAnswer, CouldNot."""
        place = TopicPartition(part.topic, part.partition)
        try:
            low, high = self._consumer.get_watermark_offsets(place, timeout=ANSWER_S)
        except KafkaException as error:
            raise explained(error, f"asking where {part} ends", self._cluster.servers) from error
        if offset > high:
            raise CouldNot(
                f"the source {part} ends at {high}, and was read up to {offset}: it was made again, or is another one",
                hint="give the new topic a new name; a position of the old one means nothing in it",
            )
        if 0 < offset < low:
            _log.error("records were deleted by retention before they were read", part=str(part), records=low - offset)
        return max(low, offset)

    def _partitions(self, topic: str) -> int:
        """Raises CouldNot if there is no such topic. Waits while the broker does not answer."""
        while True:
            try:
                found = self._consumer.list_topics(topic, timeout=ANSWER_S).topics[topic]
            except KafkaException as error:
                known = explained(error, f"looking for topic {topic}", self._cluster.servers)
                if not isinstance(known, NoAnswer):
                    raise known from error
                _log.warning("the source does not answer: waiting for it", cause=code_of(error).str())
                time.sleep(_AGAIN_S)
                continue
            if found.error is None:
                return len(found.partitions)
            raise SettingsError(
                f"the broker at {self._cluster.servers} has no topic {topic} ({found.error.str()})",
                hint=f"kafka-topics.sh --bootstrap-server {self._cluster.servers} --create --topic {topic}",
            )


@dataclass(slots=True)
class Part:
    """`contracts.ports.Source` over one partition. A line's position is its offset."""

    source: KafkaSource
    topic: str
    partition: int
    number: int
    feedback: bool = False
    ahead: int = -1
    """Everything before this offset was fetched; -1: nobody has asked yet."""
    _lines: deque[Line] = field(default_factory=deque)
    _bytes: int = 0
    _given: int = 0
    """What lies before it was given out."""
    _gone: int = 0
    """What lies before it was thrown away."""
    _paused: bool = False
    _one: threading.Lock = field(default_factory=threading.Lock)

    replayable = True

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}"

    def poll(self, position: int, max_lines: int, max_bytes: int) -> tuple[Sequence[Line], Sequence[Line], int]:
        """Raises CouldNot when the topic cannot be read on."""
        if self.source.failure is not None:
            raise self.source.failure
        with self._one:
            if self.ahead < 0:
                self.ahead = position
                self.source.begin(self, position)
            assert position >= self._gone, f"{self} goes back from {self._gone} to {position}"
            self._drop(position)
            found: list[Line] = []
            size = 0
            for line in islice(self._lines, max_lines):
                if size and size + len(line.value) > max_bytes:
                    break
                size += len(line.value)
                found.append(line)
            self._given = found[-1].position + 1 if found else position
            return ((), found, self._given) if self.feedback else (found, (), self._given)

    def _drop(self, position: int) -> None:
        """What lies before the position that is asked for is durable."""
        while self._lines and self._lines[0].position < position:
            self._bytes -= len(self._lines.popleft().value)
        self._gone = position
        if self._paused and self._bytes < _MOST_BYTES // 2:
            self._paused = False
            self.source.pause(self, on=False)

    def add(self, lines: list[Line]) -> bool:
        """Whether there are new ones: after a fetch that began again, some are not."""
        with self._one:
            if lines[0].position < self.ahead:
                lines = [line for line in lines if line.position >= self.ahead]
                if not lines:
                    return False
            self._lines.extend(lines)
            self._bytes += sum([len(line.value) for line in lines])
            self.ahead = lines[-1].position + 1
            if self._bytes > _MOST_BYTES and not self._paused:
                self._paused = True
                self.source.pause(self, on=True)
            return True

    def due_in_s(self) -> float | None:
        with self._one:
            return 0.0 if self._lines and self._lines[-1].position >= self._given else None

    def wake_by(self, ring: Callable[[], None]) -> None:
        self.source.wake_by(ring)

    def done(self, position: int) -> None:
        """The topic is its own memory."""

    def close(self) -> None:
        self.source.close()


def _line(raw: Message, number: int) -> Line:
    """A record without a value, as deletes are written, becomes an empty line, and so a dead letter."""
    key = raw.key()
    kind, at_ms = raw.timestamp()
    return Line(
        raw.value() or b"", cast("int", raw.offset()),
        None if key is None else bytes(key).decode(errors="backslashreplace"),
        None if kind == TIMESTAMP_NOT_AVAILABLE else at_ms * 1000, number,
    )  # fmt: skip


def open_kafka(rest: str, servers: str, client: Mapping[str, str], other: Mapping[str, str]) -> KafkaSource:
    """Raises SettingsError where there is no such topic."""
    cluster, names = read_from(rest, servers, client, other)
    return KafkaSource(cluster, *names)


def read_from(
    rest: str, servers: str, client: Mapping[str, str], other: Mapping[str, str]
) -> tuple[Cluster, list[str]]:  # fmt: skip
    """`TOPIC` on the bus's cluster (`servers` and `client`), or `//HOST:PORT/TOPIC` on one whose settings are `other`.
    A second topic after a comma has the feedback.
    """
    if rest.startswith("//"):
        servers, _, rest = rest[2:].rpartition("/")
        client = other
    if not servers:
        raise SettingsError(
            "ingestion.source names a topic, and bus.bootstrap_servers no broker", hint="kafka://HOST:PORT/TOPIC"
        )
    return Cluster(servers, client=client), rest.split(",")
