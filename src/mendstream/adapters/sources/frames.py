"""Frames as a Kafka record's value: events as columns, written by `mendstream.client`, read by the Kafka source.

On the wire it is an Arrow IPC stream, so whatever writes Arrow can be the producer. Columns have the names of the event
type's fields and hold strings, numbers or booleans.
"""

from __future__ import annotations

import pyarrow as pa

from mendstream.contracts.errors import BadRecord

MOST_ROWS = 1 << 16
"""Of one frame. A position is its offset times this, and the row."""
_END = b"\xff\xff\xff\xff\0\0\0\0"
"""How an Arrow IPC stream ends."""
_NO_FRAME = (pa.ArrowException, StopIteration, KeyError, TypeError, ValueError, OSError)


def encode(batch: pa.RecordBatch) -> bytes:
    """What a stream writer writes for one batch."""
    return b"".join((batch.schema.serialize(), batch.serialize(), _END))


def read(value: bytes) -> pa.RecordBatch:
    """Raises BadRecord for what is no frame."""
    try:
        with pa.ipc.open_stream(pa.py_buffer(value)) as reader:
            batches = list(reader)
            schema = reader.schema
        for batch in batches:
            batch.validate(full=True)  # else a torn one could bring the process down later
        batch = batches[0] if len(batches) == 1 else pa.Table.from_batches(batches, schema).combine_chunks()
        return _whole(batch if isinstance(batch, pa.RecordBatch) else _one(batch, schema))
    except _NO_FRAME as error:
        raise BadRecord(f"not a frame: {error}") from error


def _one(table: pa.Table, schema: pa.Schema) -> pa.RecordBatch:
    arrays = [column.combine_chunks() for column in table.columns]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _whole(batch: pa.RecordBatch) -> pa.RecordBatch:
    if batch.num_rows > MOST_ROWS:
        raise BadRecord(f"a frame of {batch.num_rows} rows; at most {MOST_ROWS}")
    if len(set(batch.schema.names)) != batch.num_columns:
        raise BadRecord("a frame with two columns of one name")
    if all(pa.types.is_string(kind) or _plain(kind) for kind in batch.schema.types):
        return batch.replace_schema_metadata(None)
    columns = [_column(name, batch.column(name)) for name in batch.schema.names]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _column(name: str, column: pa.Array) -> pa.Array:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return column.cast(pa.string())
    if not _plain(column.type):
        raise BadRecord(f"column {name} of a frame is of {column.type}: it may hold strings, numbers or booleans")
    return column


def _plain(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_float32(kind)
        or pa.types.is_float64(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_null(kind)
    )
