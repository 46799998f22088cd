"""The topics of a house on a broker: made from the one table, and checked against it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType  # type: ignore[attr-defined] # it exports them all the same

from mendstream.adapters.bus.kafka.client import ANSWER_S, MOST_BYTES, Cluster, code_of, explained, not_let_in
from mendstream.contracts.errors import CouldNot
from mendstream.contracts.topics import TOPICS, Spread, TopicSpec, streams_of

_AGAIN_S = 0.02
_LOOK_S = 1.0
"""How soon after a question it is looked whether we are let in at all."""
_NONE: Mapping[str, int] = {}


@dataclass(frozen=True, slots=True)
class Wanted:
    """A topic as it should be."""

    name: str
    partitions: int
    config: dict[str, str]
    spread: bool = False
    """Whether `run.partitions` says how many partitions it has."""
    more: bool = False
    """Whether it may have more."""


@dataclass(frozen=True, slots=True)
class Wrong:
    """What is not as it should be, and the command that mends it."""

    topic: str
    problem: str
    fix: str


def wanted(cluster: Cluster, partitions: int, tasks: Mapping[str, int] = _NONE) -> Iterator[Wanted]:
    """All topics of the table, where data topics have `partitions`, and where the tasks of agents keep their state."""
    for spec in TOPICS:
        yield Wanted(
            cluster.topic(spec.topic), len(streams_of(spec.topic, partitions)), _config(spec, cluster),
            spread=spec.spread is Spread.DATA,
        )  # fmt: skip
    for agent, count in tasks.items():
        yield _state(cluster, agent, count)


def _config(spec: TopicSpec, cluster: Cluster) -> dict[str, str]:
    return {
        "cleanup.policy": "delete",
        "retention.ms": str(spec.retention_s * 1000 if spec.retention_s else -1),
        "retention.bytes": str(spec.retention_bytes or -1),
        "max.message.bytes": str(MOST_BYTES),
        "min.insync.replicas": str(cluster.min_insync_replicas),
    }


def make(cluster: Cluster, partitions: int) -> list[str]:
    """Make the topics that are missing; returns their names. Raises CouldNot if others are not as they should be."""
    missing = make_missing(cluster, partitions)
    wrong = [w for w in check(cluster, partitions) if w.topic not in missing]
    grave = [w for w in wrong if " partition" in w.problem]
    if grave:
        raise CouldNot(f"topic {grave[0].topic} {grave[0].problem}", hint=grave[0].fix)
    return missing


def make_missing(cluster: Cluster, partitions: int, tasks: Mapping[str, int] = _NONE) -> list[str]:
    """Make the topics that are missing; returns their names."""
    admin = cluster.admin()
    there = _there(cluster, admin)
    missing = [topic for topic in wanted(cluster, partitions, tasks) if topic.name not in there]
    _create(cluster, admin, missing)
    return [topic.name for topic in missing]


def check(cluster: Cluster, partitions: int, tasks: Mapping[str, int] = _NONE) -> list[Wrong]:
    """What of the topics is missing or not as it should be."""
    admin = cluster.admin()
    there, found = _there(cluster, admin), []
    topics = list(wanted(cluster, partitions, tasks))
    for topic in topics:
        count = there.get(topic.name)
        if count is None:
            found.append(Wrong(topic.name, "is missing", "mendstream topics create"))
        elif count < topic.partitions or (count > topic.partitions and not topic.more):
            fix = _count_fix(cluster, topic, count)
            found.append(
                Wrong(
                    topic.name,
                    f"has {count} {'partition' if count == 1 else 'partitions'}, not {topic.partitions}",
                    fix,
                )
            )
    found += _config_wrong(cluster, admin, [topic for topic in topics if topic.name in there])
    return found


def _count_fix(cluster: Cluster, topic: Wanted, count: int) -> str:
    """The data topics may have as many partitions as they like, all the same; the others have theirs from the table."""
    tool = f"kafka-topics.sh --bootstrap-server {cluster.servers}"
    fixes = []
    if count < topic.partitions:
        fixes.append(f"{tool} --alter --topic {topic.name} --partitions {topic.partitions}")
    if topic.spread:
        fixes.append(f"mendstream run --partitions {count}")
    if not fixes:
        fixes.append(f"{tool} --delete --topic {topic.name} && mendstream topics create (its records are lost)")
    return ", or ".join(fixes)


def _config_wrong(cluster: Cluster, admin: AdminClient, topics: Sequence[Wanted]) -> Iterator[Wrong]:
    asked = {ConfigResource(ResourceType.TOPIC, topic.name): topic for topic in topics}
    if not asked:
        return
    for resource, future in admin.describe_configs(list(asked), request_timeout=ANSWER_S).items():
        topic = asked[resource]
        try:
            has = {name: entry.value for name, entry in future.result().items()}
        except KafkaException as error:
            raise explained(error, f"asking for the settings of {topic.name}", cluster) from error
        wrong = {name: value for name, value in topic.config.items() if has.get(name) != value}
        if wrong:
            told = ", ".join(f"{name} is {has.get(name)}, not {value}" for name, value in wrong.items())
            changes = ",".join(f"{name}={value}" for name, value in wrong.items())
            yield Wrong(
                topic.name, told,
                f"kafka-configs.sh --bootstrap-server {cluster.servers} --alter --entity-type topics "
                f"--entity-name {topic.name} --add-config {changes}",
            )  # fmt: skip


def _there(cluster: Cluster, admin: AdminClient) -> dict[str, int]:
    """topic -> partitions. Raises NoAnswer, and CouldNot as soon as it is told that we are not let in."""
    doing, deadline = "listing the topics", time.monotonic() + ANSWER_S
    while True:
        try:
            topics = admin.list_topics(timeout=_LOOK_S).topics
            break
        except KafkaException as error:
            admin.poll(0)
            refused = not_let_in(cluster, doing)
            if refused is not None or time.monotonic() > deadline:
                raise refused or explained(error, doing, cluster) from error
    return {name: len(topic.partitions) for name, topic in topics.items() if topic.error is None}


def delete(cluster: Cluster) -> None:
    """All topics of this namespace, for a house that nobody needs any more. Raises NoAnswer."""
    admin = cluster.admin()
    mine = [name for name in _there(cluster, admin) if cluster.namespace and name.startswith(f"{cluster.namespace}.")]
    for name, future in (admin.delete_topics(mine, operation_timeout=ANSWER_S) if mine else {}).items():
        try:
            future.result()
        except KafkaException as error:
            if code_of(error).code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise explained(error, f"deleting topic {name}", cluster) from error


def make_state_topics(cluster: Cluster, admin: AdminClient, agents: Iterable[str], partitions: int) -> None:
    """Only what is missing: who may write to them need not have the right to make topics."""
    there = _there(cluster, admin)
    topics = [_state(cluster, agent, partitions) for agent in agents]
    _create(cluster, admin, [topic for topic in topics if topic.name not in there])


def _state(cluster: Cluster, agent: str, partitions: int) -> Wanted:
    """Where the tasks of `agent` keep their state: compacted, so that the newest of each key stays."""
    config = {
        "cleanup.policy": "compact",
        "max.message.bytes": str(MOST_BYTES),
        "min.insync.replicas": str(cluster.min_insync_replicas),
        "segment.bytes": str(64 << 20),
    }
    return Wanted(cluster.state_topic(agent), partitions, config, more=True)


def _create(cluster: Cluster, admin: AdminClient, topics: Sequence[Wanted]) -> None:
    if not topics:
        return
    new = [
        NewTopic(topic.name, topic.partitions, replication_factor=cluster.replication, config=topic.config)
        for topic in topics
    ]
    for name, future in admin.create_topics(new, request_timeout=ANSWER_S, operation_timeout=ANSWER_S).items():
        try:
            future.result()
        except KafkaException as error:
            if code_of(error).code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise explained(error, f"making topic {name}", cluster) from error
    names, deadline = {topic.name for topic in topics}, time.monotonic() + ANSWER_S
    while not names <= _there(cluster, admin).keys() and time.monotonic() < deadline:
        time.sleep(_AGAIN_S)  # what was made is not known to every broker at once
