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
from confluent_kafka import (
    TIMESTAMP_NOT_AVAILABLE,
    KafkaError,
    KafkaException,
    Message,
    TopicCollection,
    TopicPartition,
)
from pyarrow import RecordBatch

from mendstream.adapters.bus.kafka.client import ANSWER_S, Cluster, code_of, explained, not_let_in
from mendstream.adapters.sources.frames import MOST_ROWS, read
from mendstream.adapters.sources.registry import FORMATS, NotFinite, Registry, open_registry
from mendstream.contracts.agent import Line, Unreadable
from mendstream.contracts.errors import BadRecord, CouldNot, MendstreamError, NoAnswer, SettingsError
from mendstream.contracts.records import DeadReason
from mendstream.contracts.table import Piece, Table
from mendstream.contracts.topics import source_place
from mendstream.settings import Settings

FEEDBACK_FROM = 1 << 16
"""Partition 0 of the feedback topic is part number so, behind its topic's place."""
FRAMES_FROM = 1 << 17
"""The same of a topic of frames, whose positions are others than offsets."""
_POLL_S = 0.1
_BATCH = 2000
_MOST_BYTES = 32 << 20
"""Of one part in memory; from then on it is fetched no further until half of it has been read."""
_AGAIN_S = 1.0
_AGAIN_MOST_S = 30.0
_log = structlog.get_logger("source")


class KafkaSource:
    """`contracts.ports.Parted`: the partitions of `topic`, and of `feedback` if there is such a topic."""

    replayable = True

    def __init__(
        self,
        cluster: Cluster,
        topic: str,
        feedback: str = "",
        *,
        registry: Registry | None = None,
        frames: bool = False,
    ) -> None:
        """`registry`: for values that are no JSON. `frames`: the values of `topic` are columns."""
        self._cluster = cluster
        self._registry = registry
        self._consumer = cluster.consumer("mendstream.source", **{"auto.offset.reset": "error"})
        self._ring: Callable[[], None] = lambda: None
        self._closing = threading.Event()
        self._orders: deque[Callable[[], None]] = deque()
        """What the thread is to do with its consumer, oldest first: a call from another would wait for its poll."""
        self.failure: MendstreamError | None = None
        made, first = (FramePart, FRAMES_FROM) if frames else (Part, 0)
        self.parts: Mapping[int, Part] = {
            **self._parts(topic, lambda n: made(self, topic, n, first + n)),
            **(self._parts(feedback, lambda n: Part(self, feedback, n, FEEDBACK_FROM + n, feedback=True))
               if feedback else {}),
        }  # fmt: skip
        self._named: Mapping[tuple[str | None, int | None], Part] = {
            (part.topic, part.partition): part for part in self.parts.values()
        }
        self._thread = threading.Thread(target=self._run, name="kafka-source", daemon=True)
        self._thread.start()

    def poll(self, position: int, max_lines: int, max_bytes: int) -> tuple[Sequence[Line], Sequence[Line], int]:
        """Of the first part; whoever reads all of them asks each."""
        return next(iter(self.parts.values())).poll(position, max_lines, max_bytes)

    def due_in_s(self) -> float | None:
        return 0.0 if any(part.due_in_s() == 0.0 for part in self.parts.values()) else None

    def wake_by(self, ring: Callable[[], None]) -> None:
        self._ring = ring

    def done(self, position: int) -> None:
        """The topic is its own memory."""

    def close(self) -> None:
        self._closing.set()
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
        while not self._closing.is_set():
            try:
                while self._orders:
                    self._orders[0]()
                    self._orders.popleft()
                raw = self._consumer.poll(_POLL_S)
                if raw is not None and self._take([raw, *self._consumer.consume(_BATCH, 0)]):
                    self._ring()
            except NoAnswer as error:
                _log.warning("the source does not answer: asked again", cause=str(error))
                self._closing.wait(_AGAIN_S)
            except CouldNot as error:
                self._fail(error)
            except _Closed:
                return
            except KafkaException as error:
                self._fail(explained(error, "reading the source", self._cluster))

    def _fail(self, error: MendstreamError) -> None:
        """The next turn tells it."""
        self.failure = error
        self._closing.set()
        self._ring()

    def _take(self, raws: Sequence[Message]) -> bool:
        """Whether there is anything new."""
        found: dict[tuple[str | None, int | None], list[Line]] = {}
        for raw in raws:
            error, place = raw.error(), (raw.topic(), raw.partition())
            if error is not None:
                self._told(error, place)
            elif place in found:
                found[place].append(self._line(raw, found[place][0].partition))
            else:
                found[place] = [self._line(raw, self._named[place].number)]
        new = [self._named[place].add(lines) for place, lines in found.items()]
        return any(new)

    def _line(self, raw: Message, number: int) -> Line:
        return _line(raw, number) if self._registry is None else self._decoded(raw, number, self._registry)

    def _decoded(self, raw: Message, number: int, registry: Registry) -> Line:
        """A registry that is away is waited for, and no record is given up for it. Raises CouldNot, _Closed."""
        value, again_s = raw.value() or b"", _AGAIN_S
        while True:
            try:
                return _line(raw, number)._replace(value=registry.line(value))
            except BadRecord as error:
                reason = DeadReason.NOT_FINITE if isinstance(error, NotFinite) else DeadReason.MALFORMED
                return _line(raw, number)._replace(value=b"", unreadable=Unreadable(value, reason, str(error)))
            except NoAnswer as error:
                _log.warning("the source waits for its schema registry", cause=str(error), again_s=again_s)
                if self._closing.wait(again_s):
                    raise _Closed from error
                again_s = min(2 * again_s, _AGAIN_MOST_S)

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
            raise explained(error, f"asking where {part} ends", self._cluster) from error
        if offset > high:
            raise CouldNot(
                f"the source {part} ends at {high}, and was read up to {offset}: it was made again, or is another one",
                hint="if it was made again, start anew: then it is read from its beginning",
            )
        if 0 < offset < low:
            _log.error("records were deleted by retention before they were read", part=str(part), records=low - offset)
        return max(low, offset)

    def _parts(self, topic: str, made: Callable[[int], Part]) -> dict[int, Part]:
        """A topic that was deleted and made again has another id: it is another source."""
        identity, partitions = self._described(topic)
        return {source_place(identity) + part.number: part for part in map(made, range(partitions))}

    def _described(self, topic: str) -> tuple[str, int]:
        """(its id, its partitions). Raises CouldNot if there is no such topic, or nobody is let in. Waits while the
        broker does not answer.
        """
        admin, asked = self._cluster.admin(), TopicCollection([topic])
        while True:
            try:
                found = admin.describe_topics(asked, request_timeout=ANSWER_S)[topic].result()
            except KafkaException as error:
                if code_of(error).code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise SettingsError(
                        f"the broker at {self._cluster.servers} has no topic {topic}",
                        hint=f"kafka-topics.sh --bootstrap-server {self._cluster.servers} --create --topic {topic}",
                    ) from error
                known = explained(error, f"looking for topic {topic}", self._cluster)
                admin.poll(0)  # for what it was told beside
                refused = not_let_in(self._cluster, f"looking for topic {topic}")
                if refused is not None or not isinstance(known, NoAnswer):
                    raise refused or known from error
                _log.warning("the source does not answer: waiting for it", cause=code_of(error).str())
                time.sleep(_AGAIN_S)
            else:
                return str(found.topic_id), len(found.partitions)


