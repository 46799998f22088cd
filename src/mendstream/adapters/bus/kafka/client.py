"""What every client of a broker is made with: addresses, names, and the settings that librdkafka gets."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from mendstream.contracts.errors import CouldNot, Fenced, MendstreamError, NoAnswer, SettingsError
from mendstream.contracts.topics import Topic

ANSWER_S = 10.0
"""How long a broker may take to answer one question."""
MOST_BYTES = 16 << 20
"""Of one message: a snapshot of a large state is one."""
_FENCED = frozenset({KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED})
_AWAY = frozenset(
    {KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT, KafkaError._MSG_TIMED_OUT}
)
_REFUSED = {
    KafkaError._AUTHENTICATION: "the broker does not accept these credentials",
    KafkaError.SASL_AUTHENTICATION_FAILED: "the broker does not accept these credentials",
    KafkaError._SSL: "TLS with the broker failed",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "no right to this topic",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "no right to this consumer group",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "no right to this transactional id",
}
_log = structlog.get_logger("bus")


@dataclass(frozen=True, slots=True)
class Cluster:
    """One broker or several, and the names that this house has there."""

    servers: str
    """host:port, more of them after commas."""
    namespace: str = ""
    client: Mapping[str, str] = field(default_factory=dict)
    """Settings of librdkafka, for TLS and SASL; a value `env:NAME` or `file:PATH` is a reference to a secret."""
    replication: int = -1
    """Copies of each topic that is made; -1: what the broker has as default."""
    min_insync_replicas: int = 1

    def topic(self, topic: Topic | str) -> str:
        return f"{self.namespace}.{topic}" if self.namespace else str(topic)

    def state_topic(self, agent: str) -> str:
        """Where the tasks of `agent` keep their state."""
        return self.topic(f"{agent}-state")

    def group(self, agent: str) -> str:
        """The consumer group whose offsets show how far the tasks of `agent` are."""
        return f"{self.namespace or 'mendstream'}.{agent}"

    def consumer(self, group: str, **more: Any) -> Consumer:
        return Consumer(
            self._settings
            | {
                "group.id": group,
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 100,
                "fetch.queue.backoff.ms": 10,  # a full local queue would stop fetching for a whole second
                "fetch.message.max.bytes": 4 << 20,
                "queued.max.messages.kbytes": 16 << 10,
            }
            | more,
        )

    def producer(self, **more: Any) -> Producer:
        return Producer(
            self._settings
            | {
                "enable.idempotence": True,
                "linger.ms": 0,
                "compression.type": "lz4",
                "message.max.bytes": MOST_BYTES,
                "partitioner": "murmur2_random",
                # The first offsets or partitions of a transaction meet the end of the one before.
                "retry.backoff.ms": 2,
                "retry.backoff.max.ms": 10,
            }
            | more,
        )

    def admin(self) -> AdminClient:
        return AdminClient(self._settings)

    @property
    def _settings(self) -> dict[str, Any]:
        given = {name: _secret(name, value) for name, value in self.client.items()}
        return {"bootstrap.servers": self.servers, "logger": _Logger(), "socket.keepalive.enable": True} | given


class _Logger:
    """What librdkafka has to say goes to the house's log."""

    def log(self, level: int, message: str, *args: Any, **_: Any) -> None:
        _log.debug("librdkafka", text=message % args if args else message)


def _secret(name: str, value: str) -> str:
    kind, _, where = value.partition(":")
    try:
        if kind == "env":
            return os.environ[where]
        if kind == "file":
            return Path(where).read_text().strip()
    except (KeyError, OSError) as error:
        raise SettingsError(
            f"bus.client: {name} refers to {value}, which cannot be read: {error}",
            hint="set the variable, or make the file readable",
        ) from error
    return value


def code_of(error: KafkaException) -> KafkaError:
    return error.args[0]  # type: ignore[no-any-return]


def explained(error: KafkaException, doing: str, servers: str) -> MendstreamError:
    """The house's own error for one of librdkafka's."""
    found = code_of(error)
    if found.code() in _FENCED:
        return Fenced(f"{doing}: another owner has taken over")
    if found.code() in _REFUSED:
        return CouldNot(
            f"{doing}: {_REFUSED[found.code()]} ({found.str()})",
            hint="look at bus.client, and at the broker's ACLs; `mendstream doctor` asks for each right",
        )
    if found.code() in _AWAY or found.retriable():
        return NoAnswer(
            f"{doing}: the broker at {servers} does not answer ({found.str()})",
            hint="is it running, and is bus.bootstrap_servers right? `mendstream doctor` looks closer",
        )
    return CouldNot(f"{doing}: {found.name()}: {found.str()}", hint="`mendstream doctor` looks closer")
