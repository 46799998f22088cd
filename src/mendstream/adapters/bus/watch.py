"""Who holds the write lock, and since when: 16 bytes in shared memory that the supervisor can read without any lock."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from mendstream.adapters.bus.mapped import mapped
from mendstream.contracts.ports import Clock

_SLOT = struct.Struct("<qq")  # pid, since (microseconds)


class Holder(NamedTuple):
    pid: int
    since_us: int


class LockWatch:
    """One file a write lock. The holder writes itself in once it has the lock, and out once it has given it back."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._map = mapped(path, _SLOT.size)
        self._clock = clock
        self._pid = os.getpid()

    @contextlib.contextmanager
    def held(self) -> Iterator[Callable[[], None]]:
        """Around the lock and its commit, which may take longest. Call what it gives once the lock is there."""
        try:
            yield self._taken
        finally:
            # Whoever has the lock by now has written itself in.
            if _SLOT.unpack_from(self._map, 0)[0] == self._pid:
                _SLOT.pack_into(self._map, 0, 0, 0)

    def _taken(self) -> None:
        _SLOT.pack_into(self._map, 0, self._pid, self._clock.now_us())

    def holder(self) -> Holder | None:
        pid, since = _SLOT.unpack_from(self._map, 0)
        return Holder(pid, since) if pid else None

    def clear(self, holder: Holder) -> None:
        """Take out a holder that was killed: it could not do so itself."""
        if self.holder() == holder:
            _SLOT.pack_into(self._map, 0, 0, 0)

    def close(self) -> None:
        self._map.close()
