"""How many rows a step may get so that it is predicted to take at most the target time."""

from __future__ import annotations

_NOISE_S = 0.05
"""Steps differ by so much on a busy machine for no reason."""
_STRIDE = 4
_LIKE = 0.25
"""Sizes that differ by less than this share are one size: they do not tell a cost per call from one per row."""


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
        if self._surprised(rows, seconds):
            self._w = self._r = self._s = self._rr = self._rs = 0.0
        d = self._decay
        self._w = self._w * d + 1
        self._r = self._r * d + rows
        self._s = self._s * d + seconds
        self._rr = self._rr * d + rows * rows
        self._rs = self._rs * d + rows * seconds

    def _surprised(self, rows: int, seconds: float) -> bool:
        """The step was nothing like those before it: what they taught is over (a fault came, or went)."""
        if self._w == 0:
            return False
        mean_r = self._r / self._w
        if not self._spread and abs(rows - mean_r) > _LIKE * mean_r:
            return False  # of another size nothing was known: this teaches it
        slope, call = self._line()
        expected = call + slope * rows
        return abs(seconds - expected) > _NOISE_S and not expected / 3 < seconds < expected * 3

    @property
    def rows(self) -> int:
        """At least 1, at most `most`."""
        if self._w == 0 or self._r == 0:
            return self._most
        slope, call = self._line()
        if not self._spread:
            # Nothing tells a cost per call from one per row: suppose it is all per row. If that is wrong, the next step
            # will tell, for it has another size; a single row can only become more.
            mean_r = self._r / self._w
            wanted = self._target / slope if slope > 0 else self._most
            return max(1, min(self._most, int(_STRIDE * mean_r if mean_r < 2 and wanted < mean_r else wanted)))
        if call > self._target / 2 or slope <= 0:
            return self._most
        return max(1, min(self._most, int((self._target - call) / slope)))

    @property
    def _spread(self) -> bool:
        mean_r = self._r / self._w
        return self._rr / self._w - mean_r**2 > (0.1 * mean_r) ** 2

    def _line(self) -> tuple[float, float]:
        """(seconds per row, seconds per call)"""
        mean_r, mean_s = self._r / self._w, self._s / self._w
        if not self._spread:
            return mean_s / mean_r, 0.0
        slope = max((self._rs / self._w - mean_r * mean_s) / (self._rr / self._w - mean_r**2), 0.0)
        return slope, max(mean_s - slope * mean_r, 0.0)
