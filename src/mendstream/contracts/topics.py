"""Every topic in one table: codec, key, partitions, retention, who writes, who reads.

The topic script, the docs and the codecs are made from this table, and no agent spells a topic's settings again.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

HOUR_S = 3600
DAY_S = 24 * HOUR_S
MIB = 1 << 20


class Topic(StrEnum):
    RAW_EVENTS = "raw-events"
    FEATURES = "features"
    PREDICTIONS = "predictions"
    DECISIONS = "decisions"
    AGENT_METRICS = "agent-metrics"
    FEEDBACK = "feedback"
    VITALS = "vitals"
    ALERTS = "alerts"
    POLICY_REQUESTS = "policy-requests"
    POLICY_DECISIONS = "policy-decisions"
    CONFIG_UPDATES = "config-updates"
    INCIDENT_LOG = "incident-log"
    COMMANDS = "commands"
    COMMAND_RESULTS = "command-results"
    DEAD_LETTERS = "dead-letters"
    # Not on the bus: what an ingestion task reads from outside. Its positions are the source's own.
    SOURCE = "source"


class Codec(StrEnum):
    FRAME = "frame"  # one Arrow record batch a message
    JSON = "json"  # one JSON record a message


class Wing(StrEnum):
    """Which of the two environments of an embedded log a partition lives in; each process writes one."""

    DATA = "data"
    CONTROL = "control"


class Spread(StrEnum):
    DATA = "data"  # `partitions` partitions, all in the data environment
    ONE = "one"  # one partition, in the control environment
    WINGS = "wings"  # two partitions: 0 written by the data wing, 1 by the control wing


class Stream(NamedTuple):
    """One partition of one topic."""

    topic: Topic
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}"


SOURCE_PARTS = 1 << 18
"""The most parts of one source."""


def source_place(identity: str) -> int:
    """Under which partition of `Topic.SOURCE` the position in part 0 of a source is kept, part n's n further on.

    So another source begins at its own beginning, and one that comes back goes on where it was left.
    """
    return zlib.crc32(identity.encode()) * SOURCE_PARTS


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicSpec:
    topic: Topic
    codec: Codec
    spread: Spread
    key: str
    retention_s: int
    """Age limit in seconds; 0: kept for ever."""
    retention_bytes: int
    """Size limit of one partition; 0: no limit. A pipeline stage's unread records are never trimmed."""
    writers: tuple[str, ...]
    readers: tuple[str, ...]
    purpose: str
    brief: bool = True
    """Whether the topic is one of the original request's eleven."""


