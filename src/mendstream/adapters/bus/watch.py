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


class Tenure:
    """How long one holder has had the lock, by the ticks of whoever looks: at most two ticks from one look to the next.

    When the whole machine stands still for seconds, the wall clock would blame whoever holds the lock just then.
    """

    def __init__(self, tick_us: int) -> None:
        self._longest_us = 2 * tick_us
        self._holder: Holder | None = None
        self._held_us = 0
        self._looked_us = 0

    def us(self, holder: Holder | None, now_us: int) -> int:
        """The tenure of `holder`, whom this look finds; a holder not seen before has none yet."""
        if holder != self._holder:
            self._holder, self._held_us = holder, 0
        else:
            self._held_us += min(now_us - self._looked_us, self._longest_us)
        self._looked_us = now_us
        return self._held_us

    def renew(self) -> None:
        """Count anew: what has passed was not the holder's doing."""
        self._held_us = 0
