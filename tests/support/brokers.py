"""What an operator does to topics behind the house's back."""

from __future__ import annotations

import time

from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, ResourceType

WITHIN_S = 20.0


class Operator:
    """With Kafka's own client, and no part of ours."""

    def __init__(self, servers: str) -> None:
        self._admin = AdminClient({"bootstrap.servers": servers})

    def set(self, topic: str, **config: object) -> None:
        """`config`: with _ for each dot."""
        entries = [
            ConfigEntry(name.replace("_", "."), str(value), incremental_operation=AlterConfigOpType.SET)
            for name, value in config.items()
        ]
        asked = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
        self._admin.incremental_alter_configs([asked])[asked].result(WITHIN_S)
        named = ConfigResource(ResourceType.TOPIC, topic)
        deadline = time.monotonic() + WITHIN_S
        while any(self._has(named)[entry.name].value != entry.value for entry in entries):
            assert time.monotonic() < deadline, f"{topic} is not set to {config}"

    def _has(self, resource: ConfigResource) -> dict[str, ConfigEntry]:
        found: dict[str, ConfigEntry] = self._admin.describe_configs([resource])[resource].result(WITHIN_S)
        return found

    def trim(self, topic: str, offset: int, partition: int = 0) -> int:
        """Delete what lies before `offset` (-1: everything), as retention does; returns the first that is left."""
        place = TopicPartition(topic, partition, offset)
        (trimmed,) = self._admin.delete_records([place]).values()
        return int(trimmed.result(WITHIN_S).low_watermark)

    def delete(self, topic: str) -> None:
        self._admin.delete_topics([topic], operation_timeout=WITHIN_S)[topic].result(WITHIN_S)

    def make(self, topic: str, partitions: int = 1) -> None:
        self._admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result(WITHIN_S)
