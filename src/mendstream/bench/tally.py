"""The decisions of any worker in; how many are missing, doubled, foreign or different out.

Stands by itself: a plain consumer of committed records, and a plain reckoning of what must come out. Neither knows how
the worker under test reads, writes or computes.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import onnxruntime
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from mendstream.contracts.errors import CouldNot

CLOSE = 1e-4
"""Scores may differ by so much: the model computes in single precision, whoever feeds it."""
LAST_DELAYS = 4
LATE_MIN = 15
ANSWER_S = 10.0


class Read(NamedTuple):
    """A decision, and where it stands."""

    partition: int
    offset: int
    event_id: str
    score: float


class Tally(NamedTuple):
    """Of the events that went in and the decisions that came out."""

    missing: int
    doubled: int
    foreign: int
    """Decisions on events that nobody sent."""
    different: int
    """Decided once, with another score than the reckoning's."""

    @property
    def exact(self) -> bool:
        return not any(self)

    def __str__(self) -> str:
        return ", ".join(f"{count:,} {name}" for name, count in self._asdict().items())


def tally(expected: Mapping[str, float], found: Sequence[Read]) -> Tally:
    """`expected`: the score of each event that went in."""
    times = Counter(read.event_id for read in found)
    return Tally(
        missing=sum(event_id not in times for event_id in expected),
        doubled=sum(count - 1 for count in times.values()),
        foreign=sum(event_id not in expected for event_id in times),
        different=sum(
            times[read.event_id] == 1 and abs(read.score - expected.get(read.event_id, read.score)) > CLOSE
            for read in found
        ),
    )


# --- the reader ------------------------------------------------------------------------------------------------------


class Reader:
    """All committed decisions of a topic, from the first."""

    def __init__(self, consumer: Consumer, topic: str) -> None:
        self._consumer = consumer
        self._topic = topic
        partitions = consumer.list_topics(topic, timeout=ANSWER_S).topics[topic].partitions
        self._places = [TopicPartition(topic, number, OFFSET_BEGINNING) for number in sorted(partitions)]
        self._at_end: set[int] = set()
        consumer.assign(self._places)
        self.found: list[Read] = []

    def more(self) -> int:
        """Read on for a moment; how many there are so far. Raises CouldNot for a record that is no decision."""
        for message in self._consumer.consume(10_000, 0.05):
            error, partition = message.error(), int(message.partition() or 0)
            if error is None:
                self._at_end.discard(partition)
                self.found.append(_read(partition, int(message.offset() or 0), message.value() or b""))
            elif error.code() == KafkaError._PARTITION_EOF:
                self._at_end.add(partition)
            else:
                raise CouldNot(f"bench: cannot read {self._topic}: {error}", hint="is the broker still there?")
        return len(self.found)

    def to_the_end(self, seconds: float) -> None:
        """Until every partition has been read to its end, once more from here."""
        self._at_end.clear()
        limit = time.monotonic() + seconds
        self._consumer.assign([TopicPartition(p.topic, p.partition, self._next(p)) for p in self._places])
        while len(self._at_end) < len(self._places):
            self.more()
            if time.monotonic() > limit:
                raise CouldNot(f"bench: the end of {self._topic} was not reached", hint="is the broker overloaded?")

    def ends(self) -> list[int]:
        """Of each partition, the offset behind what can be read; the marks of transactions count."""
        return [self._consumer.get_watermark_offsets(place, timeout=ANSWER_S)[1] for place in self._places]

    def _next(self, place: TopicPartition) -> int:
        at = self._consumer.position([place])[0].offset
        return at if at >= 0 else OFFSET_BEGINNING


@contextlib.contextmanager
def reading(servers: str, topic: str) -> Iterator[Reader]:
    told: dict[str, Any] = {
        "bootstrap.servers": servers,
        "group.id": f"{topic}-tally",
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
    }
    with contextlib.closing(Consumer(told)) as consumer:
        try:
            reader = Reader(consumer, topic)
        except KafkaException as error:
            raise CouldNot(f"bench: cannot read {topic}: {error}", hint="is the broker still there?") from error
        yield reader


class _Decision(msgspec.Struct):
    event_id: str
    score: float


_decode = msgspec.json.Decoder(_Decision).decode


def _read(partition: int, offset: int, value: bytes) -> Read:
    try:
        decision = _decode(value)
    except msgspec.MsgspecError as error:
        raise CouldNot(f"bench: a worker wrote no decision: {value[:100]!r}", hint=str(error)) from error
    return Read(partition, offset, decision.event_id, decision.score)


# --- the reckoning ---------------------------------------------------------------------------------------------------


def reckoned(
    lines: Iterable[bytes], rates: Mapping[str, Any], score: Callable[[Any], Sequence[float]]
) -> dict[str, float]:
    """The score of each flight, as the job says it: one after the other, a dictionary of delays."""
    delays: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=LAST_DELAYS))
    ids: list[str] = []
    rows: list[tuple[float, ...]] = []
    for line in lines:
        flight = json.loads(line)
        window = delays[flight["tailnum"]]
        usual = sum(window) / len(window) if window else rates["usual_delay"]
        window.append(flight["dep_delay"])
        ids.append(flight["id"])
        rows.append(_features(flight, usual, rates))
    return dict(zip(ids, score(np.array(rows, dtype=np.float32)), strict=True))


def _features(flight: Mapping[str, Any], usual: float, rates: Mapping[str, Any]) -> tuple[float, ...]:
    def share(name: str) -> float:
        return float(rates[name].get(flight[name], rates["late_share"]))

    delay = flight["dep_delay"]
    clipped = min(max(delay, -20), 120)
    return (
        flight["hour"] + flight["minute"] / 60, flight["distance"], _or_nan(flight["seats"]),
        _or_nan(flight["plane_year"]), share("carrier"), share("dest"), share("origin"), clipped,
        float(np.log1p(min(max(delay, 0), 1440))), delay > 0, delay > LATE_MIN,
        0.9 * clipped + 0.1 * min(max(usual, -20), 120),
    )  # fmt: skip


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def model(path: Path) -> Callable[[Any], Sequence[float]]:
    """The ONNX model as a function: rows in, the share of the second class out."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options)
    probabilities = session.get_outputs()[1].name

    def score(rows: Any) -> Sequence[float]:
        found: Sequence[float] = session.run([probabilities], {"features": rows})[0][:, 1].tolist()
        return found

    return score
