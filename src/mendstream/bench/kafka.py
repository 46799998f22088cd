"""What a decision costs on Kafka, exactly once: fused, a process per stage, and a client that was written by hand.

All read the same JSON records, decide each of them and write a JSON record, one worker after the other in each run.
Figures are by the CPU time of the workers' own processes, so that what else the machine does meets them less; the
broker's is not in them.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec
from confluent_kafka import Consumer

import mendstream
from mendstream.bench import ground
from mendstream.bench.broker import Broker, broker
from mendstream.bench.figures import Figure, Report
from mendstream.bench.sources import STOCK, stock
from mendstream.client import FrameProducer
from mendstream.contracts.agent import STAGES
from mendstream.contracts.errors import CouldNot
from mendstream.demo import pipeline
from mendstream.demo.scenario import FIRST_MODELS
from mendstream.runtime.ground import prepare

PARTITIONS = (1, 4)
"""Of the topic that is read."""
WARM = 20_000
"""Events decided before the window begins: imports and the first fetches lie before it."""
FRAME_ROWS = 2000
"""Of one frame: the client's default."""
LONGEST_S = 180.0
PEER = Path("benchmarks/peers/handwritten/worker.py")
NOTE = (
    "CPU per event is of the worker processes only; wall rates depend on what else the machine does. With 4 partitions "
    "one fused worker reads all four and keeps its own topics in one; the hand-written client writes to four."
)


@dataclass(frozen=True)
class Spent:
    """Between two looks at the decisions that can be read."""

    events: int
    seconds: float
    cpu_s: float

    @property
    def events_per_s(self) -> float:
        return self.events / self.seconds

    @property
    def cpu_us(self) -> float:
        return self.cpu_s / self.events * 1e6


class Compared(NamedTuple):
    """Of one run."""

    fused: Spent
    hand: Spent
    frames: Spent
    """Fused, of the same events as frames of our own client."""


def measure(runs: int, note: Callable[[str], None], *, servers: str) -> Report:
    found: dict[int, list[Compared]] = {}
    apart: list[tuple[Spent, Spent]] = []
    for partitions in PARTITIONS:
        for n in range(runs):
            both = Compared(
                _ours(servers, partitions, ("fused",)),
                _by_hand(servers, partitions),
                _ours(servers, partitions, ("fused",), fill=_frames),
            )
            found.setdefault(partitions, []).append(both)
            note(
                f"{partitions} partitions, run {n + 1} of {runs}: fused {both.fused.cpu_us:.2f} us an event "
                f"({both.fused.events_per_s:,.0f}/s), by hand {both.hand.cpu_us:.2f} us "
                f"({both.hand.events_per_s:,.0f}/s), from frames {both.frames.cpu_us:.2f} us "
                f"({both.frames.events_per_s:,.0f}/s)"
            )
            if partitions == 1:
                apart.append((both.fused, _ours(servers, partitions, STAGES)))
                note(f"a process per stage: {apart[-1][1].cpu_us:.2f} us an event, all four together")
    figures = {name: figure for p, both in found.items() for name, figure in _figures(p, both).items()}
    return Report(bench="kafka", figures={**figures, **_apart(apart)}, details={"events": STOCK, "note": NOTE})


def _figures(partitions: int, found: Sequence[Compared]) -> dict[str, Figure]:
    name, how = f"p{partitions}_", f"{partitions} partition{'s' if partitions > 1 else ''}"
    return {
        f"{name}ratio": Figure(what=f"{how}: CPU per event by hand, over fused", unit="",
                               runs=tuple(run.hand.cpu_us / run.fused.cpu_us for run in found), least=1.0),
        f"{name}cpu_us_per_event": Figure(what=f"{how}: fused, of the worker process", unit="us",
                                          runs=tuple(run.fused.cpu_us for run in found)),
        f"{name}events_per_s": Figure(what=f"{how}: fused, wall", unit="events/s",
                                      runs=tuple(run.fused.events_per_s for run in found)),
        f"{name}hand_cpu_us_per_event": Figure(what=f"{how}: hand-written client", unit="us",
                                               runs=tuple(run.hand.cpu_us for run in found)),
        f"{name}hand_events_per_s": Figure(what=f"{how}: hand-written client, wall", unit="events/s",
                                           runs=tuple(run.hand.events_per_s for run in found)),
        f"{name}frames_ratio": Figure(what=f"{how}: CPU per event fused of JSON, over fused of frames", unit="",
                                      runs=tuple(run.fused.cpu_us / run.frames.cpu_us for run in found), least=1.5),
        f"{name}frames_cpu_us_per_event": Figure(what=f"{how}: fused of frames, of the worker process", unit="us",
                                                 runs=tuple(run.frames.cpu_us for run in found)),
        f"{name}frames_events_per_s": Figure(what=f"{how}: fused of frames, wall", unit="events/s",
                                             runs=tuple(run.frames.events_per_s for run in found)),
    }  # fmt: skip


