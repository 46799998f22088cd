"""The last words of a process: why it could not go on, left where the supervisor finds them."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

from mendstream.adapters.room import overwrite
from mendstream.contracts.errors import MendstreamError

_SIZE = 4096


class LastWords:
    """Their room is taken at the start: it may be the disk that is full."""

    def __init__(self, root: Path, process: str) -> None:
        self._path = root / "run" / f"error-{process}"
        with contextlib.suppress(OSError):  # then it has to do without, and will meet the same again
            self._path.parent.mkdir(parents=True, exist_ok=True)
            overwrite(self._path, b"", _SIZE)

    def leave(self, error: MendstreamError) -> None:
        try:
            overwrite(self._path, msgspec.json.encode({"message": str(error), "hint": error.hint}), _SIZE)
        except OSError:
            with contextlib.suppress(OSError):
                self._path.unlink()  # half a sentence, or none, tells nothing