class _Closed(Exception):
    """Nobody reads any more."""


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
        with self._one:
            self._begin(position)
            found: list[Line] = []
            size = 0
            for line in islice(self._lines, max_lines):
                if size and size + len(line.value) > max_bytes:
                    break
                size += len(line.value)
                found.append(line)
            self._given = found[-1].position + 1 if found else position
            return ((), found, self._given) if self.feedback else (found, (), self._given)

    def _begin(self, offset: int) -> None:
        """What lies before the one that is asked for is durable."""
        if self.source.failure is not None:
            raise self.source.failure
        if self.ahead < 0:
            self.ahead = offset
            self.source.begin(self, offset)
        assert offset >= self._gone, f"{self} goes back from {self._gone} to {offset}"
        self._drop(offset)

    def _drop(self, position: int) -> None:
        while self._lines and self._lines[0].position < position:
            gone = self._lines.popleft()
            self._bytes -= len(gone.value or gone.original)
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
            self._bytes += sum([len(line.value or line.original) for line in lines])
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


@dataclass(slots=True)
class FramePart(Part):
    """The same of frames: a position is the frame's offset times MOST_ROWS, and the row in it."""

    _read: dict[int, RecordBatch | Line] = field(default_factory=dict)
    """By offset, what the newest poll made of what lies ahead."""

    def poll(self, position: int, max_lines: int, max_bytes: int) -> tuple[Sequence[Line], Sequence[Line], int]:
        offset, row = divmod(position, MOST_ROWS)
        with self._one:
            self._begin(offset)
            pieces: list[Piece] = []
            rows = size = 0
            for line in self._lines:
                first = row if line.position == offset else 0
                found = self._frame(line)
                if isinstance(found, Line):
                    if not pieces:
                        position = (line.position + 1) * MOST_ROWS
                        self._given = line.position + 1
                        return [found], (), position
                    break  # by itself in the next turn
                if pieces and (size + found.nbytes > max_bytes or not found.schema.equals(pieces[0].batch.schema)):
                    break
                piece = found.slice(first, max_lines - rows)
                pieces.append(Piece(piece, line.position * MOST_ROWS + first, self.number))
                rows, size = rows + piece.num_rows, size + piece.nbytes
                whole = first + piece.num_rows == found.num_rows
                position = (line.position + 1) * MOST_ROWS if whole else pieces[-1].position + piece.num_rows
                if rows >= max_lines:
                    break
            self._given = position // MOST_ROWS
            return Table(pieces) if rows else (), (), position

    def _frame(self, line: Line) -> RecordBatch | Line:
        """As columns, or as the dead letter that it will be."""
        found = self._read.get(line.position)
        if found is None:
            try:
                found = read(line.value)
            except BadRecord as error:
                why = Unreadable(line.value, DeadReason.MALFORMED, str(error))
                found = line._replace(value=b"", unreadable=why, position=line.position * MOST_ROWS)
            self._read[line.position] = found
        return found

    def _drop(self, position: int) -> None:
        Part._drop(self, position)  # `super()` finds no class in one with slots
        for offset in [offset for offset in self._read if offset < position]:
            del self._read[offset]


def _line(raw: Message, number: int) -> Line:
    """A record without a value, as deletes are written, becomes an empty line, and so a dead letter."""
    key = raw.key()
    kind, at_ms = raw.timestamp()
    return Line(
        raw.value() or b"", cast("int", raw.offset()),
        None if key is None else bytes(key).decode(errors="backslashreplace"),
        None if kind == TIMESTAMP_NOT_AVAILABLE else at_ms * 1000, number,
    )  # fmt: skip


def open_kafka(rest: str, house: Settings) -> KafkaSource:
    """Raises SettingsError where there is no such topic, CouldNot where its values cannot be read."""
    settings = house.ingestion
    registry = open_registry(settings) if settings.value_format in FORMATS else None
    cluster, names = read_from(rest, house.bus.bootstrap_servers, house.bus.client, settings.client)
    return KafkaSource(cluster, *names, registry=registry, frames=settings.value_format == "frame")


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
