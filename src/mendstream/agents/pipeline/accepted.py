"""Columns from outside against the event type: which rows are events for sure, and which have to be looked at.

What is accepted here is what the JSON of the same row would be accepted as, column for column. Where that cannot be
told from the columns, nothing is accepted, and the rows are decoded as lines.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import inspect

from mendstream.contracts.pipeline import Array, Event

_WIDEST = 6
"""Bytes of JSON that one byte of text can become, as an escape."""
_NUMBER = 32
"""Bytes of JSON that a number, its quotes, colon and comma take at most."""


class Acceptor:
    """For one event type; None of a table says that it is to be taken row by row."""

    def __init__(self, event: type[Event], *, max_record_bytes: int) -> None:
        info = inspect.type_info(event)
        assert isinstance(info, inspect.StructType)
        self._fields = {field.encode_name: _Field(field) for field in info.fields}
        # What else the decoder of lines would look at.
        self._by_rows = info.tag is not None or hasattr(event, "__post_init__") or info.array_like
        self._most = max_record_bytes
        self._frame = sum(map(len, self._fields)) + _NUMBER * len(self._fields)

    def columns(self, batch: pa.RecordBatch) -> tuple[dict[str, Any], Array] | None:
        """(field -> column, which rows may be no events)."""
        if self._by_rows or set(batch.schema.names) != self._fields.keys():
            return None
        suspect = np.zeros(batch.num_rows, dtype=bool)
        texts = {
            name: _lengths(batch.column(name)) for name in self._fields if pa.types.is_string(batch.column(name).type)
        }
        made: dict[str, Any] = {}
        for name, field in self._fields.items():
            column = field.column(batch.column(name), texts.get(name), suspect)
            if column is None:
                return None
            made[field.name] = column
        # As JSON a row may be that long; a longer one may be longer than a record may be.
        if self._frame + _WIDEST * sum(int(lengths.max(initial=0)) for lengths in texts.values()) > self._most:
            suspect |= self._frame + _WIDEST * sum(texts.values()) > self._most
        return made, suspect


class _Field:
    """One field of the event type."""

    def __init__(self, field: inspect.Field) -> None:
        self.name = field.name
        kinds = field.type.types if isinstance(field.type, inspect.UnionType) else (field.type,)
        self._optional = any(isinstance(kind, inspect.NoneType) for kind in kinds)
        self._kind = next(kind for kind in kinds if not isinstance(kind, inspect.NoneType))

    def column(self, column: pa.Array, lengths: Array | None, suspect: Array) -> Any:
        """As ingestion makes it of rows; None if that cannot be told. Marks what it doubts in `suspect`. `lengths`: of
        texts, in bytes.
        """
        nulls = column.is_null().to_numpy(zero_copy_only=False) if column.null_count else None
        if nulls is not None and not self._optional:
            suspect |= nulls
        match self._kind:
            case inspect.StrType(min_length=low, max_length=high, pattern=None) if lengths is not None:
                # A text of one byte has one character, and none has more characters than bytes.
                if not _all_inside(lengths, ge=low if low in (None, 0, 1) else math.inf, le=high) or nulls is not None:
                    characters = pc.utf8_length(column).fill_null(low or 0).to_numpy()
                    _outside(characters, suspect, ge=low, le=high)
                return column
            case inspect.IntType(multiple_of=None) if _fits_int(column.type):
                return self._numbers(column, nulls, suspect, np.int64)
            case inspect.FloatType(multiple_of=None) if _fits_int(column.type) or pa.types.is_floating(column.type):
                return self._numbers(column, nulls, suspect, np.float64)
            case inspect.BoolType() if pa.types.is_boolean(column.type):
                plain = column if nulls is None else column.fill_null(False)
                return self._filled(plain.to_numpy(zero_copy_only=False).astype(np.float64), nulls)
        return None

    def _numbers(self, column: pa.Array, nulls: Array | None, suspect: Array, kind: Any) -> Array:
        plain = column if nulls is None else column.fill_null(0)
        values = plain.to_numpy(zero_copy_only=False).astype(kind, copy=False)
        bounds = {name: getattr(self._kind, name) for name in ("gt", "ge", "lt", "le")}
        if not _all_inside(values, **bounds):
            doubt = ~np.isfinite(values)
            _outside(values, doubt, **bounds)
            suspect |= doubt if nulls is None else doubt & ~nulls
        return self._filled(values, nulls)

    def _filled(self, values: Array, nulls: Array | None) -> Array:
        """A field that may lack its number has NaN there, and so always floats."""
        if not self._optional:
            return values
        numbers = values.astype(np.float64)
        if nulls is not None:
            numbers[nulls] = np.nan
        return numbers


def _all_inside(values: Array, *, gt: Any = None, ge: Any = None, lt: Any = None, le: Any = None) -> bool:
    """By the least and the greatest alone: nearly always all are. A NaN is both of them, and never inside."""
    if not len(values):
        return True
    low, high = values.min(), values.max()
    return bool(
        np.isfinite(low) and np.isfinite(high)
        and (gt is None or low > gt) and (ge is None or low >= ge)
        and (lt is None or high < lt) and (le is None or high <= le)
    )  # fmt: skip


def _outside(
    values: Array, suspect: Array, *, gt: Any = None, ge: Any = None, lt: Any = None, le: Any = None
) -> None:  # fmt: skip
    """Mark what breaks the bounds."""
    if gt is not None:
        suspect |= values <= gt
    if ge is not None:
        suspect |= values < ge
    if lt is not None:
        suspect |= values >= lt
    if le is not None:
        suspect |= values > le


def _lengths(column: pa.Array) -> Array:
    """Of a string array, in bytes, from its offsets."""
    offsets: Array = np.frombuffer(column.buffers()[1] or b"", dtype=np.int32)
    return np.diff(offsets[column.offset : column.offset + len(column) + 1])


def _fits_int(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) and not pa.types.is_uint64(kind))
