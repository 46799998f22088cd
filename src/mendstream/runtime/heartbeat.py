"""The sign of life of a process, four times a second, from a thread outside every step."""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Callable
from pathlib import Path

from mendstream.adapters.bus.mapped import mapped
from mendstream.contracts.errors import MendstreamError
from mendstream.contracts.ports import Bus, Clock, Out
from mendstream.contracts.records import Pulse, TaskPulse, encode_block
from mendstream.contracts.topics import Stream

EVERY_S = 0.25
_SLOT = struct.Struct("<q")


class Beat:
    """When a process last gave a sign of life, in shared memory: the supervisor reads it without any lock."""

    def __init__(self, path: Path) -> None:
        self._map = mapped(path, _SLOT.size)

    def beat(self, now_us: int) -> None:
        _SLOT.pack_into(self._map, 0, now_us)

    def last_us(self) -> int:
        (at,) = _SLOT.unpack_from(self._map, 0)
        return int(at)


class Heartbeat(threading.Thread):
    def __init__(
        self, bus: Bus, clock: Clock, beat: Beat, stream: Stream, *, process: str, agent: str, generation: int,
        tasks: Callable[[], tuple[TaskPulse, ...]],
    ) -> None:  # fmt: skip
        super().__init__(name="heartbeat", daemon=True)
        self._bus = bus
        self._clock = clock
        self._beat = beat
        self._stream = stream
        self._process = process
        self._agent = agent
        self._generation = generation
        self._tasks = tasks
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(EVERY_S):
            self.send()

    def send(self) -> None:
        now = self._clock.now_us()
        pulse = Pulse(
            process=self._process, agent=self._agent, generation=self._generation, pid=os.getpid(), at_us=now,
            rss_mb=resident_mb(), tasks=self._tasks(),
        )  # fmt: skip
        try:
            self._bus.publish([Out(self._stream, encode_block([pulse]), 1)])
        except MendstreamError:
            return  # a full log: the work loop meets it too, and ends the process with a message
        self._beat.beat(now)

    def stop(self) -> None:
        """Returns once nothing is sent any more."""
        self._ended.set()
        if self.is_alive():
            self.join(5)


def resident_mb() -> float:
    """Resident memory of this process in MB (10^6 bytes)."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:  # no /proc (macOS): the peak, which getrusage knows everywhere
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
