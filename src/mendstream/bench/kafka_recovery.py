"""kill -9 of a worker of a supervised house on Kafka; how long until its partitions have their next decisions.

Once it is started again in place, by healing. Once nobody starts it again, and another replica takes over.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from statistics import median

import msgspec

from mendstream.bench import ground
from mendstream.bench.broker import broker
from mendstream.bench.figures import Figure, Report
from mendstream.contracts.errors import CouldNot
from mendstream.contracts.ports import Bus
from mendstream.contracts.topics import Stream, Topic
from mendstream.demo.scenario import demo_settings, register_models
from mendstream.runtime.ground import open_bus
from mendstream.runtime.supervisor import House
from mendstream.settings import Settings

CALM_S = 5.0
"""The house serves for so long before the kill."""
LONGEST_S = 30.0
PARTITIONS = 4
"""Where two replicas share them. Without a restart each of the victim's has to come to another decision."""


def measure(runs: int, note: Callable[[str], None], *, servers: str) -> Report:
    restarted = [_told(servers, "restarted", restart, n, runs, note) for n in range(runs)]
    taken = [_told(servers, "taken over", take_over, n, runs, note) for n in range(runs)]
    figures = {
        "recovery_p50_s": Figure(
            what="kill -9 to the first new decision, restarted in place: half of the kills", unit="s",
            runs=(median(restarted),), most=1.5,
        ),
        "recovery_s": Figure(what="each kill", unit="s", runs=tuple(restarted)),
        "take_over_p50_s": Figure(
            what="kill -9 to new decisions of all its partitions by another replica: half of the kills", unit="s",
            runs=(median(taken),), most=3.0,
        ),
        "take_over_s": Figure(what="each kill", unit="s", runs=tuple(taken)),
    }  # fmt: skip
    return Report(bench="kafka-recovery", figures=figures, details={"kills": runs, "settings": "the demo's, fused"})


def _told(
    servers: str, how: str, once: Callable[[str, int], float], n: int, runs: int, note: Callable[[str], None]
) -> float:  # fmt: skip
    found = once(servers, n)
    note(f"{how}, kill {n + 1} of {runs}: {found:.2f} s")
    return found


def restart(servers: str, seed: int) -> float:
    return _kill(servers, seed, "fused-0", lambda settings: settings, [0])


def take_over(servers: str, seed: int) -> float:
    """Of two replicas one dies, and what healing proposes is only noted: it would start it again."""

    def shared(settings: Settings) -> Settings:
        run = msgspec.structs.replace(settings.run, partitions=PARTITIONS, replicas={"fused": 2})
        return msgspec.structs.replace(
            settings, run=run, policy=msgspec.structs.replace(settings.policy, modes={"RESTART": "observe"})
        )

    return _kill(servers, seed, "fused-1", shared, range(1, PARTITIONS, 2))


def _kill(
    servers: str, seed: int, victim: str, changed: Callable[[Settings], Settings], partitions: Sequence[int]
) -> float:
    """Seconds, of one kill in a house of its own: budgets would stop healing after a few in one house."""
    with contextlib.ExitStack() as stack:
        root = stack.enter_context(ground.folder())
        own = stack.enter_context(broker(servers))
        settings = changed(own.holds(demo_settings(str(root), fuse=True, seed=seed, metrics=False)))
        register_models(settings)
        house = stack.enter_context(House(settings))
        bus = stack.enter_context(contextlib.closing(open_bus(settings)))
        streams = [Stream(Topic.DECISIONS, partition) for partition in partitions]
        stack.enter_context(contextlib.closing(bus.listen("bench", streams)))
        decisions = _Decisions(bus, streams)
        _serve(house, lambda: decisions.newest_us() > 0, ground.START_S)
        until = time.monotonic() + CALM_S
        _serve(house, lambda: time.monotonic() >= until, LONGEST_S)
        killed = house.shown()[victim]
        os.kill(killed["pid"], signal.SIGKILL)
        killed_us = bus.now_us()
        found = _serve(house, lambda: decisions.newest_us() > killed_us, LONGEST_S)
        if len(streams) > 1 and house.shown()[victim]["generation"] != killed["generation"]:
            raise CouldNot(f"bench: {victim} was started again meanwhile", hint="is the machine overloaded?")
        return found


class _Decisions:
    """Read on and on; what is stamped after the kill was made by the next owner."""

    def __init__(self, bus: Bus, streams: Sequence[Stream]) -> None:
        self._bus = bus
        self._positions = dict.fromkeys(streams, 0)
        self._newest_us = dict.fromkeys(streams, 0)

    def newest_us(self) -> int:
        """Of the stream that is the furthest behind."""
        for stream, position in self._positions.items():
            for block in self._bus.read(stream, position, max_rows=10_000, max_bytes=8 << 20):
                self._positions[stream], self._newest_us[stream] = block.next, block.at_us
        return min(self._newest_us.values())


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
