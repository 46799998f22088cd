"""Owning tasks on Kafka: one transactional producer an identity, and the state of each task in a log of its own.

A process is known to the broker by the tasks that it runs together: an *identity* is one task, or the fused chain of
one partition. Whoever starts under an identity fences the holder before, and its open transaction, at once. A task can
be held under two identities, so a new owner takes its own first and ends the rival's then; of two that do so at the
same time at most one is left: each would have to have come after the other's second step.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec
import structlog
from confluent_kafka import KafkaError, KafkaException, Producer

from mendstream.adapters.bus.kafka.client import (
    ANSWER_S,
    MOST_BYTES,
    Cluster,
    cause_of,
    code_of,
    explained,
    meet,
    silent,
)
from mendstream.adapters.bus.kafka.follow import Lookup
from mendstream.adapters.bus.kafka.pace import Pace
from mendstream.adapters.bus.kafka.places import Message as Kept
from mendstream.contracts.agent import STAGES, TaskId
from mendstream.contracts.errors import Fenced
from mendstream.contracts.ports import Position
from mendstream.contracts.topics import TOPICS, Spread, Topic

_TRANSACTION_MS = 10_000
"""After so long the broker ends a transaction by itself, which keeps every reader of its topics waiting."""
_EARLY_S = 0.1
"""A producer that needs longer to fence the one before gives its place to another."""
_NOT_YET = (KafkaError._TIMED_OUT, KafkaError.CONCURRENT_TRANSACTIONS)
_RING = 8192
"""Changes are keyed by their turn modulo this, so that compaction keeps all since the last snapshot: there is one at
least every 5,000 turns."""


_log = structlog.get_logger("bus")


class Entry(msgspec.Struct, array_like=True, frozen=True):
    """One message of a task's log: what a turn, or a claim, has left."""

    epoch: int
    turn: int
    positions: dict[str, Position]
    snapshot_at: int
    """Offset of the newest snapshot; HERE if this is one, NOWHERE if there is none."""
    payload: bytes | None
    """The snapshot, or the turn's changes."""


HERE = -2
NOWHERE = -1
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Entry).decode


def written(entry: Entry) -> tuple[bytes, bytes]:
    """(key, value) of the message. Entries of one key replace one another when the topic is compacted."""
    if entry.snapshot_at == HERE:
        key = b"snapshot"
    else:
        key = b"turn" if entry.payload is None else b"%d" % (entry.turn % _RING)
    return key, _encode(entry)


class Left(NamedTuple):
    """What a task's log holds."""

    entry: Entry
    """The newest."""
    snapshot_at: int
    snapshot: bytes | None
    changes: list[bytes]


@dataclass(slots=True)
class Held:
    """A task as this process has it."""

    epoch: int
    turn: int
    positions: dict[str, Position]
    snapshot_at: int
    identity: Identity


@dataclass(slots=True)
class Identity:
    """A transactional producer. It is thrown away after any failure: nobody knows what the broker has of it."""

    name: str
    producer: Producer
    spent: bool = False
    used: bool = False
    """A task was claimed with it."""
    pace: Pace = field(default_factory=Pace)


def identity_of(task: TaskId, chain: frozenset[str]) -> str:
    """Under which name a process that runs `chain` fused holds `task`."""
    return f"fused/{task.partition}" if task.agent in chain else str(task)


def rivals_of(task: TaskId, chain: frozenset[str], partitions: int) -> tuple[str, ...]:
    """The other names that `task` can be held under. With several partitions ingestion is in no chain: to end that of
    partition 0 would only fence its owner, whenever ingestion starts.
    """
    if task.agent not in STAGES or (task.agent == "ingestion" and partitions > 1):
        return ()
    mine = identity_of(task, chain)
    return tuple(name for name in (str(task), f"fused/{task.partition}") if name != mine)


def written_by(name: str, partitions: int) -> Iterator[tuple[Topic | str, int]]:
    """(topic, or agent for the topic of its state; partition) of all that identity `name` may write in its turns."""
    kind, _, number = name.partition("/")
    agents, p = (STAGES if kind == "fused" else (kind,)), int(number)
    for agent in agents:
        yield agent, p
    for spec in TOPICS:
        writers = [agent for agent in agents if agent in spec.writers]
        if "every agent" in spec.writers:
            yield spec.topic, 0 if agents[0] in STAGES else 1
        elif "ingestion" in writers:  # it is the one that spreads by key
            yield from ((spec.topic, partition) for partition in range(partitions))
        elif writers:
            yield spec.topic, p if spec.spread is Spread.DATA else 0


