"""When a process last gave a sign of life, in shared memory: the supervisor reads it without any lock."""

from __future__ import annotations

import struct
from pathlib import Path

from mendstream.adapters.bus.mapped import mapped
from mendstream.contracts.ports import LifeSign

_SLOT = struct.Struct("<qq")  # when, and since when its turn


class Beat:
    def __init__(self, path: Path) -> None:
        self._map = mapped(path, _SLOT.size)

    def beat(self, now_us: int, turn_us: int) -> None:
        _SLOT.pack_into(self._map, 0, now_us, turn_us)

    def last(self) -> LifeSign:
        return LifeSign(*_SLOT.unpack_from(self._map, 0))
