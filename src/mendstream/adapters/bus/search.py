"""Finding a time in a log whose positions have no gaps."""

from __future__ import annotations

from typing import Protocol

from mendstream.contracts.ports import Block, Position
from mendstream.contracts.topics import Stream


class _Readable(Protocol):
    def bounds(self, stream: Stream) -> tuple[Position, Position]: ...
    def read(self, stream: Stream, position: Position, *, max_rows: int, max_bytes: int) -> list[Block]: ...


def first_since(bus: _Readable, stream: Stream, at_us: int) -> Position:
    """The first position whose block was appended at `at_us` or later; the end if none was."""
    low, high = bus.bounds(stream)
    while low < high:
        middle = (low + high) // 2
        blocks = bus.read(stream, middle, max_rows=1, max_bytes=1)
        if not blocks or blocks[0].at_us >= at_us:
            high = middle
        else:
            low = blocks[0].next
    return low
