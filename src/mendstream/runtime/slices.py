"""How many rows a step may get so that it is predicted to take at most the target time."""

from __future__ import annotations


class Slicer:
    """A decayed least-squares line through (rows, seconds) of recent steps.

    Cutting helps against a cost per row, not against a cost per call: where the call itself takes most of the target,
    batches stay whole.
    """

    def __init__(self, *, target_s: float = 0.1, most: int = 2000, decay: float = 0.9) -> None:
        self._target = target_s
        self._most = most
        self._decay = decay
        self._w = self._r = self._s = self._rr = self._rs = 0.0

    def saw(self, rows: int, seconds: float) -> None:
        d = self._decay
        self._w = self._w * d + 1
        self._r = self._r * d + rows
        self._s = self._s * d + seconds
        self._rr = self._rr * d + rows * rows
        self._rs = self._rs * d + rows * seconds

    @property
    def rows(self) -> int:
        """At least 1, at most `most`."""
        if self._w == 0 or self._r == 0:
            return self._most
        mean_r, mean_s = self._r / self._w, self._s / self._w
        spread = self._rr / self._w - mean_r**2
        if spread > (0.1 * mean_r) ** 2:
            slope = max((self._rs / self._w - mean_r * mean_s) / spread, 0.0)
        else:
            slope = mean_s / mean_r  # no spread to tell the two costs apart: suppose all of it is per row
        call = max(mean_s - slope * mean_r, 0.0)
        if call > self._target / 2 or slope <= 0:
            return self._most
        return max(1, min(self._most, int((self._target - call) / slope)))
