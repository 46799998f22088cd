"""How long an event takes through four processes: from when it was due to when its decision can be read."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import msgspec
import numpy as np

from mendstream.bench import ground
from mendstream.bench.figures import Figure, Report
from mendstream.bench.ground import DECISIONS
from mendstream.bench.sources import PACED, due_of, monotonic_us
from mendstream.contracts.agent import STAGES
from mendstream.contracts.ports import Bus
from mendstream.contracts.topics import Wing
from mendstream.runtime.ground import open_bus, prepare

RATE = 10_000.0
LINGER_MS = 1.0
"""`ingestion.linger_ms` of these runs: without it, the first stage makes thousands of tiny turns, and all follow."""
WARM_S = 3.0
WINDOW_S = 10.0
POWER_RUNS = 1
Durability = Literal["power", "process"]


class Latency(NamedTuple):
    """Of the events that were due within the window."""

    events: int
    p50_ms: float | None
    p99_ms: float | None
    worst_ms: float | None
    cpu_us: float | None
    """CPU time of all four processes per event."""

    @property
    def complete(self) -> float:
        """Share of the offered events that were seen decided."""
        return self.events / (RATE * WINDOW_S)


def measure(runs: int, note: Callable[[str], None]) -> Report:
    process = [_told("process", n, runs, note) for n in range(runs)]
    power = [_told("power", n, POWER_RUNS, note) for n in range(POWER_RUNS)]
    figures = {**_figures(process, "", p50=3.0, p99=10.0), **_figures(power, "power_", p50=None, p99=None)}
    details = {"offered_events_per_s": RATE, "window_s": WINDOW_S, "linger_ms": LINGER_MS}
    return Report(bench="latency", figures=figures, details=details)


def _figures(found: Sequence[Latency], name: str, *, p50: float | None, p99: float | None) -> dict[str, Figure]:
    how = "durability power" if name else "durability process"
    return {
        f"{name}p50_ms": Figure(what=f"{how}: half of the events are decided within it", unit="ms",
                                runs=tuple(run.p50_ms for run in found), most=p50),
        f"{name}p99_ms": Figure(what=f"{how}: 99 of 100", unit="ms",
                                runs=tuple(run.p99_ms for run in found), most=p99),
        f"{name}max_ms": Figure(what=f"{how}: the slowest", unit="ms", runs=tuple(run.worst_ms for run in found)),
        f"{name}decided_share": Figure(what=f"{how}: events of the window that were seen decided", unit="",
                                       runs=tuple(run.complete for run in found),
                                       least=None if name else 0.999),
        f"{name}cpu_us": Figure(what=f"{how}: CPU per event", unit="us", runs=tuple(run.cpu_us for run in found)),
    }  # fmt: skip


def _told(durability: Durability, n: int, runs: int, note: Callable[[str], None]) -> Latency:
    found = once(durability)
    note(
        f"{durability}, run {n + 1} of {runs}: p50 {found.p50_ms or 0:.2f} ms, p99 {found.p99_ms or 0:.2f} ms, "
        f"{found.complete:.1%} decided"
    )
    return found


def once(durability: Durability) -> Latency:
    """One run on a fresh log."""
    with ground.folder() as root:
        house = ground.settings(root, fuse=False, source=PACED, rate=RATE, linger_ms=LINGER_MS, durability=durability)
        prepare(house)
        with contextlib.closing(open_bus(house, Wing.CONTROL, readonly=True)) as bus:
            with ground.processes(house, [("agent", role) for role in STAGES]) as started:
                ground.wait_for("decision", lambda: bus.bounds(DECISIONS)[1] > 0, started)
                reader = Reader(bus)
                reader.read_for(WARM_S)
                reader.forget()
                begun, cpu = monotonic_us(), ground.cpu_s(started)
                reader.read_for(WINDOW_S)
                after = ground.cpu_s(started)
                # What was due at the end of the window may still be on its way; what is never seen counts as missing.
                reader.read_for(WARM_S)
            reader.close()
    return reader.latency(begun, begun + int(WINDOW_S * 1e6), None if cpu is None or after is None else after - cpu)


class Reader:
    """Tails decisions by the bell, as any user of them can; notes when it had read what, and looks inside later."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._bell = bus.listen("bench", [DECISIONS])
        self._position = bus.bounds(DECISIONS)[1]
        self._seen: list[tuple[int, bytes]] = []

    def read_for(self, seconds: float) -> None:
        until = monotonic_us() + int(seconds * 1e6)
        while (left := until - monotonic_us()) > 0:
            blocks = self._bus.read(DECISIONS, self._position, max_rows=10_000, max_bytes=8 << 20)
            now = monotonic_us()
            for block in blocks:
                self._seen.append((now, bytes(block.value)))
                self._position = block.next
            if not blocks:
                self._bell.wait(left / 1e6)

    def forget(self) -> None:
        self._seen.clear()

    def close(self) -> None:
        self._bell.close()

    def latency(self, begun: int, ended: int, cpu_s: float | None) -> Latency:
        """Of the events that were due from `begun` to `ended`."""
        return latency_of(self._seen, begun, ended, cpu_s)


def latency_of(seen: Sequence[tuple[int, bytes]], begun: int, ended: int, cpu_s: float | None) -> Latency:
    """`seen`: when which decisions were read; of the events that were due from `begun` to `ended`."""
    due, read = [], []
    for at, value in seen:
        for decision in _decode_ids(value):
            due.append(due_of(decision.event_id))
            read.append(at)
    dues = np.array(due, dtype=np.int64)
    within = (dues >= begun) & (dues < ended)
    ms = (np.array(read, dtype=np.int64)[within] - dues[within]) / 1000
    if not len(ms):
        return Latency(0, None, None, None, None)
    p50, p99 = np.percentile(ms, [50, 99])
    cpu_us = None if cpu_s is None else cpu_s / len(ms) * 1e6
    return Latency(len(ms), float(p50), float(p99), float(ms.max()), cpu_us)


class _Id(msgspec.Struct):
    event_id: str


_decode_ids = msgspec.json.Decoder(_Id).decode_lines
