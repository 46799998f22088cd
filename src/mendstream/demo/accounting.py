"""The log of a stopped house in; whether each event was decided exactly once out.

An independent reader: it shares no code with the house, so that a mistake there cannot hide itself here. All that it
knows is written down in this page.

- `DIR/data` and `DIR/control` are LMDB environments. Their database `log` maps (topic number, partition, position,
  rows, bytes, time in microseconds, digest), packed as >BHQIIQQ, to the payload of a block. Their database `ends` maps
  (topic number, partition), packed as >BH, to (first position kept, end, bytes, sum of the digests), packed as <qqqQ.
- On a broker each topic is named `NAMESPACE.TOPIC`; a frame is a message there, and so is each JSON line. Partition 0
  of agent-metrics and dead-letters is what the log has in `data`, partition 1 what it has in `control`. It is read as
  committed.
- Topic numbers: 0 raw-events, 3 decisions, 4 agent-metrics, 14 dead-letters. Payloads of raw-events are Arrow IPC
  streams with a column `event_id`; the others are JSON lines. A dead letter's `value` is base64: the line from outside
  (topic `source`), or an Arrow IPC stream of the rows that a later stage gave up (`raw-events` ... `predictions`).
- The demo's source numbers its events without gaps, `f0` to `fN`, and publishes each once. Within a partition, order
  is kept.

So each number from 0 (or from the first one that retention has kept) up to the highest one seen must have been
accepted into raw-events or set aside by ingestion, once; and what was accepted must have one decision or one dead
letter of a later stage. Whoever stops a house first lets what was accepted be decided: what is still on its way counts
as missing.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import lmdb
import pyarrow as pa
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

EXAMPLES = 10
_KEY = struct.Struct(">BHQIIQQ")
_STREAM = struct.Struct(">BH")
_ENDS = struct.Struct("<qqqQ")
_RAW, _DECISIONS, _METRICS, _DEAD = 0, 3, 4, 14
_NAMES = {
    0: "raw-events", 3: "decisions", 4: "agent-metrics", 10: "config-updates", 11: "incident-log",
    13: "command-results", 14: "dead-letters",
}  # fmt: skip
_BY_WING = {"data": 0, "control": 1}
"""Partition of a topic that every process writes to."""
_ANSWER_S = 30.0
_OWN_ID = re.compile(rb'"id":"f(\d+)"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounting:
    """What became of the events. Nothing is lost or decided twice if `exact`."""

    events: int
    """Accepted, each once."""
    decisions: int
    dead_letters: int
    """About events; labels have their own."""
    missing: int
    """Neither accepted nor set aside, or accepted and never decided."""
    duplicated: int
    """Accepted, decided or set aside more than once."""
    repeats_dropped: int
    """Repeats from outside that ingestion has recognised."""
    first: int
    """The first number that was looked at: above 0 where retention has trimmed."""
    last: int
    """The highest number that was seen anywhere; -1 for none."""
    missing_examples: tuple[str, ...] = ()
    duplicated_examples: tuple[str, ...] = ()

    @property
    def exact(self) -> bool:
        return not self.missing and not self.duplicated

    @property
    def text(self) -> str:
        """For people."""
        since = f" from f{self.first} on (retention took what was before)" if self.first else ""
        said = f"{self.events} events accepted{since}, {self.decisions} decisions, {self.dead_letters} dead letters"
        said += f"; {self.missing} missing, {self.duplicated} duplicated"
        for word, examples in (("missing", self.missing_examples), ("duplicated", self.duplicated_examples)):
            said += f"; {word}: {', '.join(examples)}" if examples else ""
        return said


class Letters(NamedTuple):
    """Dead letters about events, by the numbers of the events."""

    at_the_door: Counter[int]
    """Set aside by ingestion."""
    later: Counter[int]
    """Set aside by a later stage."""


class Broker(NamedTuple):
    """Where the log of a house is that runs on Kafka."""

    servers: str
    namespace: str = ""


Place = str | Path | Broker
"""Of a log: a data directory, or a broker."""


def account(place: Place) -> Accounting:
    """Read the whole log and compare. Raises lmdb.Error, OSError or KafkaException if it cannot be read."""
    with _opened(place, "data") as data, _opened(place, "control") as control:
        accepted, raw_first = _numbers(data, _RAW, _frame_ids)
        decided, decided_first = _numbers(data, _DECISIONS, _decision_ids)
        letters = _letters([*data.blocks(_DEAD), *control.blocks(_DEAD)])
        repeats = _repeats(data.blocks(_METRICS))
    return _compared(accepted, decided, letters, repeats, first=max(raw_first, decided_first))


def payloads(place: Place, wing: str, topic: int) -> Iterator[bytes]:
    """Every block of one topic, for who wants to know more: `wing` is `data` or `control`."""
    with _opened(place, wing) as log:
        for _, payload in log.blocks(topic):
            yield payload


def _compared(
    accepted: Counter[int], decided: Counter[int], letters: Letters, repeats: int, *, first: int
) -> Accounting:  # fmt: skip
    came_in, went_out = accepted + letters.at_the_door, decided + letters.later
    last = max([*came_in, *went_out], default=-1)
    numbers = range(first, last + 1)
    lost = {n for n in numbers if not came_in[n]} | {n for n in accepted if n >= first and not went_out[n]}
    # What was set aside at the door must not go out; what was decided must have come in (else it is lost above).
    twice = {n for n in numbers if came_in[n] > 1 or went_out[n] > 1 or (letters.at_the_door[n] and went_out[n])}
    return Accounting(
        events=sum(n >= first for n in accepted),
        decisions=sum(count for n, count in decided.items() if n >= first),
        dead_letters=sum(count for n, count in (letters.at_the_door + letters.later).items() if n >= first),
        missing=len(lost),
        duplicated=len(twice),
        repeats_dropped=repeats,
        first=first,
        last=last,
        missing_examples=_examples(lost),
        duplicated_examples=_examples(twice),
    )


def _numbers(log: _Log, topic: int, ids: Callable[[bytes], list[str]]) -> tuple[Counter[int], int]:
    """How often each event is in `topic`, and from which number on all of them are kept."""
    found: Counter[int] = Counter()
    first = 0
    seen: set[int] = set()
    for partition, payload in log.blocks(topic):
        numbers = [int(event_id[1:]) for event_id in ids(payload)]
        if partition not in seen and numbers and log.trimmed(topic, partition):
            first = max(first, min(numbers))
        seen.add(partition)
        found.update(numbers)
    return found, first


def _frame_ids(payload: bytes) -> list[str]:
    with pa.ipc.open_stream(pa.py_buffer(payload)) as reader:
        return [event_id for batch in reader for event_id in batch.column("event_id").to_pylist()]


def _decision_ids(payload: bytes) -> list[str]:
    return [record["event_id"] for record in _lines(payload)]


def _letters(blocks: Iterable[tuple[int, bytes]]) -> Letters:
    letters = Letters(Counter(), Counter())
    for _, payload in blocks:
        for letter in _lines(payload):
            value = base64.b64decode(letter["value"])
            if letter["topic"] == "source":
                if b'"event_id"' not in value:  # else it is a label
                    own = _OWN_ID.search(value)
                    letters.at_the_door[int(own[1]) if own else letter["position"]] += 1
            elif letter["topic"] in ("raw-events", "features", "predictions"):
                letters.later.update(_given_up(value))
    return letters


def _given_up(value: bytes) -> list[int]:
    try:
        return [int(event_id[1:]) for event_id in _frame_ids(value)]
    except pa.ArrowInvalid:
        return []  # a torn frame names no events: they count as missing, which they are


def _repeats(blocks: Iterable[tuple[int, bytes]]) -> int:
    """Counts are sent again until superseded: of each (task, pane, config) the highest revision holds."""
    newest: dict[tuple[Any, ...], tuple[int, int]] = {}
    for _, payload in blocks:
        for record in _lines(payload) if b'"repeat"' in payload else ():
            if "repeat" in record.get("losses", {}):
                key = record["task"], record["pane"], record["model"], record["config"], record["arm"]
                newest[key] = max(newest.get(key, (0, 0)), (record["revision"], record["losses"]["repeat"][1]))
    return sum(bad for _, bad in newest.values())


def _lines(payload: bytes) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(b"[" + b",".join(payload.split(b"\n")).rstrip(b",") + b"]")
    return found


# --- where the log is ------------------------------------------------------------------------------------------------


class _Log(Protocol):
    """One wing of a log."""

    def blocks(self, topic: int) -> Iterator[tuple[int, bytes]]:
        """(partition, payload) of every block of `topic`, in order."""

    def trimmed(self, topic: int, partition: int) -> bool:
        """Whether retention has taken the beginning. A beginning that is gone without its word is a loss."""


@contextlib.contextmanager
def _opened(place: Place, wing: str) -> Iterator[_Log]:
    if isinstance(place, Broker):
        consumer = Consumer(
            {
                "bootstrap.servers": place.servers, "group.id": "accounting", "isolation.level": "read_committed",
                "enable.auto.commit": False, "enable.partition.eof": True, "auto.offset.reset": "error",
            }
        )  # fmt: skip
        with contextlib.closing(consumer):
            yield _Committed(consumer, place.namespace, wing)
        return
    with lmdb.open(str(Path(place) / wing), readonly=True, create=False, lock=False, max_dbs=8) as env:
        yield _Embedded(env)


class _Embedded:
    def __init__(self, env: Any) -> None:
        self._env = env

    def blocks(self, topic: int) -> Iterator[tuple[int, bytes]]:
        log = self._env.open_db(b"log", create=False)
        with self._env.begin(db=log) as txn, txn.cursor() as cursor:
            if not cursor.set_range(bytes([topic])):
                return
            for key, value in cursor:
                number, partition, *_ = _KEY.unpack(key)
                if number != topic:
                    return
                yield partition, bytes(value)

    def trimmed(self, topic: int, partition: int) -> bool:
        ends = self._env.open_db(b"ends", create=False)
        with self._env.begin(db=ends) as txn:
            first, *_ = _ENDS.unpack(txn.get(_STREAM.pack(topic, partition)))
        return bool(first > 0)


class _Committed:
    """Topics of a broker, as a reader sees them that waits for the end of each transaction."""

    def __init__(self, consumer: Consumer, namespace: str, wing: str) -> None:
        self._consumer = consumer
        self._prefix = f"{namespace}." if namespace else ""
        self._wing = wing

    def blocks(self, topic: int) -> Iterator[tuple[int, bytes]]:
        for partition in self._partitions(topic):
            self._consumer.assign([self._at(topic, partition, self._bounds(topic, partition)[0])])
            while True:
                message = self._consumer.poll(_ANSWER_S)
                if message is None:
                    raise TimeoutError(f"the broker has sent nothing for {_ANSWER_S:.0f} s")
                error = message.error()
                if error is None:
                    yield partition, cast("bytes", message.value())
                elif error.code() == KafkaError._PARTITION_EOF:
                    break
                elif not error.retriable() and error.code() != KafkaError._ALL_BROKERS_DOWN:
                    raise KafkaException(error)

    def trimmed(self, topic: int, partition: int) -> bool:
        return self._bounds(topic, partition)[0] > 0

    def _partitions(self, topic: int) -> list[int]:
        if topic in (_METRICS, _DEAD):
            return [_BY_WING[self._wing]]
        name = self._prefix + _NAMES[topic]
        return sorted(self._consumer.list_topics(name, _ANSWER_S).topics[name].partitions)

    def _bounds(self, topic: int, partition: int) -> tuple[int, int]:
        found: tuple[int, int] = self._consumer.get_watermark_offsets(self._at(topic, partition), timeout=_ANSWER_S)
        return found

    def _at(self, topic: int, partition: int, offset: int = 0) -> TopicPartition:
        return TopicPartition(self._prefix + _NAMES[topic], partition, offset)


def _examples(numbers: set[int]) -> tuple[str, ...]:
    return tuple(f"f{n}" for n in sorted(numbers)[:EXAMPLES])
