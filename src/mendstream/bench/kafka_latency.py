"""How long an event takes on Kafka, fused: from when it was due at its producer to when its decision can be read."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from confluent_kafka import Consumer

from mendstream.bench import ground
from mendstream.bench.broker import Broker, broker
from mendstream.bench.figures import Figure, Report
from mendstream.bench.latency import Latency, latency_of
from mendstream.bench.sources import Paced, monotonic_us
from mendstream.runtime.clock import WallClock
from mendstream.runtime.ground import prepare

WANTED = {1000: (15.0, 40.0), 5000: (20.0, 50.0)}
"""Events per second -> p50 and p99 in ms, on a quiet machine."""
BROKER_WARM_RUNS = 2
"""So many runs at the higher rate before any is measured: a broker whose JVM still compiles takes three times as long,
and one in service is not."""
WARM_S = 3.0
WINDOW_S = 10.0
_LOOK_S = 0.05
_SHORTEST_S = 0.0005
"""Between two looks at what is due."""


def measure(runs: int, note: Callable[[str], None], *, servers: str) -> Report:
    for n in range(BROKER_WARM_RUNS):
        note(f"warming up the broker, {n + 1} of {BROKER_WARM_RUNS}")
        once(servers, max(WANTED))
    found = {rate: [_told(servers, rate, n, runs, note) for n in range(runs)] for rate in WANTED}
    figures = {name: figure for rate, told in found.items() for name, figure in _figures(rate, told).items()}
    return Report(bench="kafka-latency", figures=figures, details={"window_s": WINDOW_S, "partitions": 1})


def _figures(rate: int, found: Sequence[Latency]) -> dict[str, Figure]:
    name, how, (p50, p99) = f"at_{rate}_", f"{rate:,} events/s offered", WANTED[rate]
    return {
        f"{name}p50_ms": Figure(what=f"{how}: half of the events are decided within it", unit="ms",
                                runs=tuple(run.p50_ms for run in found), most=p50),
        f"{name}p99_ms": Figure(what=f"{how}: 99 of 100", unit="ms",
                                runs=tuple(run.p99_ms for run in found), most=p99),
        f"{name}max_ms": Figure(what=f"{how}: the slowest", unit="ms", runs=tuple(run.worst_ms for run in found)),
        f"{name}decided_share": Figure(what=f"{how}: events of the window that were seen decided", unit="",
                                       runs=tuple(run.events / (rate * WINDOW_S) for run in found), least=0.999),
        f"{name}cpu_us": Figure(what=f"{how}: CPU of the worker per event", unit="us",
                                runs=tuple(run.cpu_us for run in found)),
    }  # fmt: skip


def _told(servers: str, rate: int, n: int, runs: int, note: Callable[[str], None]) -> Latency:
    found = once(servers, rate)
    note(
        f"{rate:,} events/s, run {n + 1} of {runs}: p50 {found.p50_ms or 0:.1f} ms, p99 {found.p99_ms or 0:.1f} ms, "
        f"{found.events / (rate * WINDOW_S):.1%} decided"
    )
    return found


def once(servers: str, rate: int) -> Latency:
    """One run on topics of its own."""
    with broker(servers) as own, ground.folder() as root:
        source = own.make("flights", 1)
        house = own.holds(ground.settings(root, fuse=True, source=f"kafka:{source}"))
        prepare(house)
        with (
            ground.processes(house, [("agent", "fused")]) as started,
            _produced(own, source, rate),
            contextlib.closing(own.reader()) as reader,
        ):
            own.tail(reader, own.decisions)
            ground.wait_for("decision", lambda: bool(_read_for(reader, _LOOK_S)), started)
            _read_for(reader, WARM_S)
            begun, cpu = monotonic_us(), ground.cpu_s(started)
            seen = _read_for(reader, WINDOW_S)
            after = ground.cpu_s(started)
            # What was due at the end of the window may still be on its way; what is never seen counts as missing.
            seen += _read_for(reader, WARM_S)
    spent = None if cpu is None or after is None else after - cpu
    return latency_of(seen, begun, begun + int(WINDOW_S * 1e6), spent)


@contextlib.contextmanager
def _produced(own: Broker, topic: str, rate: int) -> Iterator[None]:
    """`rate` events a second, each sent when it is due, by a thread."""
    ended = threading.Event()
    paced = Paced(0, rate, lambda: "normal", WallClock())
    producer = own.cluster.producer()

    def produce() -> None:
        position = 0
        while not ended.is_set():
            lines, _, position = paced.poll(position, rate, 0)
            for line in lines:
                producer.produce(topic, line.value, partition=0)
            producer.poll(0)
            time.sleep(max(_SHORTEST_S, paced.due_in_s()))

    thread = threading.Thread(target=produce, name="producer", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        producer.flush(1.0)


def _read_for(reader: Consumer, seconds: float) -> list[tuple[int, bytes]]:
    """(when it was read, decision)"""
    seen: list[tuple[int, bytes]] = []
    until = monotonic_us() + int(seconds * 1e6)
    while (left := until - monotonic_us()) > 0:
        first = reader.poll(min(left / 1e6, _LOOK_S))
        now = monotonic_us()
        found = [*([first] if first is not None else []), *reader.consume(10_000, 0)]
        seen += [(now, message.value() or b"") for message in found if message.error() is None]
    return seen
