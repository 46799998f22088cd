"""A clock that stands until it is told to go on."""

from __future__ import annotations

START_US = 1_700_000_000_000_000


class ManualClock:
    def __init__(self, now_us: int = START_US) -> None:
        self._now_us = now_us

    def now_us(self) -> int:
        return self._now_us

    def advance(self, *, us: int = 0, ms: float = 0, s: float = 0) -> int:
        self._now_us += us + int(ms * 1_000) + int(s * 1_000_000)
        return self._now_us
