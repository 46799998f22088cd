"""How soon the next transaction of a producer may begin."""

from __future__ import annotations

_MET_S = 0.02
"""A producer that comes before its last transaction has all its marks is told to come again. So long librdkafka waits
before it does, which is no setting of it."""
_STEP_S = 0.001
_MOST_S = 0.003
_KEPT = 0.9992
"""Of the pause from turn to turn: at its most it stays where one turn in 400 meets the marks all the same."""


class Pace:
    """Learns the pause after a transaction that lets the broker write its marks: none where turns are far apart anyway.

    With 5,000 events a second 3 turns in 100 met the marks without a pause, and 1 in 100 with one.
    """

    def __init__(self) -> None:
        self._pause_s = 0.0
        self._begun_at = 0.0
        self._free_at: float | None = None
        self._apart_s = 0.0
        """Between the end of the last pause and this transaction."""

    def begin(self, now: float) -> None:
        """`now`: seconds of any steady clock."""
        self._begun_at = now
        self._apart_s = 0.0 if self._free_at is None else now - self._free_at

    def end(self, now: float) -> float:
        """Seconds to leave the broker alone for, now that the transaction has ended."""
        if now - self._begun_at > _MET_S:
            self._pause_s = min(self._pause_s + _STEP_S, _MOST_S)
        else:
            self._pause_s *= _KEPT
        left = max(0.0, self._pause_s - self._apart_s)
        self._free_at = now + left
        return left
