"""A user's event type as columns: which Arrow type each field has, and how rows become columns."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any

import msgspec
import numpy as np
import pyarrow as pa

from mendstream.contracts.errors import UsageError
from mendstream.contracts.frame import Frame, FrameMeta
from mendstream.contracts.pipeline import Columns, Event

Rows = Sequence[Event]
Values = Sequence[Any]


def writers(event: type[Event]) -> dict[str, Callable[[Values], Any]]:
    """Field -> how its column is made from its values. Raises UsageError for a field type that has no column."""
    return {
        field.name: _writer(event, field.name, field.type)
        for field in msgspec.structs.fields(event)
    }  # fmt: skip


def values_of(event: type[Event], rows: Rows) -> dict[str, Values]:
    """Field -> its values, row by row."""
    # Taken apart row by row in C; a pass over the rows for each field takes twice as long.
    names = event.__struct_fields__
    values = zip(*map(msgspec.structs.astuple, rows), strict=True) if rows else [()] * len(names)
    return dict(zip(names, values, strict=True))


def columns_from(event: type[Event], rows: Rows) -> dict[str, Any]:
    """Rows as the columns that a feature function sees."""
    values = values_of(event, rows)
    return {name: write(values[name]) for name, write in writers(event).items()}


def kind_of(event: type[Event], name: str) -> tuple[Any, bool]:
    """The plain type of a field, and whether it may be None."""
    return next(_base(field.type) for field in msgspec.structs.fields(event) if field.name == name)


def _writer(event: type[Event], name: str, annotation: Any) -> Callable[[Values], Any]:
    kind, optional = _base(annotation)
    if kind is str:
        return lambda values: pa.array(values, type=pa.string())
    if kind not in (int, float, bool):
        raise UsageError(
            f"{event.__name__}.{name}: {annotation} has no column type",
            hint="use str, int, float or bool, or one `| None`",
        )
    if optional:
        return lambda values: np.array(values, dtype=np.float64)  # None becomes NaN
    dtype = np.int64 if kind is int else np.float64
    return lambda values: np.fromiter(values, dtype, len(values))


def _base(annotation: Any) -> tuple[Any, bool]:
    """The plain type under Annotated and `| None`, and whether None is allowed."""
    if typing.get_origin(annotation) is Annotated:
        return _base(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        parts = [part for part in typing.get_args(annotation) if part is not types.NoneType]
        if len(parts) == 1:
            return _base(parts[0])[0], True
    return annotation, False


class FrameColumns(Mapping[str, Any]):
    """A frame as the columns that user code sees: numbers as numpy, strings as Arrow; made when asked for."""

    def __init__(self, frame: Frame) -> None:
        self._batch = frame.batch
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        made = self._made.get(name)
        if made is None:
            try:
                column = self._batch.column(name)
            except KeyError:
                raise KeyError(f"{name!r} is no column here; there are {', '.join(self)}") from None
            made = column if pa.types.is_string(column.type) else column.to_numpy(zero_copy_only=False)
            self._made[name] = made
        return made

    def __iter__(self) -> Iterator[str]:
        return iter(self._batch.schema.names)

    def __len__(self) -> int:
        return int(self._batch.num_columns)


def columns_of(frame: Frame) -> Columns:
    """All of a frame's columns."""
    return FrameColumns(frame)


def widened(frame: Frame, columns: Mapping[str, np.ndarray[Any, np.dtype[Any]]], meta: FrameMeta) -> Frame:
    """The same with more columns behind its own."""
    batch = frame.batch
    for name, values in columns.items():
        batch = batch.append_column(name, pa.array(values))
    return Frame(batch, meta)
