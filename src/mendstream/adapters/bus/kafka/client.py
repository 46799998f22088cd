"""What every client of a broker is made with: addresses, names, and the settings that librdkafka gets."""

from __future__ import annotations

import contextlib
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
SOON_S = 3.0
"""The same where a sign of life waits for it: the supervisor takes a process for silent after 5 s."""
MOST_BYTES = 16 << 20
"""Of one message: a snapshot of a large state is one."""
_MEET_S = 1.0
FUSIBLE = frozenset({"ingestion", "feature", "model", "decision"})
"""The stages of the pipeline, which may run in one process."""
_FENCED = frozenset(
    # What is fatal to a producer in a transaction is first of all that another has its name.
    {KafkaError._FENCED, KafkaError._FATAL, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED}
)
_AWAY = frozenset(
    {
        KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE, KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.REQUEST_TIMED_OUT, KafkaError.NETWORK_EXCEPTION, KafkaError.KAFKA_STORAGE_ERROR,
        KafkaError.FENCED_LEADER_EPOCH, KafkaError.UNKNOWN_LEADER_EPOCH, KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.CONCURRENT_TRANSACTIONS, KafkaError.UNSTABLE_OFFSET_COMMIT,
        KafkaError.NOT_ENOUGH_REPLICAS, KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    }
)  # fmt: skip
"""What a broker says that has just come, or is about to go. `retriable` tells nothing of it outside a transaction."""
_REFUSED = {
    KafkaError._AUTHENTICATION: "the broker does not accept these credentials",
    KafkaError.SASL_AUTHENTICATION_FAILED: "the broker does not accept these credentials",
    KafkaError._SSL: "TLS with the broker failed",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "no right to this topic",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "no right to this consumer group",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "no right to this transactional id",
}
_TOO_LARGE = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE})
_MISSING = frozenset({KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION, KafkaError.UNKNOWN_TOPIC_OR_PART})
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
        """The consumer group whose offsets show how far the tasks of `agent` are.

        The stages have one together, so that a fused turn has one to tell: no two of them read the same topic.
        """
        return f"{self.namespace or 'mendstream'}.{'pipeline' if agent in FUSIBLE else agent}"

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
        own = {
            "bootstrap.servers": self.servers,
            "logger": _Logger(),
            "socket.keepalive.enable": True,
            # Half of it is also what every new client waits between its first connection and its second.
            "reconnect.backoff.ms": 20,
            "reconnect.backoff.max.ms": 1000,
        }
        return own | given


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


def meet(client: Consumer | Producer, topic: str, *, times: int = 1) -> None:
    """Ask who leads `topic`, where librdkafka would find that out later: a second for a consumer that is assigned what
    it does not know, half a second for a producer that has no connection when it asks for its id. A new client's first
    answer comes over a connection that it then drops, the second over the one that it keeps.
    """
    with contextlib.suppress(KafkaException):  # then it is found out later
        for _ in range(times):
            client.list_topics(topic, timeout=_MEET_S)


def code_of(error: KafkaException) -> KafkaError:
    return error.args[0]  # type: ignore[no-any-return]


def lasting(error: KafkaException) -> bool:
    """Whether it would be the same once more."""
    return code_of(error).code() in _TOO_LARGE | _REFUSED.keys()


def cause_of(error: KafkaException | SystemError) -> KafkaException:
    """librdkafka's own error. A fatal one is told in the midst of the reports of delivery: the next report then seems
    to Python to have returned a value with an error set.
    """
    if isinstance(error, KafkaException):
        return error
    if isinstance(error.__cause__, KafkaException):
        return error.__cause__
    raise error


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
    if found.code() in _TOO_LARGE:
        return CouldNot(
            f"{doing}: the broker takes no message of this size ({found.str()})",
            hint=f"set max.message.bytes = {MOST_BYTES} on the topic; `mendstream topics check` names the command",
        )
    if found.code() in _MISSING:  # as it also looks for a while after a broker has come back
        return NoAnswer(
            f"{doing}: the broker at {servers} has no such topic or partition ({found.str()})",
            hint="`mendstream topics create` makes what is missing, `mendstream topics check` names what is wrong",
        )
    # What librdkafka says of itself, with a number below 0, is about connections that come and go.
    if found.code() in _AWAY or found.code() < 0 or found.retriable():
        return NoAnswer(
            f"{doing}: the broker at {servers} does not answer ({found.str()})",
            hint="is it running, and is bus.bootstrap_servers right? `mendstream doctor` looks closer",
        )
    return CouldNot(f"{doing}: {found.name()}: {found.str()}", hint="`mendstream doctor` looks closer")
