"""Sharing partitions among the replicas of a stage, on however many machines: Kafka's own consumer groups decide.

The group only says who should have what. That nobody has it twice is the business of the identities (owner.py): who is
given a partition claims its task, and so fences whoever has not noticed yet that it has lost it. So nothing has to be
finished before a partition is given up, and no rebalance waits for a slow turn.
"""

from __future__ import annotations

import threading

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from mendstream.adapters.bus.kafka.client import Cluster
from mendstream.contracts.errors import Fenced
from mendstream.contracts.topics import Topic

_POLL_S = 0.1
_SESSION_MS = 6000  # of the classic protocol: the newer one's is the broker's, 45 s (docs/explanation/kafka.md)
"""The least that brokers allow as they come; it is the backstop for a machine that is gone: who is started again under
its name has its partitions back at once.
"""
_log = structlog.get_logger("bus")


class Members:
    """One member of the group of `role`. `name` is its own for good: under it, it comes back to its partitions."""

    def __init__(self, cluster: Cluster, role: str, name: str, lead: Topic) -> None:
        """`lead`: the topic whose partitions are shared; the role's tasks have their numbers."""
        self._name = name
        self._lead = cluster.topic(lead)
        self._consumer: Consumer = cluster.consumer(
            cluster.group(f"{role}-members"),
            **{
                "group.instance.id": name,
                "session.timeout.ms": _SESSION_MS,
                "heartbeat.interval.ms": _SESSION_MS // 6,
                "partition.assignment.strategy": "cooperative-sticky",
            },
        )
        self._mine: frozenset[int] = frozenset()
        self._fenced = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kafka-members", daemon=True)
        self._thread.start()

    @property
    def partitions(self) -> tuple[int, ...]:
        """What it has been given. Raises Fenced if another process has come under its name."""
        if self._fenced:
            raise Fenced(f"another process is {self._name} too: each needs a --replica of its own")
        return tuple(sorted(self._mine))

    def close(self) -> None:
        """Its partitions stay its own for the session's time: whoever starts under its name has them back at once."""
        self._ended.set()
        self._thread.join()
        self._consumer.close()

    def _run(self) -> None:
        self._consumer.subscribe([self._lead], on_assign=self._given, on_revoke=self._taken, on_lost=self._taken)
        while not self._ended.is_set():
            raw = self._consumer.poll(_POLL_S)
            error = raw.error() if raw is not None else None
            if error is not None and error.code() == KafkaError._FATAL:
                self._fenced = True
                return
            if error is not None:
                _log.warning("the group of replicas cannot be asked", cause=error.str())

    def _given(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        consumer.incremental_assign(partitions)
        try:
            consumer.pause(partitions)  # it is the right to them that is wanted: they are read elsewhere
        except KafkaException as error:
            _log.warning("a partition of the lead topic is fetched for nothing", cause=str(error))
        self._mine |= {p.partition for p in partitions}
        _log.info("partitions were given to this replica", partitions=sorted(self._mine))

    def _taken(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._mine -= {p.partition for p in partitions}
        consumer.incremental_unassign(partitions)
        _log.info("partitions were taken from this replica", left=sorted(self._mine))
