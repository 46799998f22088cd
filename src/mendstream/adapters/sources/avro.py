"""Avro records as plain values. Only the extra `registry` brings fastavro."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from io import BytesIO
from typing import TYPE_CHECKING, Any

from fastavro import parse_schema, schemaless_reader
from fastavro.schema import SchemaParseException

from mendstream.contracts.errors import BadRecord

if TYPE_CHECKING:
    from confluent_kafka.schema_registry import Schema, SchemaReference

    from mendstream.adapters.sources.registry import Decode

Named = dict[str, Any]
"""The named types that were parsed so far, which references bring."""
_TORN = (
    EOFError, ValueError, TypeError, LookupError, ArithmeticError, AssertionError, RecursionError, MemoryError,
)  # fmt: skip
"""What fastavro raises for bytes that are no such record: of whatever it came to stumble over."""


class Avro:
    """`registry.Kind`. A time that is a point of time becomes seconds since 1970, as events have it."""

    name = "AVRO"
    format = None

    def decoder(self, schema: Schema, referred: Callable[[SchemaReference], Schema]) -> Decode:
        named: Named = {}
        try:
            parsed = _parsed(schema, referred, named)
        except (SchemaParseException, ValueError, TypeError, LookupError, RecursionError) as error:
            raise BadRecord(f"the schema cannot be read: {error!r}") from error
        timed = "logicalType" in str(parsed)

        def decode(payload: bytes) -> Any:
            stream = BytesIO(payload)
            try:
                value = schemaless_reader(stream, parsed, None)
            except _TORN as error:
                raise BadRecord(f"the bytes are no record of the schema: {error!r}") from error
            if stream.tell() != len(payload):
                raise BadRecord(f"{len(payload) - stream.tell()} bytes follow the record")
            return _seconds(value) if timed else value

        return decode


def _parsed(schema: Schema, referred: Callable[[SchemaReference], Schema], named: Named) -> Any:
    """References first: a schema may name what they define."""
    for to in schema.references or ():
        if to.name not in named:
            _parsed(referred(to), referred, named)
    return parse_schema(json.loads(schema.schema_str or ""), named_schemas=named)


def _seconds(value: Any) -> Any:
    """With points of time as seconds; a local time is no point of time, and stays text."""
    match value:
        case datetime() if value.tzinfo is not None:
            return value.timestamp()
        case dict():
            return {name: _seconds(item) for name, item in value.items()}
        case list():
            return [_seconds(item) for item in value]
    return value
