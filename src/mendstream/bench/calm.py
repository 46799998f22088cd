"""Nothing is done to a real house for minutes: every alert is a false one.

Three times: paced, beside a busy neighbour, and as fast as it can.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgspec

from mendstream.bench import ground
from mendstream.bench.figures import Figure, Report
from mendstream.contracts.errors import UsageError
from mendstream.contracts.records import Alert, AlertState, decode_block
from mendstream.contracts.topics import Stream, Topic
from mendstream.demo.scenario import demo_settings
from mendstream.runtime.supervisor import House

MINUTES_ENV = "BENCH_MINUTES"
RATE = 500.0
_ALERTS = Stream(Topic.ALERTS, 0)
_BURN = "while True: pass"


class Case(NamedTuple):
    name: str
    what: str
    rate: float
    neighbours: int
    """Processes that burn a core each."""


CASES = (
    Case("paced", "at 500 events/s", RATE, 0),
    Case("neighbour", "at 500 events/s, beside a process that burns a core", RATE, 1),
    Case("full_speed", "as fast as the source gives", 0.0, 0),
)


def measure(runs: int, note: Callable[[str], None]) -> Report:
    minutes = float(os.environ.get(MINUTES_ENV, "10"))
    if not 0 < minutes <= 1440:
        raise UsageError(f"{MINUTES_ENV} = {minutes:g} is no number of minutes", hint="above 0, at most 1440")
    figures: dict[str, Figure] = {}
    details: dict[str, list[str]] = {}
    for case in CASES:
        note(f"{case.what}, {minutes:g} minutes")
        alerts, events = _watch(case, minutes)
        details[case.name] = alerts
        figures[f"{case.name}_alerts"] = Figure(what=f"false alerts {case.what}", unit="", most=0, runs=(len(alerts),))
        figures[f"{case.name}_events"] = Figure(what="events decided meanwhile", unit="", runs=(float(events),))
    return Report(bench="calm", figures=figures, details={"minutes": minutes, "alerts": details})


def _watch(case: Case, minutes: float) -> tuple[list[str], int]:
    """The alerts of one calm run, and how many events it decided. Raises what made the house fail."""
    with ground.folder() as root, _neighbours(case.neighbours):
        settings = demo_settings(str(root), fuse=False, seed=0, metrics=False)
        settings = msgspec.structs.replace(
            settings, ingestion=msgspec.structs.replace(settings.ingestion, rate=case.rate)
        )
        with House(settings) as house:
            until = time.monotonic() + minutes * 60
            while time.monotonic() < until and house.failure is None:
                house.step()
            bus = house._bus  # a log may be opened once in a process
            found = [
                f"{record.kind} of {record.subject}: {record.statistic} {record.value:.3g}, limit {record.limit:.3g}"
                for block in bus.read(_ALERTS, 0, max_rows=10_000, max_bytes=64 << 20)
                for record in decode_block(Topic.ALERTS, bytes(block.value))
                if isinstance(record, Alert) and record.state is AlertState.FIRING
            ]
            events = bus.bounds(ground.DECISIONS)[1]
        if house.failure is not None:
            raise house.failure
    return found, events


@contextlib.contextmanager
def _neighbours(count: int) -> Iterator[None]:
    started = [subprocess.Popen([sys.executable, "-c", _BURN]) for _ in range(count)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()
