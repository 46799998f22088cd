"""Step marks: which record a task is working on, in shared memory, so that whoever comes next knows what killed it.

Written before each step and cleared after it; a few hundred nanoseconds, and it outlives the process.
"""

from __future__ import annotations

import struct
from pathlib import Path

from mendstream.adapters.bus.mapped import mapped
from mendstream.contracts.ports import Mark

_SLOT = struct.Struct("<qqqq")  # active, position, rows, attempts


class MappedMarks:
    """`contracts.ports.StepMarks`: one file a task."""

    def __init__(self, path: Path) -> None:
        self._map = mapped(path, _SLOT.size)

    def left(self) -> Mark | None:
        """What the last owner was working on when it died, or None if it died between steps."""
        active, position, rows, attempts = _SLOT.unpack_from(self._map, 0)
        return Mark(position, rows, attempts) if active else None

    def begin(self, position: int, rows: int, attempts: int) -> None:
        _SLOT.pack_into(self._map, 0, 1, position, rows, attempts)

    def end(self) -> None:
        _SLOT.pack_into(self._map, 0, 0, 0, 0, 0)

    def close(self) -> None:
        self._map.close()
