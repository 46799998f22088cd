"""A user's event type as columns: which Arrow type each field has, and how rows become columns."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Annotated, Any

import msgspec
import numpy as np
import pyarrow as pa

from mendstream.contracts.errors import UsageError
from mendstream.contracts.frame import Frame
from mendstream.contracts.pipeline import Columns, Event

Rows = Sequence[Event]


def writers(event: type[Event]) -> dict[str, Callable[[Rows], Any]]:
    """Field -> how its column is made from rows. Raises UsageError for a field type that has no column."""
    return {
        field.name: _writer(event, field.name, field.type)
        for field in msgspec.structs.fields(event)
    }  # fmt: skip


def kind_of(event: type[Event], name: str) -> tuple[Any, bool]:
    """The plain type of a field, and whether it may be None."""
    return next(_base(field.type) for field in msgspec.structs.fields(event) if field.name == name)


def _writer(event: type[Event], name: str, annotation: Any) -> Callable[[Rows], Any]:
    kind, optional = _base(annotation)
    get = attrgetter(name)
    if kind is str:
        return lambda rows: pa.array(list(map(get, rows)), type=pa.string())
    if kind not in (int, float, bool):
        raise UsageError(
            f"{event.__name__}.{name}: {annotation} has no column type",
            hint="use str, int, float or bool, or one `| None`",
        )
    if optional:
        return lambda rows: np.array([np.nan if v is None else v for v in map(get, rows)], dtype=np.float64)
    dtype = np.int64 if kind is int else np.float64
    return lambda rows: np.fromiter(map(get, rows), dtype, len(rows))


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

    def __init__(self, frame: Frame, names: Sequence[str]) -> None:
        self._frame = frame
        self._names = names
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        made = self._made.get(name)
        if made is None:
            if name not in self._names:
                raise KeyError(f"{name!r} is no column here; there are {', '.join(self._names)}")
            column = self._frame.batch.column(name)
            made = column if pa.types.is_string(column.type) else self._frame.numbers(name)
            self._made[name] = made
        return made

    def __iter__(self) -> Any:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def columns_of(frame: Frame) -> Columns:
    """All of a frame's columns."""
    return FrameColumns(frame, frame.batch.schema.names)