class Identities:
    """The identities of one process. `hangs`: whether a partition of a topic ends behind what can be read."""

    def __init__(self, cluster: Cluster, partitions: int, hangs: Callable[[str, int], bool]) -> None:
        self._cluster = cluster
        self._partitions = partitions
        self._hangs = hangs
        self._held: dict[str, Identity] = {}

    def take(self, name: str) -> Identity:
        """The identity, with a producer that is good; fences whoever held it before. Raises NoAnswer."""
        held = self._held.get(name)
        if held is None or held.spent:
            held = self._held[name] = Identity(name, self._begin(name))
        return held

    def end(self, name: str) -> None:
        """Fence whoever holds this identity, without holding it. If it is taken meanwhile, that is done too."""
        with contextlib.suppress(Fenced):
            self._begin(name)

    def _begin(self, name: str) -> Producer:
        producer = self._begun(name, _EARLY_S) or self._begun(name, ANSWER_S)
        assert producer is not None  # within ANSWER_S it is there, or NoAnswer was raised
        self._sweep(name, producer)
        return producer

    def _begun(self, name: str, within_s: float) -> Producer | None:
        """A producer that has fenced the one before; None if that takes longer than `_EARLY_S`, and no more is allowed.

        Where the one before had a transaction open, the broker ends that first, which takes milliseconds, and says to
        come again: librdkafka does half a second later, and another producer need not wait.
        """
        prefix = self._cluster.namespace or "mendstream"
        producer = self._cluster.producer(
            **{"transactional.id": f"{prefix}.{name}", "transaction.timeout.ms": _TRANSACTION_MS}
        )
        meet(producer, self._cluster.topic(Topic.INCIDENT_LOG), times=2)
        try:
            producer.init_transactions(within_s)
        except KafkaException as error:
            if within_s == _EARLY_S and code_of(error).code() in _NOT_YET:
                return None
            raise explained(error, f"becoming the owner of {name}", self._cluster) from error
        return producer

    def _sweep(self, name: str, producer: Producer) -> None:
        """Abort what an earlier producer of this name has left open, and the coordinator does not know of.

        A broker that dies between deciding a transaction and marking its partitions can come back and skip the marks
        ("likely deleted already", Kafka 4.3). Nobody could read on there, and the next commit of this name would
        make the rest visible: events decided twice. The end of a transaction of our own there ends the rest too.
        Raises NoAnswer.
        """
        places = [
            (self._cluster.topic(topic) if isinstance(topic, Topic) else self._cluster.state_topic(topic), partition)
            for topic, partition in written_by(name, self._partitions)
        ]
        hanging = [place for place in places if self._hangs(*place)]
        if not hanging:
            return
        _log.warning("what was left open is aborted", owner=name, partitions=[f"{t}/{p}" for t, p in hanging])
        doing = f"becoming the owner of {name}"
        refused: list[KafkaError] = []

        def delivered(error: KafkaError | None, _: object) -> None:
            if error is not None:
                refused.append(error)

        try:
            producer.begin_transaction()
            for topic, partition in hanging:
                producer.produce(topic, b"", b"sweep", partition, delivered)
            left = producer.flush(ANSWER_S)
            producer.abort_transaction(ANSWER_S)
        except (KafkaException, SystemError) as error:
            raise explained(cause_of(error), doing, self._cluster) from error
        if refused:
            raise explained(KafkaException(refused[0]), doing, self._cluster)
        if left:
            raise silent(self._cluster, doing, f"has not taken it within {ANSWER_S:.0f} s")


def left_by(lookup: Lookup, topic: str, partition: int) -> Left | None:
    """What a task's log holds; None if it has never been claimed. Raises NoAnswer."""
    first, end = lookup.bounds(topic, partition)
    newest = _newest(lookup, topic, partition, first, end)
    if newest is None:
        return None
    entry = _decode(newest.value)
    snapshot_at = newest.offset if entry.snapshot_at == HERE else entry.snapshot_at
    start = first if snapshot_at == NOWHERE else snapshot_at
    snapshot: bytes | None = None
    changes: list[bytes] = []
    seen = -1
    for message in lookup.read(topic, partition, start):
        found = _decode(message.value)
        if found.snapshot_at == HERE:
            snapshot, changes = found.payload, []
        elif found.payload is not None and found.turn > seen:
            changes.append(found.payload)
        seen = max(seen, found.turn)
    return Left(entry, snapshot_at, snapshot, changes)


def _newest(lookup: Lookup, topic: str, partition: int, first: int, end: int) -> Kept | None:
    """The last entry: what is at the end may be the marks of transactions, also of some that came to nothing."""
    look = 8
    while True:
        start = max(first, end - look)
        found = lookup.read(topic, partition, start, max_bytes=MOST_BYTES * 4)
        if found:
            return found[-1]
        if start <= first:
            return None
        look *= 8
