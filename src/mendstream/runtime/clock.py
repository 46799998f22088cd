"""The only clock of a live house."""

from __future__ import annotations

import time


class WallClock:
    """Microseconds since 1970; never goes back within a process, whatever an operator does to the machine's clock."""

    def __init__(self) -> None:
        self._offset = time.time_ns() - time.monotonic_ns()

    def now_us(self) -> int:
        return (time.monotonic_ns() + self._offset) // 1000
