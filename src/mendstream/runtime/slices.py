"""How many rows a step may get so that it is predicted to take at most the target time."""

from __future__ import annotations

_NOISE_S = 0.05
"""Steps differ by so much on a busy machine for no reason."""
_START = 128
"""Rows of the first step: enough to learn from at once, and with a slow model a fraction of a second, not several."""
_STRIDE = 4
_OTHER = 1.5
"""A size that is so many times another one is quite another size."""
_LIKE = 0.3
"""Sizes or times that differ by less than this share are the same."""


class Slicer:
    """A decayed least-squares line through (rows, seconds) of recent steps.

    Cutting helps against a cost per row, not against a cost per call: where the call itself takes most of the target,
    batches stay whole.
    """

    def __init__(self, *, target_s: float = 0.1, most: int = 2000, decay: float = 0.9) -> None:
        self._target = target_s
        self._most = most
        self._decay = decay
        self._forget()

    def _forget(self) -> None:
        self._w = self._r = self._s = self._rr = self._rs = 0.0
        self._rows: int | None = None
        """As last asked for, until another step teaches more."""
        self._learnt: tuple[float, float] | None = None
        """The line as it was when sizes last differed: while steps keep to it, there is no need to try again."""

    def at_most(self, rows: int) -> None:
        """From now on, whatever time would allow."""
        self._most, self._rows = rows, None

    def saw(self, rows: int, seconds: float) -> None:
        if self._surprised(rows, seconds):
            self._forget()
        d = self._decay
        self._rows = None
        self._w = self._w * d + 1
        self._r = self._r * d + rows
        self._s = self._s * d + seconds
        self._rr = self._rr * d + rows * rows
        self._rs = self._rs * d + rows * seconds
        self._learnt = self._fitted() or self._learnt

    @property
    def rows(self) -> int:
        """At least 1, at most `most`."""
        if self._rows is None:
            self._rows = self._wanted()
        return self._rows

    def _wanted(self) -> int:
        line = self._line()
        if line is None:
            return self._guess()
        slope, call = line
        if call > self._target / 2 or slope <= 0:
            return self._most
        return max(1, int(min(self._most, (self._target - call) / slope)))

    def _guess(self) -> int:
        """Nothing tells a cost per call from one per row yet: suppose that it is all per row.

        If that is wrong, the next step will tell, for it has quite another size: smaller, where neither would do. A
        single row can only become more.
        """
        if self._r == 0:
            return min(self._most, _START)
        if self._s <= 0:
            return self._most
        mean_r = self._r / self._w
        wanted = self._target * self._r / self._s
        if wanted < _OTHER * mean_r:
            wanted = _STRIDE * mean_r if mean_r < 2 else min(wanted, mean_r / 2)
        return max(1, round(min(self._most, wanted)))

    def _surprised(self, rows: int, seconds: float) -> bool:
        """The step was nothing like those before it: what they taught is over (a fault came, or went)."""
        line = self._line()
        if line is not None:
            expected = line[1] + line[0] * rows
        elif self._w and abs(rows - self._r / self._w) <= _LIKE * rows:
            expected = self._s / self._w
        else:
            return False  # of this size nothing was known
        return abs(seconds - expected) > _NOISE_S and not expected / 3 < seconds < expected * 3

    def _line(self) -> tuple[float, float] | None:
        """(seconds per row, seconds per call); None while the sizes seen are too much alike to tell."""
        fitted = self._fitted()
        if fitted is not None or self._learnt is None:
            return fitted
        slope, call = self._learnt
        mean_r, mean_s = self._r / self._w, self._s / self._w
        return self._learnt if abs(call + slope * mean_r - mean_s) <= max(_LIKE * mean_s, 0.001) else None

    def _fitted(self) -> tuple[float, float] | None:
        if self._w == 0:
            return None
        mean_r, mean_s = self._r / self._w, self._s / self._w
        spread = self._rr / self._w - mean_r**2
        if spread <= (0.1 * mean_r) ** 2:
            return None
        slope = max((self._rs / self._w - mean_r * mean_s) / spread, 0.0)
        return slope, max(mean_s - slope * mean_r, 0.0)
