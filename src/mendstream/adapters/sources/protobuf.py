"""Protobuf messages as plain values, by descriptors that the registry gives: no generated code is needed.

Between the schema's number and the message stands which message of the file it is: the count of indexes and each of
them, from the outermost message inwards, as zigzag varints; the first message of a file is a single 0.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from google.protobuf import (
    any_pb2,
    descriptor_pool,
    duration_pb2,
    empty_pb2,
    field_mask_pb2,
    message_factory,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.message import DecodeError

from mendstream.contracts.errors import BadRecord, CouldNot

if TYPE_CHECKING:
    from confluent_kafka.schema_registry import Schema, SchemaReference

    from mendstream.adapters.sources.registry import Decode

_MOST_INDEXES = 100
"""Messages lie in one another no deeper; more are bytes of something else."""
_SHARED = {
    module.DESCRIPTOR.name: module.DESCRIPTOR
    for module in (
        any_pb2, duration_pb2, empty_pb2, field_mask_pb2, struct_pb2, timestamp_pb2, wrappers_pb2,
    )
}  # fmt: skip
"""Files of Protobuf's own, which a schema imports without naming them as references."""
_SECONDS = frozenset({"google.protobuf.Timestamp", "google.protobuf.Duration"})
_WRAPPED = frozenset({message.full_name for message in wrappers_pb2.DESCRIPTOR.message_types_by_name.values()})


class Protobuf:
    """`registry.Kind`. A field that can be absent and is becomes null; every other has its value or its default."""

    name = "PROTOBUF"
    format = "serialized"

    def decoder(self, schema: Schema, referred: Callable[[SchemaReference], Schema]) -> Decode:
        pool = descriptor_pool.DescriptorPool()
        file = _file(schema, "record.proto")
        try:
            _add(pool, file, schema, referred, set())
        except (TypeError, RecursionError) as error:  # the pool says so of what does not fit together
            raise BadRecord(f"the schema cannot be used: {error}") from error
        messages: dict[tuple[int, ...], Any] = {}

        def decode(payload: bytes) -> Any:
            path, start = indexes(payload)
            message = messages.get(path)
            if message is None:
                found = pool.FindMessageTypeByName(_named(file, path))
                message = messages[path] = message_factory.GetMessageClass(found)
            try:
                return _plain(message.FromString(payload[start:]))
            except DecodeError as error:
                raise BadRecord(f"the bytes are no message of the schema: {error}") from error

        return decode


def indexes(payload: bytes) -> tuple[tuple[int, ...], int]:
    """(which message, where it begins)."""
    count, at = _varint(payload, 0)
    if not 0 <= count <= _MOST_INDEXES:
        raise BadRecord(f"{count} message indexes")
    if count == 0:
        return (0,), at
    path = []
    for _ in range(count):
        index, at = _varint(payload, at)
        path.append(index)
    return tuple(path), at


def _varint(payload: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(payload) or shift > 63:
            raise BadRecord("the message indexes are cut off")
        byte = payload[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), at


def _file(schema: Schema, name: str) -> Any:
    try:
        file = FileDescriptorProto.FromString(base64.b64decode(schema.schema_str or "", validate=True))
    except (binascii.Error, DecodeError) as error:
        raise CouldNot(
            f"the schema registry gives no serialized descriptor of a Protobuf schema ({error})",
            hint="it must answer format=serialized, as Confluent's does",
        ) from error
    file.name = name
    return file


def _add(
    pool: Any, file: Any, schema: Schema, referred: Callable[[SchemaReference], Schema], known: set[str]
) -> None:  # fmt: skip
    """What a file imports first."""
    for to in schema.references or ():
        if to.name and to.name not in known:
            known.add(to.name)
            found = referred(to)
            _add(pool, _file(found, to.name), found, referred, known)
    _add_shared(pool, file.dependency, known)
    pool.Add(file)


def _add_shared(pool: Any, names: Sequence[str], known: set[str]) -> None:
    for name in names:
        if name in known or name not in _SHARED:
            continue
        known.add(name)
        shared = FileDescriptorProto()
        _SHARED[name].CopyToProto(shared)
        _add_shared(pool, shared.dependency, known)
        pool.Add(shared)


def _named(file: Any, path: Sequence[int]) -> str:
    """The full name of the message at `path`."""
    names = [file.package] if file.package else []
    inside = file.message_type
    for index in path:
        if not 0 <= index < len(inside):
            raise BadRecord(f"the schema has no message at {list(path)}")
        names.append(inside[index].name)
        inside = inside[index].nested_type
    return ".".join(names)


def _plain(message: Any) -> Any:
    kind = message.DESCRIPTOR
    if kind.full_name in _SECONDS:
        return message.seconds + message.nanos / 1e9
    if kind.full_name in _WRAPPED:
        return message.value
    return {field.name: _value(message, field) for field in kind.fields}


def _value(message: Any, field: Any) -> Any:
    if field.has_presence and not message.HasField(field.name):
        return None
    value = getattr(message, field.name)
    if not field.is_repeated:
        return _one(value, field)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        inner = field.message_type.fields_by_name["value"]
        return {str(key): _one(item, inner) for key, item in value.items()}
    return [_one(item, field) for item in value]


def _one(value: Any, field: Any) -> Any:
    if field.message_type is not None:
        return _plain(value)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return value if known is None else known.name
    return value
