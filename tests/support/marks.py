"""Step marks in memory; whoever holds the object is who comes after a death."""

from __future__ import annotations

from mendstream.contracts.ports import Mark


class MemoryMarks:
    def __init__(self) -> None:
        self.mark: Mark | None = None

    def left(self) -> Mark | None:
        return self.mark

    def begin(self, position: int, rows: int, attempts: int) -> None:
        self.mark = Mark(position, rows, attempts)

    def end(self) -> None:
        self.mark = None
