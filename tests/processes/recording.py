"""A recorder as a process of its own, on a long literal log in small batches; it ends when SQL has all of it."""

from __future__ import annotations

import sys
import time

from tests.unit.store.literal_log import FakeBus, chained, change, head, memory, step

from mendstream.adapters.store import recorder as module
from mendstream.contracts.records import Status

INCIDENTS = 300


def long_log() -> FakeBus:
    """Incidents with a memory each, and a change of the config for each."""
    bus, steps = FakeBus(), []
    for n in range(INCIDENTS):
        kind = "LATENCY_SLO_BREACH"
        opened = head(f"inc-{n}", kind, Status.OPEN, n)
        ended = head(f"inc-{n}", kind, Status.RESOLVED, n, n + 0.5)
        steps.append(step(opened, "detection", "DETECTED", n))
        kept = memory(f"mem-{n}", f"inc-{n}", kind, "load", {"n": float(n)})
        steps.append(step(ended, "memory", "RESOLVED", n + 0.5, memory=kept))
        bus.append(change(f"cfg-{n}", n, n, {"sampling": 0.5 if n % 2 else 0.25}, incident_id=f"inc-{n}"))
    bus.append(*chained(steps))
    return bus


def record(url: str, batch: int) -> None:
    module.BATCH_ROWS = batch
    bus = long_log()
    ends = {str(stream): len(lines) for stream, lines in bus.lines.items()}
    recorder = module.Recorder(bus, url)
    while True:
        if not recorder.pump():
            marks = recorder._marks or {}
            if {str(stream): mark.position for stream, mark in marks.items()} == ends:
                break
            time.sleep(0.01)  # the database is away
    recorder.close()


if __name__ == "__main__":
    record(sys.argv[1], int(sys.argv[2]))
