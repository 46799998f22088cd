"""What every client of a broker is made with: addresses, names, and the settings that librdkafka gets."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from mendstream.contracts.agent import STAGES
from mendstream.contracts.errors import CouldNot, Fenced, MendstreamError, NoAnswer, SettingsError, TooLarge
from mendstream.contracts.topics import Topic
from mendstream.settings.secret import STARS, referred

ANSWER_S = 10.0
"""How long a broker may take to answer one question."""
SOON_S = 3.0
"""The same where a sign of life waits for it: the supervisor takes a process for silent after 5 s."""
MOST_BYTES = 16 << 20
"""Of one message: a snapshot of a large state is one."""
_MEET_S = 1.0
_REFUSED_FOR_S = 10.0
"""For so long a refusal is taken for the reason why nothing answers: it is told again at every new connection."""
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
_CREDENTIALS = (
    "the broker does not accept these credentials",
    "mend sasl.mechanism, sasl.username or sasl.password of bus.client, or the user on the broker",
)
_NOT_LET_IN = {
    KafkaError._AUTHENTICATION: _CREDENTIALS,
    KafkaError.SASL_AUTHENTICATION_FAILED: _CREDENTIALS,
    KafkaError._SSL: (
        "no TLS connection can be made",
        "ssl.ca.location of bus.client must name who signed the broker's certificate, and bus.bootstrap_servers a "
        "host that stands in it",
    ),
}
"""Mostly told beside the calls, of which each only sees that nothing answers."""
_REFUSED = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "no right to this topic",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "no right to this consumer group",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "no right to this transactional id",
}
_TOO_LARGE = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE})
_MISSING = frozenset({KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION, KafkaError.UNKNOWN_TOPIC_OR_PART})
_Client = TypeVar("_Client", Consumer, Producer, AdminClient)
_log = structlog.get_logger("bus")


class _Beside:
    """What librdkafka tells beside the calls: why it is not let in."""

    def __init__(self) -> None:
        self._refusal: KafkaError | None = None
        self._at = 0.0

    def told(self, error: KafkaError) -> None:
        if error.code() in _NOT_LET_IN:
            self._refusal, self._at = error, time.monotonic()

    @property
    def refusal(self) -> KafkaError | None:
        return self._refusal if time.monotonic() - self._at < _REFUSED_FOR_S else None


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
    beside: _Beside = field(default_factory=_Beside, repr=False, compare=False)

    def topic(self, topic: Topic | str) -> str:
        return f"{self.namespace}.{topic}" if self.namespace else str(topic)

    def state_topic(self, agent: str) -> str:
        """Where the tasks of `agent` keep their state."""
        return self.topic(f"{agent}-state")

    def group(self, agent: str) -> str:
        """The consumer group whose offsets show how far the tasks of `agent` are.

        The stages have one together, so that a fused turn has one to tell: no two of them read the same topic.
        """
        return f"{self.namespace or 'mendstream'}.{'pipeline' if agent in STAGES else agent}"

    def consumer(self, group: str, **more: Any) -> Consumer:
        return self._made(
            Consumer,
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
        return self._made(
            Producer,
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
        return self._made(AdminClient, self._settings)

    def _made(self, kind: Callable[[dict[str, Any]], _Client], settings: dict[str, Any]) -> _Client:
        try:
            return kind(settings)
        except KafkaException as error:
            said = code_of(error).str()
            for name, value in self.client.items():
                if settings[name] != value:  # it was a reference
                    said = said.replace(settings[name], STARS)
            raise SettingsError(
                f"bus.client: {said}", hint="its settings are those of librdkafka: see its CONFIGURATION.md"
            ) from None  # what it was raised from shows the secret

    @property
    def _settings(self) -> dict[str, Any]:
        given = {name: referred("bus.client", name, value) for name, value in self.client.items()}
        own = {
            "bootstrap.servers": self.servers,
            "logger": _Logger(),
            "error_cb": self.beside.told,
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


def meet(client: Consumer | Producer, topic: str, *, times: int = 1) -> None:
    """Ask who leads `topic`, where librdkafka would find that out later: a second for a consumer that is assigned what
    it does not know, half a second for a producer that has no connection when it asks for its id. A new client's first
    answer comes over a connection that it then drops, the second over the one that it keeps.
    """
    try:
        for _ in range(times):
            client.list_topics(topic, timeout=_MEET_S)
    except KafkaException:  # then it is found out later
        if isinstance(client, Producer):
            client.poll(0)  # why, it tells beside


def code_of(error: KafkaException) -> KafkaError:
    return error.args[0]  # type: ignore[no-any-return]


def lasting(error: KafkaException) -> bool:
    """Whether it would be the same once more."""
    return code_of(error).code() in _TOO_LARGE | _REFUSED.keys() | _NOT_LET_IN.keys()


def cause_of(error: KafkaException | SystemError) -> KafkaException:
    """librdkafka's own error. A fatal one is told in the midst of the reports of delivery: the next report then seems
    to Python to have returned a value with an error set, or, if it had nothing to call, the error is lost.
    """
    if isinstance(error, KafkaException):
        return error
    if isinstance(error.__cause__, KafkaException):
        return error.__cause__
    if error.__cause__ is None and "without setting an exception" in str(error):
        return KafkaException(KafkaError(KafkaError._FATAL, str(error)))
    raise error


def explained(error: KafkaException, doing: str, cluster: Cluster) -> MendstreamError:
    """The house's own error for one of librdkafka's."""
    found = code_of(error)
    if found.code() in _FENCED:
        return Fenced(f"{doing}: another owner has taken over")
    if found.code() in _NOT_LET_IN:
        return _kept_out(found, doing)
    if found.code() in _REFUSED:
        return CouldNot(
            f"{doing}: {_REFUSED[found.code()]} ({found.str()})",
            hint="look at bus.client, and at the broker's ACLs; `mendstream doctor` asks for each right",
        )
    if found.code() in _TOO_LARGE:
        return TooLarge(
            f"{doing}: the broker takes no message of this size ({found.str()})",
            hint=f"set max.message.bytes = {MOST_BYTES} on the topic; `mendstream topics check` names the command",
        )
    if found.code() in _MISSING:  # as it also looks for a while after a broker has come back
        return NoAnswer(
            f"{doing}: the broker at {cluster.servers} has no such topic or partition ({found.str()})",
            hint="`mendstream topics create` makes what is missing, `mendstream topics check` names what is wrong",
        )
    # What librdkafka says of itself, with a number below 0, is about connections that come and go.
    if found.code() in _AWAY or found.code() < 0 or found.retriable():
        return silent(cluster, doing, f"does not answer ({found.str()})")
    return CouldNot(f"{doing}: {found.name()}: {found.str()}", hint="`mendstream doctor` looks closer")


def silent(cluster: Cluster, doing: str, what: str) -> NoAnswer:
    """For a broker that `what`: does not answer, or not in time. If it does not let us in, that is said instead: who
    runs already may ask again, for it can be mended there.
    """
    refused = not_let_in(cluster, doing)
    if refused is not None:
        return NoAnswer(str(refused), hint=refused.hint)
    return NoAnswer(
        f"{doing}: the broker at {cluster.servers} {what}",
        hint="is it running, and is bus.bootstrap_servers right? `mendstream doctor` looks closer",
    )


def not_let_in(cluster: Cluster, doing: str) -> CouldNot | None:
    """Why we are not let in, if that was told a moment ago: to a client that has been polled since."""
    refusal = cluster.beside.refusal
    return None if refusal is None else _kept_out(refusal, doing)


def _kept_out(refusal: KafkaError, doing: str) -> CouldNot:
    why, hint = _NOT_LET_IN[refusal.code()]
    return CouldNot(f"{doing}: {why} ({refusal.str()})", hint=hint)