TOPICS: tuple[TopicSpec, ...] = (
    TopicSpec(
        topic=Topic.RAW_EVENTS, codec=Codec.FRAME, spread=Spread.DATA, key="key",
        retention_s=6 * HOUR_S, retention_bytes=256 * MIB,
        writers=("ingestion",), readers=("feature",), purpose="Ingested events",
    ),
    TopicSpec(
        topic=Topic.FEATURES, codec=Codec.FRAME, spread=Spread.DATA, key="key",
        retention_s=6 * HOUR_S, retention_bytes=256 * MIB,
        writers=("feature",), readers=("model", "trainer"), purpose="Feature vectors",
    ),
    TopicSpec(
        topic=Topic.PREDICTIONS, codec=Codec.FRAME, spread=Spread.DATA, key="key",
        retention_s=6 * HOUR_S, retention_bytes=256 * MIB,
        writers=("model",), readers=("decision", "joiner"), purpose="Model outputs",
    ),
    TopicSpec(
        topic=Topic.DECISIONS, codec=Codec.JSON, spread=Spread.DATA, key="key",
        retention_s=6 * HOUR_S, retention_bytes=512 * MIB,
        writers=("decision",), readers=("users",), purpose="Final decisions, one record per event",
    ),
    TopicSpec(
        topic=Topic.AGENT_METRICS, codec=Codec.JSON, spread=Spread.WINGS, key="process",
        retention_s=HOUR_S, retention_bytes=64 * MIB,
        writers=("every process", "supervisor"), readers=("judge", "console"),
        purpose="Heartbeats: pulses, counts, and exits seen by the supervisor",
    ),
    TopicSpec(
        topic=Topic.FEEDBACK, codec=Codec.JSON, spread=Spread.DATA, key="key",
        retention_s=6 * HOUR_S, retention_bytes=128 * MIB,
        writers=("ingestion",), readers=("joiner", "trainer"), purpose="Ground truth by event id",
    ),
    TopicSpec(
        topic=Topic.VITALS, codec=Codec.JSON, spread=Spread.ONE, key="pane",
        retention_s=HOUR_S, retention_bytes=128 * MIB,
        writers=("judge",), readers=("healing", "policy", "console"),
        purpose="What each task served in a pane, with sample sizes", brief=False,
    ),
    TopicSpec(
        topic=Topic.ALERTS, codec=Codec.JSON, spread=Spread.ONE, key="alert_id",
        retention_s=30 * DAY_S, retention_bytes=64 * MIB,
        writers=("judge",), readers=("healing", "policy"), purpose="Anomalies, FIRING and RESOLVED",
    ),
    TopicSpec(
        topic=Topic.POLICY_REQUESTS, codec=Codec.JSON, spread=Spread.ONE, key="incident_id",
        retention_s=90 * DAY_S, retention_bytes=64 * MIB,
        writers=("healing",), readers=("policy",), purpose="Healing proposals",
    ),
    TopicSpec(
        topic=Topic.POLICY_DECISIONS, codec=Codec.JSON, spread=Spread.ONE, key="incident_id",
        retention_s=90 * DAY_S, retention_bytes=64 * MIB,
        writers=("policy", "people"), readers=("healing",), purpose="Verdicts of the AGL and of people",
    ),
    TopicSpec(
        topic=Topic.CONFIG_UPDATES, codec=Codec.JSON, spread=Spread.ONE, key="version",
        retention_s=0, retention_bytes=0,
        writers=("healing", "operators"), readers=("every agent",),
        purpose="Config changes; never compacted: the history of what was live when",
    ),
    TopicSpec(
        topic=Topic.INCIDENT_LOG, codec=Codec.JSON, spread=Spread.ONE, key="incident_id",
        retention_s=0, retention_bytes=0,
        writers=("healing",), readers=("policy", "recorder", "console"),
        purpose="Every step of every incident, hash-chained",
    ),
    TopicSpec(
        topic=Topic.COMMANDS, codec=Codec.JSON, spread=Spread.ONE, key="action_id",
        retention_s=90 * DAY_S, retention_bytes=64 * MIB,
        writers=("healing",), readers=("supervisor", "trainer"),
        purpose="Orders to exactly one addressee", brief=False,
    ),
    TopicSpec(
        topic=Topic.COMMAND_RESULTS, codec=Codec.JSON, spread=Spread.ONE, key="action_id",
        retention_s=90 * DAY_S, retention_bytes=64 * MIB,
        writers=("supervisor", "trainer"), readers=("healing", "policy"),
        purpose="What became of each order", brief=False,
    ),
    TopicSpec(
        topic=Topic.DEAD_LETTERS, codec=Codec.JSON, spread=Spread.WINGS, key="topic",
        retention_s=30 * DAY_S, retention_bytes=256 * MIB,
        writers=("every agent",), readers=("operators",),
        purpose="Records that could not be used, with their bytes and the reason", brief=False,
    ),
)  # fmt: skip

SPECS: dict[Topic, TopicSpec] = {spec.topic: spec for spec in TOPICS}


def wing_of(stream: Stream) -> Wing:
    """The environment that `stream` lives in."""
    match SPECS[stream.topic].spread:
        case Spread.DATA:
            return Wing.DATA
        case Spread.ONE:
            return Wing.CONTROL
        case Spread.WINGS:
            return Wing.DATA if stream.partition == 0 else Wing.CONTROL


def streams_of(topic: Topic, partitions: int) -> tuple[Stream, ...]:
    """All partitions of `topic` where data topics have `partitions`."""
    count = {Spread.DATA: partitions, Spread.ONE: 1, Spread.WINGS: 2}[SPECS[topic].spread]
    return tuple(Stream(topic, p) for p in range(count))


CONFIG = Stream(Topic.CONFIG_UPDATES, 0)
"""Read by everybody."""
