"""A Kafka cluster in, signs out: is it there, does it have our topics, may we do what we must, is its clock ours?"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AclOperation, AdminClient, ConfigResource, NewTopic, ResourceType  # type: ignore[attr-defined] # it exports them all the same

from mendstream.adapters.bus.kafka import topics
from mendstream.adapters.bus.kafka.client import ANSWER_S, Cluster, code_of, explained
from mendstream.adapters.sources.kafka import read_from
from mendstream.cli.work.findings import Sign
from mendstream.contracts.errors import CouldNot
from mendstream.runtime.roster import tasks_by_agent
from mendstream.settings import Settings

_MOST_SKEW_S = 1.0
_REFUSED_SKEW_S = 3600.0
"""A broker refuses what is stamped further in its future (message.timestamp.after.max.ms)."""
_AGAIN_S = 0.2
_NO_COORDINATOR = (
    KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.COORDINATOR_LOAD_IN_PROGRESS
)  # fmt: skip
_NEEDED = (AclOperation.READ, AclOperation.WRITE, AclOperation.DESCRIBE, AclOperation.DESCRIBE_CONFIGS)


def bus_signs(cluster: Cluster, partitions: int) -> Iterator[Sign]:
    """Raises MendstreamError where there is no broker to ask."""
    _answers(cluster)
    admin = cluster.admin()
    yield _broker(cluster, admin)
    tasks = tasks_by_agent(partitions)
    names = [topic.name for topic in topics.wanted(cluster, partitions, tasks)]
    yield from _rights(cluster, admin, names, list(tasks))
    yield from _topics(topics.check(cluster, partitions, tasks), len(names))
    yield _clock(cluster, admin)


def source_sign(settings: Settings, source: str) -> Sign:
    """Whether the topics of a Kafka source are there."""
    bus = settings.bus
    cluster, names = read_from(source, bus.bootstrap_servers, bus.client, settings.ingestion.client)
    try:
        known = cluster.admin().list_topics(timeout=ANSWER_S).topics
    except KafkaException as error:
        raise explained(error, "looking for the source's topics", cluster) from error
    missing = [name for name in names if name not in known]
    if missing:
        make = f"kafka-topics.sh --bootstrap-server {cluster.servers} --create --topic {missing[0]}"
        return Sign("source", "fail", f"there is no topic {', '.join(missing)}", make)
    return Sign("source", "ok", ", ".join(f"{name}: {len(known[name].partitions)} partitions" for name in names))


def _answers(cluster: Cluster) -> None:
    """A client that is not let in only sees that nothing answers; why, librdkafka tells beside."""
    client = cluster.consumer(cluster.group("doctor"))
    try:
        client.list_topics(timeout=ANSWER_S)
    except KafkaException as error:
        client.poll(0)
        raise explained(error, "asking who is there", cluster) from error
    finally:
        client.close()


def _broker(cluster: Cluster, admin: AdminClient) -> Sign:
    try:
        found = admin.describe_cluster(request_timeout=ANSWER_S).result()
    except KafkaException as error:
        if code_of(error).code() == KafkaError._UNSUPPORTED_FEATURE:
            return Sign("broker", "fail", "older than Kafka 2.8", "use a newer one: 4.3 is what the tests use")
        raise explained(error, "asking the cluster who it is", cluster) from error
    size = len(found.nodes)
    told = f"{cluster.servers}: {size} broker{'' if size == 1 else 's'}, {_groups(admin, found.nodes[0].id)}"
    if 0 < size < max(cluster.replication, cluster.min_insync_replicas):
        wanted = "bus.replication" if cluster.replication > size else "bus.min_insync_replicas"
        return Sign("broker", "fail", f"{told}: fewer than {wanted} asks for", f"--set {wanted}={size}")
    return Sign("broker", "ok", told)


def _groups(admin: AdminClient, broker: int) -> str:
    """Which group protocols it speaks: brokers do not tell their version, and from 4.0 on there is `consumer`."""
    asked = ConfigResource(ResourceType.BROKER, str(broker))
    try:
        found = admin.describe_configs([asked], request_timeout=ANSWER_S)[asked].result()
    except KafkaException as error:
        return f"its settings may not be read ({code_of(error).name()})"
    entry = found.get("group.coordinator.rebalance.protocols")
    return f"group protocols {entry.value}" if entry else "group protocol classic (older than 3.7)"


def _topics(wrong: Sequence[topics.Wrong], known: int) -> Iterator[Sign]:
    missing = [w for w in wrong if w.problem == "is missing"]
    if missing:
        yield Sign("topics", "warn", f"{len(missing)} of {known} are missing: the first run makes them, if it may",
                   "mendstream topics create")  # fmt: skip
    elif not wrong:
        yield Sign("topics", "ok", f"all {known} are as they should be")
    for one in wrong:
        if one not in missing:
            grave = " partition" in one.problem or "cleanup.policy" in one.problem
            yield Sign("topics", "fail" if grave else "warn", f"{one.topic} {one.problem}", one.fix)


def _rights(cluster: Cluster, admin: AdminClient, names: Sequence[str], agents: Sequence[str]) -> Iterator[Sign]:
    lacking = [*_topic_rights(cluster, admin, names), *_group_rights(cluster, admin, agents)]
    refused = _transactional_id(cluster)
    if refused is not None:
        lacking.append(refused)
    yield from lacking
    if not lacking:
        yield Sign("rights", "ok", "read and write the topics, groups, transactional ids")


def _topic_rights(cluster: Cluster, admin: AdminClient, names: Sequence[str]) -> Iterator[Sign]:
    """A topic that may not be described looks like one that is missing, until it is asked for by name."""
    asked = admin.describe_topics(
        TopicCollection(list(names)), include_authorized_operations=True, request_timeout=ANSWER_S
    )  # fmt: skip
    short: dict[str, list[str]] = {}
    for name, future in asked.items():
        try:
            may = future.result().authorized_operations
        except KafkaException as error:
            if code_of(error).code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                continue
            if code_of(error).code() != KafkaError.TOPIC_AUTHORIZATION_FAILED:
                raise explained(error, f"asking for the rights to {name}", cluster) from error
            may = []
        lacking = [op.name.title().replace("_", "") for op in _NEEDED if may is not None and op not in may]
        if lacking:
            short[name] = lacking
    if short:
        operations = sorted({name for names in short.values() for name in names})
        what = f"{' and '.join(operations)} refused for {', '.join(short)}"
        yield Sign("rights", "fail", what, _acl(cluster, operations, "--topic"))


def _group_rights(cluster: Cluster, admin: AdminClient, agents: Sequence[str]) -> Iterator[Sign]:
    groups = dict.fromkeys(cluster.group(agent) for agent in agents)
    refused = [name for name in groups if not _may_read(cluster, admin, name)]
    if refused:
        yield Sign("rights", "fail", f"Read refused for the groups {', '.join(refused)}",
                   _acl(cluster, ["Read"], "--group"))  # fmt: skip


def _may_read(cluster: Cluster, admin: AdminClient, group: str) -> bool:
    """A cluster whose first group this is has no coordinator for it at once."""
    deadline = time.monotonic() + ANSWER_S
    while True:
        asked = admin.describe_consumer_groups(
            [group], include_authorized_operations=True, request_timeout=ANSWER_S
        )  # fmt: skip
        try:
            may = asked[group].result().authorized_operations
        except KafkaException as error:
            code = code_of(error).code()
            if code in _NO_COORDINATOR and time.monotonic() < deadline:
                time.sleep(_AGAIN_S)
                continue
            if code == KafkaError.GROUP_AUTHORIZATION_FAILED:
                return False
            if code == KafkaError.GROUP_ID_NOT_FOUND:  # nobody has run yet, and so there is nothing to ask about
                return True
            raise explained(error, f"asking for the rights to group {group}", cluster) from error
        return may is None or AclOperation.READ in may


def _transactional_id(cluster: Cluster) -> Sign | None:
    """Only trying tells; under a name that no task has, so that nobody is fenced."""
    producer = cluster.producer(**{"transactional.id": cluster.topic("doctor")})
    try:
        producer.init_transactions(ANSWER_S)
    except KafkaException as error:
        if code_of(error).code() != KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
            raise explained(error, "beginning a transaction", cluster) from error
        return Sign("rights", "fail", "transactions are refused", _acl(cluster, ["Write"], "--transactional-id"))
    return None


def _acl(cluster: Cluster, operations: Sequence[str], resource: str) -> str:
    user = cluster.client.get("sasl.username", "NAME")
    where = f"{cluster.namespace}. --resource-pattern-type prefixed" if cluster.namespace else "'*'"
    allowed = " ".join(f"--operation {name}" for name in operations)
    return (
        f"kafka-acls.sh --bootstrap-server {cluster.servers} --add --allow-principal User:{user} {allowed} "
        f"{resource} {where}"
    )


def _clock(cluster: Cluster, admin: AdminClient) -> Sign:
    """By the stamp that the broker puts on a record, in a topic that is made for it and taken away."""
    name = cluster.topic(f"doctor-{uuid.uuid4().hex[:8]}")
    try:
        made = NewTopic(name, 1, config={"message.timestamp.type": "LogAppendTime"})
        admin.create_topics([made], request_timeout=ANSWER_S, operation_timeout=ANSWER_S)[name].result()
    except KafkaException as error:
        return Sign("clock", "warn", f"not compared: no topic could be made for it ({code_of(error).name()})",
                    "compare by hand: timedatectl status, here and on the brokers")  # fmt: skip
    try:
        skew, known = _skew(cluster, name)
    finally:
        admin.delete_topics([name], request_timeout=ANSWER_S)[name].result()
    told = f"the broker's is {abs(skew):.3f} s {'ahead' if skew > 0 else 'behind'}, known to {known:.3f} s"
    if abs(skew) - known > _REFUSED_SKEW_S:
        return Sign("clock", "fail", told + ": it refuses records of another hour", "timedatectl set-ntp true")
    return Sign("clock", "warn" if abs(skew) - known > _MOST_SKEW_S else "ok", told,
                "timedatectl set-ntp true" if abs(skew) - known > _MOST_SKEW_S else "")  # fmt: skip


def _skew(cluster: Cluster, topic: str) -> tuple[float, float]:
    """(seconds that the broker's clock is ahead, give or take so many)"""
    producer = cluster.producer()
    stamps: list[int] = []
    failures: list[KafkaError] = []

    def delivered(error: KafkaError | None, message: object) -> None:
        if error is not None:
            failures.append(error)
        else:
            stamps.append(message.timestamp()[1])  # type: ignore[attr-defined]

    for _ in range(2):  # the first one finds its way to the leader, and takes longer
        begun = time.time()
        producer.produce(topic, b"", on_delivery=delivered)
        producer.flush(ANSWER_S)
        ended = time.time()
    if failures or not stamps:
        why = failures[0].str() if failures else f"no answer within {ANSWER_S:.0f} s"
        raise CouldNot(f"writing to {topic}: {why}", hint="look at the broker's log")
    return stamps[-1] / 1000 - (begun + ended) / 2, (ended - begun) / 2 + 0.001
