"""The clocks of a live house."""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec

from mendstream.adapters.bus.boot import boot_id

_FILE = Path("run") / "clock.json"


class _Setting(msgspec.Struct, frozen=True):
    """What has to be added to the time since boot, and to the time since which boot."""

    boot: str
    offset_ns: int


class WallClock:
    """Microseconds since 1970; never goes back within a process, whatever an operator does to the machine's clock."""

    def __init__(self) -> None:
        self._offset = time.time_ns() - _since_boot_ns()

    def now_us(self) -> int:
        return (_since_boot_ns() + self._offset) // 1000


class HouseClock(WallClock):
    """The same for every process of a house, from its start on: else, after somebody has set the machine's clock, those
    that start later would live in another time than the others, and take everybody for dead.
    """

    def __init__(self, root: Path) -> None:
        super().__init__()
        try:
            held = msgspec.json.decode((root / _FILE).read_bytes(), type=_Setting)
        except (FileNotFoundError, msgspec.DecodeError):
            return  # no house has run here yet, or not since the file was torn
        if held.boot == boot_id():
            self._offset = held.offset_ns


def set_clock(root: Path, newest_us: int) -> None:
    """At the start of a house: by the machine's clock, but never before what the log already holds."""
    now, since_boot = time.time_ns(), _since_boot_ns()
    offset_ns = max(now, newest_us * 1000 + 1000) - since_boot
    fresh = (root / _FILE).with_suffix(f".{os.getpid()}.new")  # agents that are started together each do this
    fresh.write_bytes(msgspec.json.encode(_Setting(boot_id(), offset_ns)))
    fresh.rename(root / _FILE)


def _since_boot_ns() -> int:
    """Goes on while the machine sleeps, where the system has such a clock."""
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic_ns() if boottime is None else time.clock_gettime_ns(boottime)
