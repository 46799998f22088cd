"""`mendstream demo`: a house is started, hurt, watched and stopped; its story is shown, counted and summed up."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from mendstream.chaos.faults import fault as fault_row
from mendstream.contracts.errors import UsageError
from mendstream.contracts.ports import Bus
from mendstream.contracts.topics import Stream, Topic
from mendstream.demo import result
from mendstream.demo.accounting import account
from mendstream.demo.scenario import ACTOR, ORDER, Story, demo_settings, register_models, tell
from mendstream.demo.view import Screen, screen_for
from mendstream.runtime.inject import inject
from mendstream.runtime.supervisor import House
from mendstream.settings import Settings

_DECISIONS = Stream(Topic.DECISIONS, 0)
_RAW = Stream(Topic.RAW_EVENTS, 0)
_DRAINED_S = 3.0
"""How long what was accepted may take to be decided at the end."""


def demo(
    *, fuse: bool = False, fault: str | None = None, seed: int = 0, data: str | None = None, json: bool = False,
    seconds: float | None = None,
) -> int:  # fmt: skip
    """Run the demonstration; 0 if everything was healed and counted, 1 if not, 130 if it was interrupted."""
    faults = ORDER if fault is None else (fault_row(fault).name,)
    with ExitStack() as stack:
        stops = stack.enter_context(_signals())
        root = stack.enter_context(_folder(data))
        settings = demo_settings(str(root), fuse=fuse, seed=seed, metrics=_ports_free())
        story = Story(faults)
        screen = stack.enter_context(screen_for(story, as_json=json))
        if not settings.metrics.enabled:
            screen.note("note: ports 8001 to 8007 are taken, so this run serves no metrics")
        memory = result.Memory()
        register_models(settings)
        _run(settings, story, screen, memory, stops, seconds)
        if stops:
            # Ctrl-C reaches every process at once: what was on its way is still in the log, undecided.
            screen.note("interrupted; the house has stopped cleanly, nothing was counted")
            return 128 + stops[0]
        screen.note("counting: each event of the source against the decisions")
        counted = account(root)
        screen.end(counted, memory, kept=data)
        if json:
            text = msgspec.json.format(msgspec.json.encode(result.document(story, counted, memory)), indent=2)
            sys.stdout.write(f"{text.decode()}\n")
        return 0 if result.good(story, counted) else 1


def _run(
    settings: Settings, story: Story, screen: Screen, memory: result.Memory, stops: list[int], seconds: float | None
) -> None:  # fmt: skip
    """The house from start to stop, and the story that is told in it. Raises what has made the house fail."""
    story.started_us = story.now_us = _now_us()
    limit = story.started_us + int((seconds or 3600) * 1e6)
    with House(settings) as house:
        memory.start()
        bus: Bus = house._bus  # a log may be opened once in a process
        story.news.on_step = screen.step
        telling = tell(story, lambda name, on: inject(settings, name, {}, on, ACTOR, bus=bus), screen.note)
        while house.failure is None and not stops and story.now_us < limit and not story.over:
            house.step()
            story.now_us = _now_us()
            story.first_decision_us = story.first_decision_us or _first_decision(bus)
            story.news.read(bus)
            next(telling, None)
            screen.show()
        memory.stop()
        _drain(house, bus)
        story.news.read(bus)
    if house.failure is not None:
        raise house.failure


def _first_decision(bus: Bus) -> int | None:
    blocks = bus.read(_DECISIONS, 0, max_rows=1, max_bytes=1)
    return blocks[0].at_us if blocks else None


def _drain(house: House, bus: Bus) -> None:
    """Let what was accepted be decided: the first stage ends, and the others go on until nothing is left to do.

    The house is not served meanwhile, so nobody restarts the stage that ended.
    """
    first = next((child for name, child in house.shown().items() if name in ("ingestion-0", "fused-0")), None)
    if first is not None and first["alive"]:
        _end(first["pid"])
    limit = time.monotonic() + _DRAINED_S
    at = -1, -1
    while time.monotonic() < limit:
        before, at = at, (bus.bounds(_RAW)[1], bus.bounds(_DECISIONS)[1])
        if at[0] == at[1]:
            return
        # Dead letters keep the two apart for good: then it is enough that nothing moves any more.
        time.sleep(0.02 if before != at else 0.2)


def _end(pid: int) -> None:
    limit = time.monotonic() + 1.0
    number = signal.SIGTERM
    while True:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        time.sleep(0.01)
        if time.monotonic() > limit:
            number = signal.SIGKILL


@contextmanager
def _signals() -> Iterator[list[int]]:
    """SIGINT and SIGTERM end the story at its next step; the house then stops as it always does."""
    seen: list[int] = []
    held = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in held:
        signal.signal(number, lambda number, frame: seen.append(number))
    try:
        yield seen
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)


@contextmanager
def _folder(data: str | None) -> Iterator[Path]:
    """A data directory: the named one, which must hold no log yet, or a temporary one."""
    if data is not None:
        root = Path(data)
        if (root / "data").exists() or (root / "control").exists():
            raise UsageError(f"{data} holds a log already", hint="the demo begins with nothing: name a new directory")
        yield root
        return
    root = Path(tempfile.mkdtemp(prefix="mendstream-demo-"))
    try:
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _ports_free() -> bool:
    for port in range(8001, 8008):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True


def _now_us() -> int:
    return time.time_ns() // 1000
