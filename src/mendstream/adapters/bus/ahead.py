"""Room for what the log will write next, taken in large pieces: to grow page by page makes a write half as dear again.

It is room and nothing else: no byte is written, and what reads the log does not see it.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Any

_LEAST, _MOST = 1 << 20, 64 << 20
_SPARE = 16
"""A disk with less left than so many times what would be taken keeps it for what is really written."""


class Ahead:
    """Keeps the file of an LMDB environment larger than what is used of it, by half, at most by 64 MiB."""

    def __init__(self, env: Any) -> None:
        self._env = env
        self._page = env.stat()["psize"]
        self._path = Path(env.path()) / "data.mdb"
        self._size = self._path.stat().st_size

    def keep(self) -> None:
        """Called now and then by who holds the write lock; nearly always there is nothing to do."""
        info = self._env.info()
        used = (info["last_pgno"] + 1) * self._page
        ahead = min(max(used // 2, _LEAST), _MOST)
        if self._size < min(used + ahead // 2, info["map_size"]):
            # Without it the log is only slower, and where room is short the write itself says so.
            with contextlib.suppress(OSError):
                self._take(min(used + ahead, info["map_size"]))

    def _take(self, size: int) -> None:
        fd = os.open(self._path, os.O_WRONLY)
        try:
            held, disk = os.fstat(fd).st_size, os.fstatvfs(fd)
            # Not on macOS, which has no such call.
            if sys.platform == "linux" and held < size and disk.f_bavail * disk.f_frsize > _SPARE * (size - held):
                os.posix_fallocate(fd, held, size - held)
        finally:
            os.close(fd)
        self._size = max(size, held)
