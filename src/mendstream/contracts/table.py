"""Events as columns, as they came from outside: to whoever asks row by row they are lines of JSON like any others."""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, NamedTuple, overload

import msgspec
import numpy as np
import pyarrow as pa

from mendstream.contracts.agent import Line, Unreadable
from mendstream.contracts.records import DeadReason

_encode = msgspec.json.Encoder().encode


class Piece(NamedTuple):
    """Neighbouring rows of one record of a source."""

    batch: pa.RecordBatch
    position: int
    """Of the first row; the others follow."""
    partition: int


class Table(Sequence[Line]):
    """One or more pieces of one schema. Only a row that is asked for is made into a line."""

    __slots__ = ("_chosen", "_ends", "pieces")

    def __init__(self, pieces: Sequence[Piece], chosen: Sequence[int] | None = None) -> None:
        """`chosen`: only these rows, of all together."""
        self.pieces = pieces
        self._chosen = chosen
        self._ends: list[int] = np.cumsum([piece.batch.num_rows for piece in pieces]).tolist()

    @property
    def batch(self) -> pa.RecordBatch:
        """All pieces in one."""
        return self.pieces[0].batch if len(self.pieces) == 1 else pa.concat_batches([p.batch for p in self.pieces])

    def chosen(self, rows: Sequence[int]) -> Table:
        return Table(self.pieces, rows)

    def __len__(self) -> int:
        return self._ends[-1] if self._chosen is None else len(self._chosen)

    @overload
    def __getitem__(self, index: int) -> Line: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Line]: ...
    def __getitem__(self, index: int | slice) -> Line | Sequence[Line]:
        if isinstance(index, slice):
            return [self[n] for n in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        row = index % len(self) if self._chosen is None else self._chosen[index]
        place = bisect_right(self._ends, row)
        piece = self.pieces[place]
        inside = row - (self._ends[place] - piece.batch.num_rows)
        return _line(piece.batch.slice(inside, 1).to_pylist()[0], piece.position + inside, piece.partition)


def _line(row: dict[str, Any], position: int, partition: int) -> Line:
    if any(isinstance(value, float) and not math.isfinite(value) for value in row.values()):
        # JSON has no such number; Python's way to write it is for people who look at the letter.
        why = Unreadable(json.dumps(row).encode(), DeadReason.NOT_FINITE, "a number is NaN or an infinity")
        return Line(b"", position, partition=partition, unreadable=why)
    return Line(_encode(row), position, partition=partition)


def joined(one: Sequence[Line], other: Sequence[Line]) -> Sequence[Line]:
    """Both, one after the other: as columns where they are of one make."""
    if isinstance(one, Table) and isinstance(other, Table):
        pieces = [*one.pieces, *other.pieces]
        if one.pieces[0].batch.schema.equals(other.pieces[0].batch.schema):
            return Table(pieces)
    return [*one, *other]
