"""JSON lines from a file: positions are byte offsets, so reading starts anywhere, and nothing is read twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from mendstream.contracts.agent import Line
from mendstream.contracts.errors import CouldNot
from mendstream.contracts.ports import Clock

_LOOK_AGAIN_S = 0.05
"""How soon a file that is followed is looked at again."""


class FileSource:
    """`follow`: wait for more at the end of the file, as `tail -f` does."""

    replayable = True

    def __init__(self, path: Path, clock: Clock, *, rate: float = 0.0, follow: bool = False) -> None:
        self._path = path
        self._follow = follow
        self._clock = clock
        self._rate = rate
        self._begun_us: int | None = None
        self._given = 0
        self._ended = False
        try:
            if follow:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
            self._file = path.open("rb")
        except OSError as error:
            raise CouldNot(
                f"cannot read events from {path}: {error.strerror}", hint="see ingestion.source in mendstream.toml"
            ) from error

    def poll(self, position: int, max_lines: int, max_bytes: int) -> tuple[Sequence[Line], Sequence[Line], int]:
        max_lines = min(max_lines, self._allowed())
        self._file.seek(position)
        lines: list[Line] = []
        size, ended = 0, False
        while len(lines) < max_lines and size < max_bytes:
            raw = self._file.readline()
            if not raw.endswith(b"\n") and (not raw or self._follow):
                ended = True
                break  # the end, or a line that is still being written
            size += len(raw)
            value = raw.rstrip(b"\r\n")
            if value:
                lines.append(Line(value, position + size - len(raw)))
        self._ended = ended
        self._given += len(lines)
        return lines, (), position + size

    def _allowed(self) -> int:
        if not self._rate:
            return 1 << 30
        now = self._clock.now_us()
        if self._begun_us is None:
            self._begun_us = now
        return int((now - self._begun_us) / 1e6 * self._rate) - self._given

    def due_in_s(self) -> float | None:
        if self._ended:
            return _LOOK_AGAIN_S if self._follow else None
        return 1 / self._rate if self._rate else 0.0

    def wake_by(self, ring: Callable[[], None]) -> None:
        """Whoever writes to a file that is followed rings the bell of its stream."""

    def done(self, position: int) -> None:
        """The file is its own memory."""

    def close(self) -> None:
        self._file.close()


class NoSource:
    """Nothing comes in: for houses that are fed in another way."""

    replayable = True

    def poll(self, position: int, max_lines: int, max_bytes: int) -> tuple[Sequence[Line], Sequence[Line], int]:
        return (), (), position

    def due_in_s(self) -> float | None:
        return None

    def wake_by(self, ring: Callable[[], None]) -> None:
        """Nothing ever arrives."""

    def done(self, position: int) -> None:
        """Nothing was taken."""

    def close(self) -> None:
        """Nothing was opened."""
