"""For producers in Python: events in, frames on a Kafka topic out, which ingestion takes column by column.

    from mendstream.client import FrameProducer

    with FrameProducer("kafka-1:9092", "orders", event=Order, key="customer") as out:
        out.send({"id": ids, "customer": customers, "amount": amounts})

A house reads them with `ingestion.source = "kafka:orders"` and `ingestion.value_format = "frame"`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from confluent_kafka import KafkaError, KafkaException, Message
from msgspec import inspect

from mendstream.adapters.bus.kafka.client import ANSWER_S, Cluster, explained
from mendstream.adapters.sources.frames import MOST_ROWS, encode
from mendstream.contracts.errors import CouldNot, UsageError
from mendstream.contracts.ids import partitions_of
from mendstream.contracts.pipeline import Event

_MOST_BYTES = 900_000
"""Of one frame: what a broker takes in one message, unless it was told otherwise, is 1 MB."""
_WAITING_S = 0.1


class FrameProducer:
    """Each call of `send` becomes one frame a partition, or more where there are many rows. For one thread."""

    def __init__(
        self,
        servers: str,
        topic: str,
        *,
        event: type[Event],
        key: str = "",
        client: Mapping[str, str] | None = None,
        rows: int = 2000,
    ) -> None:
        """`key`: the field whose rows stay in order, in a partition that murmur2 names; without it partitions take
        turns. `client`: as `bus.client`. `rows`: most in one frame. Raises CouldNot, NoAnswer, UsageError.
        """
        self._cluster = Cluster(servers, client=client or {})
        self._topic = topic
        self._rows = min(rows, MOST_ROWS)
        self._event = event
        self._kinds = _kinds(event)
        if key and key not in self._kinds:
            raise UsageError(f"key = {key!r} is no field of {event.__name__}", hint=f"fields: {', '.join(self._kinds)}")
        self._key = key
        self._failed: KafkaError | None = None
        self._next = 0
        self._producer = self._cluster.producer(**{"linger.ms": 5})
        self._partitions = self._count()

    def send(self, events: Mapping[str, Any] | Sequence[Event]) -> None:
        """Columns by field name (numpy or Arrow arrays, or lists; NaN is a number that is missing), or events.

        Raises UsageError for columns that no event could have, CouldNot once an earlier frame was refused.
        """
        batch = self._batch(events)
        for partition, rows in self._placed(batch):
            for frame in _split(rows, self._rows):
                self._produce(partition, encode(frame))
        self._check()

    def flush(self, timeout_s: float = 30.0) -> None:
        """Until the brokers have all of it. Raises CouldNot if they do not take it."""
        left = self._producer.flush(timeout_s)
        self._check()
        if left:
            raise CouldNot(
                f"the broker at {self._cluster.servers} has not taken {left} frames in {timeout_s:g} s",
                hint="call flush again, or look at the broker",
            )

    def __enter__(self) -> FrameProducer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:  # fmt: skip
        if kind is None:
            self.flush()

    def _batch(self, events: Mapping[str, Any] | Sequence[Event]) -> pa.RecordBatch:
        if not isinstance(events, Mapping):
            rows = list(map(msgspec.structs.astuple, events))
            events = dict(zip(self._event.__struct_fields__, zip(*rows, strict=True), strict=True)) if rows else {}
            if not rows:
                events = dict.fromkeys(self._kinds, ())
        if events.keys() != self._kinds.keys():
            raise UsageError(f"columns {', '.join(events)}", hint=f"fields of the event: {', '.join(self._kinds)}")
        try:
            columns = [_column(events[name], kind) for name, kind in self._kinds.items()]
            return pa.RecordBatch.from_arrays(columns, names=list(self._kinds))
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise UsageError(f"not the columns of {self._event.__name__}: {error}") from error

    def _placed(self, batch: pa.RecordBatch) -> Iterator[tuple[int, pa.RecordBatch]]:
        if not self._key or self._partitions == 1:
            self._next = (self._next + 1) % self._partitions
            yield self._next, batch
            return
        keys = batch.column(self._key).cast(pa.string())
        homes = partitions_of(keys.fill_null(""), self._partitions)
        for partition in np.unique(homes).tolist():
            yield partition, batch.take(pa.array(np.flatnonzero(homes == partition)))

    def _produce(self, partition: int, value: bytes) -> None:
        while True:
            try:
                self._producer.produce(self._topic, value, partition=partition, on_delivery=self._told)
            except BufferError:
                self._producer.poll(_WAITING_S)
            except KafkaException as error:
                raise explained(error, f"sending to {self._topic}", self._cluster) from error
            else:
                self._producer.poll(0)
                return

    def _told(self, error: KafkaError | None, message: Message) -> None:
        self._failed = self._failed or error

    def _check(self) -> None:
        if self._failed is not None:
            raise explained(KafkaException(self._failed), f"sending to {self._topic}", self._cluster)

    def _count(self) -> int:
        try:
            found = self._producer.list_topics(self._topic, timeout=ANSWER_S).topics[self._topic]
        except KafkaException as error:
            raise explained(error, f"looking for topic {self._topic}", self._cluster) from error
        if found.error is not None:
            raise explained(KafkaException(found.error), f"looking for topic {self._topic}", self._cluster)
        return len(found.partitions)


def _kinds(event: type[Event]) -> dict[str, pa.DataType]:
    """Field -> how its column is sent."""
    info = inspect.type_info(event)
    assert isinstance(info, inspect.StructType)
    return {field.encode_name: _kind(event, field) for field in info.fields}


def _kind(event: type[Event], field: inspect.Field) -> pa.DataType:
    kinds = field.type.types if isinstance(field.type, inspect.UnionType) else (field.type,)
    for kind in kinds:
        match kind:
            case inspect.StrType():
                return pa.string()
            case inspect.IntType():
                return pa.int64()
            case inspect.FloatType():
                return pa.float64()
            case inspect.BoolType():
                return pa.bool_()
    raise UsageError(f"{event.__name__}.{field.name} has no column type", hint="use str, int, float or bool")


def _column(values: Any, kind: pa.DataType) -> pa.Array:
    """Raises ValueError for values of another kind: a cast that cuts a number or reads a text would change them."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    found = values if isinstance(values, pa.Array) else pa.array(values, from_pandas=True)
    if not _alike(found.type.value_type if pa.types.is_dictionary(found.type) else found.type, kind):
        raise ValueError(f"{found.type} where the event has {kind}")
    return found.cast(kind)


def _alike(given: pa.DataType, kind: pa.DataType) -> bool:
    if pa.types.is_null(given):
        return True
    if pa.types.is_string(kind):
        return bool(pa.types.is_string(given) or pa.types.is_large_string(given) or pa.types.is_string_view(given))
    if pa.types.is_boolean(kind):
        return bool(pa.types.is_boolean(given))
    return bool(pa.types.is_integer(given) or pa.types.is_floating(given))


def _split(batch: pa.RecordBatch, rows: int) -> Iterator[pa.RecordBatch]:
    """In frames that a broker takes."""
    most = max(1, min(rows, int(rows * _MOST_BYTES / max(batch.nbytes / max(batch.num_rows, 1) * rows, 1))))
    for start in range(0, batch.num_rows, most):
        piece = batch.slice(start, most)
        if piece.nbytes > _MOST_BYTES and piece.num_rows > 1:
            yield from _split(piece, piece.num_rows // 2)
        else:
            yield piece