def _apart(found: Sequence[tuple[Spent, Spent]]) -> dict[str, Figure]:
    return {
        "processes_ratio": Figure(what="a process per stage: CPU per event fused, over all four", unit="",
                                  runs=tuple(fused.cpu_us / each.cpu_us for fused, each in found), least=0.7),
        "processes_cpu_us_per_event": Figure(what="a process per stage, all four", unit="us",
                                             runs=tuple(each.cpu_us for _, each in found)),
    }  # fmt: skip


# --- what they read --------------------------------------------------------------------------------------------------

Fill = Callable[[Broker, str, int, Sequence[bytes]], None]
"""Puts lines into a topic of so many partitions."""


def _lines(own: Broker, topic: str, partitions: int, lines: Sequence[bytes]) -> None:
    own.fill(topic, partitions, lines)


def _frames(own: Broker, topic: str, partitions: int, lines: Sequence[bytes]) -> None:
    """As one who uses our client would send them: some events at a time, a key's in one partition."""
    event = pipeline.flights.event
    decode = msgspec.json.Decoder(event).decode
    with FrameProducer(own.cluster.servers, topic, event=event, key=pipeline.flights.key) as out:
        for start in range(0, len(lines), FRAME_ROWS * partitions):
            out.send(list(map(decode, lines[start : start + FRAME_ROWS * partitions])))


# --- the workers -----------------------------------------------------------------------------------------------------


def _ours(servers: str, partitions: int, roles: Sequence[str], *, fill: Fill = _lines) -> Spent:
    """Only the pipeline's processes run: nothing watches or heals."""
    with broker(servers) as own, ground.folder() as root:
        source = own.make("flights", partitions)
        house = own.holds(ground.settings(root, fuse=roles == ("fused",), source=f"kafka:{source}"))
        if fill is _frames:
            house = msgspec.structs.replace(
                house, ingestion=msgspec.structs.replace(house.ingestion, value_format="frame")
            )
        prepare(house)
        with ground.processes(house, [("agent", role) for role in roles]) as started:
            return _window(own, source, partitions, own.decisions, started, fill)


def _by_hand(servers: str, partitions: int) -> Spent:
    worker = Path(mendstream.__file__).parents[2] / PEER
    if not worker.exists():
        raise CouldNot(f"bench: there is no {PEER} here", hint="run it in a checkout of the repository")
    with broker(servers) as own:
        source, target, changes = (own.make(name, partitions) for name in ("flights", "out", "changes"))
        rates = Path(pipeline.__file__).parent / "data" / "rates.json"
        words = (servers, own.cluster.namespace, source, target, changes, FIRST_MODELS / "v1" / "model.onnx", rates)
        with _process([sys.executable, str(worker), *map(str, words)]) as process:
            return _window(own, source, partitions, target, [process], _lines)


@contextlib.contextmanager
def _process(words: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(words, env=ground.one_thread(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _window(
    own: Broker, source: str, partitions: int, target: str, started: Sequence[subprocess.Popen[bytes]], fill: Fill
) -> Spent:
    """From a full source to the last decision. Raises CouldNot unless each event is decided just once."""
    lines = [line.value for line in stock()]
    with contextlib.closing(own.reader()) as reader:
        fill(own, source, partitions, lines[:WARM])
        _all(own, target, started, WARM)
        with _stopped(started):  # so that the source is full when they begin
            fill(own, source, partitions, lines[WARM:])
            first = _look(own, reader, target, started)
        # The marks of transactions count as well, so this ends a little before the last decision.
        ground.wait_for("end", lambda: sum(own.end(reader, target)) >= STOCK, started, seconds=LONGEST_S)
        last = _look(own, reader, target, started)
        found = _all(own, target, started, STOCK)
    ids = {_decode(value).event_id for _, _, value in found}
    if len(ids) != len(found):
        raise CouldNot(f"bench: {len(found) - len(ids)} events were decided twice", hint="this is a bug")
    events = sum(first.ends[p] <= offset < last.ends[p] for p, offset, _ in found)
    return Spent(events, last.at - first.at, last.cpu_s - first.cpu_s)


@contextlib.contextmanager
def _stopped(started: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    for process in started:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in started:
            process.send_signal(signal.SIGCONT)


def _all(
    own: Broker, topic: str, started: Sequence[subprocess.Popen[bytes]], events: int
) -> list[tuple[int, int, bytes]]:
    """Every decision, as soon as there are so many: (partition, offset, value)."""
    found: list[tuple[int, int, bytes]] = []

    with own.reading(topic) as more:

        def complete() -> bool:
            found.extend(more())
            return len(found) >= events

        ground.wait_for(f"{events:,} decisions", complete, started, seconds=LONGEST_S)
    return found


class _Look(NamedTuple):
    ends: list[int]
    at: float
    cpu_s: float


def _look(own: Broker, reader: Consumer, topic: str, started: Sequence[subprocess.Popen[bytes]]) -> _Look:
    ends, cpu = own.end(reader, topic), ground.cpu_told_s(started)
    return _Look(ends, time.perf_counter(), cpu)


class _Id(msgspec.Struct):
    event_id: str


_decode = msgspec.json.Decoder(_Id).decode
