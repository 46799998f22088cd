"""kill -9 of the worker of a supervised house on Kafka; how long until its partition has the next decision."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable

from mendstream.bench import ground
from mendstream.bench.broker import broker
from mendstream.bench.figures import Figure, Report
from mendstream.bench.ground import DECISIONS
from mendstream.contracts.errors import CouldNot
from mendstream.contracts.ports import Bus
from mendstream.demo.scenario import demo_settings, register_models
from mendstream.runtime.ground import open_bus
from mendstream.runtime.supervisor import House

WORKER = "fused-0"
CALM_S = 5.0
"""The house serves for so long before the kill."""
LONGEST_S = 30.0


def measure(runs: int, note: Callable[[str], None], *, servers: str) -> Report:
    found = [_told(servers, n, runs, note) for n in range(runs)]
    median = Figure(what="", unit="", runs=tuple(found)).median
    figures = {
        "recovery_p50_s": Figure(
            what="kill -9 to the first new decision, restarted in place: half of the kills", unit="s", runs=(median,),
            most=1.5,
        ),
        "recovery_s": Figure(what="each kill", unit="s", runs=tuple(found)),
    }  # fmt: skip
    return Report(bench="kafka-recovery", figures=figures, details={"kills": runs, "settings": "the demo's, fused"})


def _told(servers: str, n: int, runs: int, note: Callable[[str], None]) -> float:
    found = once(servers, seed=n)
    note(f"kill {n + 1} of {runs}: {found:.2f} s")
    return found


def once(servers: str, *, seed: int) -> float:
    """Seconds, of one kill in a house of its own: budgets would stop healing after a few in one house."""
    with contextlib.ExitStack() as stack:
        root = stack.enter_context(ground.folder())
        own = stack.enter_context(broker(servers))
        settings = own.holds(demo_settings(str(root), fuse=True, seed=seed, metrics=False))
        register_models(settings)
        house = stack.enter_context(House(settings))
        bus = stack.enter_context(contextlib.closing(open_bus(settings)))
        stack.enter_context(contextlib.closing(bus.listen("bench", [DECISIONS])))
        decisions = _Decisions(bus)
        _serve(house, lambda: decisions.newest_us() > 0, ground.START_S)
        until = time.monotonic() + CALM_S
        _serve(house, lambda: time.monotonic() >= until, LONGEST_S)
        os.kill(house.shown()[WORKER]["pid"], signal.SIGKILL)
        killed_us = bus.now_us()
        return _serve(house, lambda: decisions.newest_us() > killed_us, LONGEST_S)


class _Decisions:
    """Read on and on; what is stamped after the kill was made by the next process."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._position = 0
        self._newest_us = 0

    def newest_us(self) -> int:
        for block in self._bus.read(DECISIONS, self._position, max_rows=10_000, max_bytes=8 << 20):
            self._position, self._newest_us = block.next, block.at_us
        return self._newest_us


def _serve(house: House, there: Callable[[], bool], seconds: float) -> float:
    """Serve the house until `there()`; how long that took."""
    begun = time.monotonic()
    while not there():
        house.step()
        if house.failure is not None:
            raise house.failure
        if time.monotonic() - begun > seconds:
            raise CouldNot(f"bench: nothing new within {seconds:.0f} s", hint="is the machine overloaded?")
    return time.monotonic() - begun
