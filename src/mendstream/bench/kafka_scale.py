"""Replicas of the fused chain on one broker: what an event costs with one, two, as many as there are cores, and how
fast they are together.

Nothing generates or ingests while they work: the topic that they share lies full before the first of them starts, for
ingestion is one task and would be what is measured. The broker has the cores that they leave it, so the figures say
beside the workers' share of the machine what everybody else had of it.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from subprocess import Popen
from typing import NamedTuple

import msgspec
from confluent_kafka import Consumer

from mendstream.bench import ground, kafka
from mendstream.bench.broker import Broker, broker
from mendstream.bench.figures import Figure, Report
from mendstream.bench.sources import stock
from mendstream.contracts.errors import CouldNot
from mendstream.contracts.ports import Bus
from mendstream.contracts.topics import Stream, Topic
from mendstream.runtime.ground import open_bus, prepare
from mendstream.settings import Settings

PARTITIONS = 4
ROUNDS = 4
"""So often all events of the stock, each time under ids of their own."""
WARM = 10_000
"""Decisions of each partition before the window begins: imports and the first fetches lie before it."""
LONGEST_S = 240.0
LOOK_S = 0.1
"""Between two looks at how far they are, each of which costs the broker and this process something too."""
FLAT = 1.15
NOTE = (
    "A worker is feature, model and decision in one process; ingestion has filled their topic before and has ended. "
    "The window begins when every partition is under way and ends about when the first one is done. Broker and workers "
    "share the cores: where both together use nearly all of them, no more replicas can help on this machine."
)


@dataclass(frozen=True)
class Spent(kafka.Spent):
    """In the window of one run."""

    others_s: float
    """CPU time of everything else on this machine."""


def measure(runs: int, note: Callable[[str], None], *, servers: str) -> Report:
    counts = replicas(len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1)
    found: dict[int, list[Spent]] = {count: [] for count in counts}
    for n in range(runs):
        for count in counts:
            spent = once(servers, count)
            found[count].append(spent)
            note(
                f"run {n + 1} of {runs}, {count} replica{'s' if count > 1 else ''}: {spent.events_per_s:,.0f} events/s "
                f"at {spent.cpu_us:.2f} us of CPU an event; cores in use: workers {spent.cpu_s / spent.seconds:.2f}, "
                f"others {spent.others_s / spent.seconds:.2f}"
            )
    return Report(bench="kafka-scale", figures=figures(found), details={"partitions": PARTITIONS, "note": NOTE})


def replicas(cores: int) -> tuple[int, ...]:
    """1, 2, and as many as there are cores: of more than partitions the rest would have nothing to do."""
    return tuple(sorted({1, 2, min(cores, PARTITIONS)}))


def figures(found: dict[int, list[Spent]]) -> dict[str, Figure]:
    costs = [median(spent.cpu_us for spent in runs) for runs in found.values()]
    rates = {count: median(spent.events_per_s for spent in runs) for count, runs in found.items()}
    most = max(found)
    told = {
        "cpu_flat": Figure(what="CPU per event, medians: the dearest number of replicas over the cheapest", unit="",
                           runs=(max(costs) / min(costs),), most=FLAT),
        "speedup": Figure(what=f"events/s, medians: {most} replicas over 1", unit="",
                          runs=(rates[most] / rates[1],), least=1.0),
    }  # fmt: skip
    for count, runs in found.items():
        name, how = f"r{count}_", f"{count} replica{'s' if count > 1 else ''}"
        told |= {
            f"{name}cpu_us_per_event": Figure(what=f"{how}: of the worker processes", unit="us",
                                              runs=tuple(run.cpu_us for run in runs)),
            f"{name}events_per_s": Figure(what=f"{how}: wall, all together", unit="events/s",
                                          runs=tuple(run.events_per_s for run in runs)),
            f"{name}cores": Figure(what=f"{how}: cores that the workers used", unit="cores",
                                   runs=tuple(run.cpu_s / run.seconds for run in runs)),
            f"{name}others_cores": Figure(what=f"{how}: cores that all else used, the broker above all", unit="cores",
                                          runs=tuple(run.others_s / run.seconds for run in runs)),
        }  # fmt: skip
    return told


# --- one run ---------------------------------------------------------------------------------------------------------


def once(servers: str, count: int) -> Spent:
    """`count` replicas from the start to the last decision. Raises CouldNot unless each event is decided just once."""
    with broker(servers) as own, ground.folder() as root:
        source = own.make("flights", PARTITIONS)
        house = _house(own, root, source, count)
        prepare(house)
        with contextlib.closing(open_bus(house)) as bus:
            events = _fill(own, house, bus, source)
        workers = [("agent", "fused", "--replica", str(n)) for n in range(count)]
        with ground.processes(house, workers) as started, contextlib.closing(own.reader()) as reader:
            first, last = _window(own, reader, started, events)
            decided = _decided(own, started, events)
    if len({event_id for _, _, event_id in decided}) != len(decided):
        raise CouldNot("bench: events were decided twice", hint="this is a bug")
    within = sum(first.ends[p] <= offset < last.ends[p] for p, offset, _ in decided)
    cpu_s = last.cpu_s - first.cpu_s
    return Spent(within, last.at - first.at, cpu_s, max(0.0, last.busy_s - first.busy_s - cpu_s))


def _house(own: Broker, root: Path, source: str, count: int) -> Settings:
    """Nobody waits for a stage behind: all that is ingested lies there until the workers come."""
    house = own.holds(ground.settings(root, fuse=True, source=f"kafka:{source}"))
    run = msgspec.structs.replace(house.run, partitions=PARTITIONS, replicas={"fused": count})
    bus = msgspec.structs.replace(house.bus, max_backlog=100_000_000)
    return msgspec.structs.replace(house, run=run, bus=bus)


def _fill(own: Broker, house: Settings, bus: Bus, source: str) -> int:
    """How many events lie ready for the workers."""
    own.fill(source, PARTITIONS, events())
    wanted, found, positions = ROUNDS * len(stock()), 0, dict.fromkeys(range(PARTITIONS), 0)

    def complete() -> bool:
        nonlocal found
        for partition, position in positions.items():
            for block in bus.read(Stream(Topic.RAW_EVENTS, partition), position, max_rows=50_000, max_bytes=8 << 20):
                found, positions[partition] = found + block.rows, block.next
        return found >= wanted

    with ground.processes(house, [("agent", "ingestion")]) as started:
        ground.wait_for(f"{wanted:,} events", complete, started, seconds=LONGEST_S)
    return found


def events() -> Iterator[bytes]:
    for n in range(ROUNDS):
        for line in stock():
            yield line.value.replace(b'{"id":"', b'{"id":"%d-' % n, 1)


class _Look(NamedTuple):
    ends: list[int]
    at: float
    cpu_s: float
    busy_s: float
    """CPU time of everybody on this machine."""


def _window(own: Broker, reader: Consumer, started: Sequence[Popen[bytes]], events: int) -> tuple[_Look, _Look]:
    def once(what: str, enough: Callable[[_Look], bool]) -> _Look:
        looks: list[_Look] = []

        def there() -> bool:
            time.sleep(LOOK_S)
            looks.append(_look(own, reader, started))
            return enough(looks[-1])

        ground.wait_for(what, there, started, seconds=LONGEST_S)
        return looks[-1]

    first = once("decisions of all partitions", lambda look: min(look.ends) >= WARM)
    least = _least(events)
    return first, once("the end of a partition", lambda look: max(look.ends) >= least)


def _least(events: int) -> int:
    """What the fullest partition has for certain: keys are not spread quite evenly, and it has its share at least."""
    return events // PARTITIONS


def _look(own: Broker, reader: Consumer, started: Sequence[Popen[bytes]]) -> _Look:
    ends, cpu_s = own.end(reader, own.decisions), ground.cpu_told_s(started)
    return _Look(ends, time.perf_counter(), cpu_s, _busy_s())


def _busy_s() -> float:
    user, nice, system, _, _, interrupts, soft, *_ = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    return sum(map(int, (user, nice, system, interrupts, soft))) / os.sysconf("SC_CLK_TCK")


def _decided(own: Broker, started: Sequence[Popen[bytes]], events: int) -> list[tuple[int, int, str]]:
    """(partition, offset, id) of every decision, as soon as there are so many."""
    found: list[tuple[int, int, str]] = []
    with own.reading(own.decisions) as more:

        def complete() -> bool:
            found.extend((partition, offset, _decode(value).event_id) for partition, offset, value in more())
            return len(found) >= events

        ground.wait_for(f"{events:,} decisions", complete, started, seconds=LONGEST_S)
    return found


class _Id(msgspec.Struct):
    event_id: str


_decode = msgspec.json.Decoder(_Id).decode
