"""From `mendstream run` to the first decision, to full supervision and to a clean end; and the memory of all of it."""

from __future__ import annotations

import contextlib
import signal
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from mendstream.adapters.models.catalogue import Catalogue
from mendstream.bench import ground
from mendstream.bench.figures import Figure, Report
from mendstream.contracts.errors import CouldNot
from mendstream.contracts.ports import Bus
from mendstream.contracts.records import Pulse, TaskState, Vitals, decode_block
from mendstream.contracts.topics import Stream, Topic
from mendstream.demo.result import Memory, family
from mendstream.demo.scenario import ACTOR, Story, demo_settings, register_models, tell
from mendstream.runtime.ground import open_bus
from mendstream.runtime.inject import inject
from mendstream.runtime.roster import ROLE_OF
from mendstream.settings import Settings, models_dir

FAULTS = ("slow-model", "drift")
"""What the house goes through while its memory is watched: an incident, and a retraining."""
LOOK_S = 0.05
LONGEST_S = 180.0
TOLD_S = 600.0
"""MLflow is told politely: on a busy machine that takes minutes."""
_METRICS = (Stream(Topic.AGENT_METRICS, 0), Stream(Topic.AGENT_METRICS, 1))
_VITALS = Stream(Topic.VITALS, 0)


class Started(NamedTuple):
    """Seconds since the command was given; None for what was not looked at, or never came."""

    first_decision_s: float | None
    supervised_s: float | None
    stopped_s: float
    first_healed_s: float | None
    memory_mb: float | None
    lmdb_map_mb: float | None
    endings: tuple[str, ...]


def measure(runs: int, note: Callable[[str], None]) -> Report:
    found = {fuse: [_noted(fuse, n, runs, note) for n in range(runs)] for fuse in (False, True)}
    figures: dict[str, Figure] = {}
    for fuse, started in found.items():
        figures |= _figures(started, "fused_" if fuse else "", memory=500.0 if fuse else 800.0)
    long = {("fused" if fuse else "a process each"): list(started[0].endings) for fuse, started in found.items()}
    return Report(bench="start", figures=figures, details={"faults": list(FAULTS), "endings": long})


def _figures(found: Sequence[Started], name: str, *, memory: float) -> dict[str, Figure]:
    how, long = ("fused" if name else "a process each"), found[0]
    return {
        f"{name}first_decision_s": Figure(what=f"{how}: command to the first decision, migrations included", unit="s",
                                          runs=tuple(run.first_decision_s for run in found), most=3.0),
        f"{name}supervised_s": Figure(what=f"{how}: command until all pulse and every stage is seen well", unit="s",
                                      runs=tuple(run.supervised_s for run in found), most=8.0),
        f"{name}stopped_s": Figure(what=f"{how}: SIGTERM to a clean end", unit="s",
                                   runs=tuple(run.stopped_s for run in found), most=3.0),
        f"{name}first_healed_s": Figure(what=f"{how}: command to the first healed incident, 10 s of control included",
                                        unit="s", runs=(long.first_healed_s,), most=30.0),
        f"{name}memory_mb": Figure(what=f"{how}: peak of all processes (PSS), retraining and MLflow included",
                                   unit="MB", runs=(long.memory_mb,), most=memory),
        f"{name}lmdb_map_mb": Figure(what=f"{how}: pages of the log's files, beside it", unit="MB",
                                     runs=(long.lmdb_map_mb,)),
    }  # fmt: skip


def _noted(fuse: bool, n: int, runs: int, note: Callable[[str], None]) -> Started:
    found = once(fuse=fuse, seed=n, hurt=n == 0)
    how = "fused" if fuse else "a process each"
    text = f"first decision {_s(found.first_decision_s)}, supervised {_s(found.supervised_s)}"
    if found.endings:
        memory = "-" if found.memory_mb is None else f"{found.memory_mb:.0f} MB"
        text += f", first healed {_s(found.first_healed_s)}, memory {memory} ({', '.join(found.endings)})"
    note(f"{how}, run {n + 1} of {runs}: {text}")
    return found


def once(*, fuse: bool, seed: int, hurt: bool) -> Started:
    """One `mendstream run` on a new data directory. `hurt`: it then goes through FAULTS while memory is watched."""
    with ground.folder() as root:
        house = demo_settings(str(root), fuse=fuse, seed=seed, metrics=True)
        house = msgspec.structs.replace(house, metrics=msgspec.structs.replace(house.metrics, base_port=_free_ports()))
        register_models(house)
        story = Story(FAULTS)
        story.started_us = story.now_us = _now_us()
        with ground.processes(house, [("run",)]) as (process,), _watched(process.pid) as memory:
            ground.wait_for("start", (root / "run" / "processes.json").exists, [process])
            with contextlib.closing(open_bus(house)) as bus:
                ground.wait_for("decision", lambda: ground.first_decision_us(bus) is not None, [process])
                story.first_decision_us = ground.first_decision_us(bus)
                supervised = _supervised_us(root, bus, process, story)
                if hurt:
                    _live(story, house, bus, process)
                    ground.wait_for("run id from MLflow", lambda: _registered(house), [process], seconds=TOLD_S)
            stopped = _stop(process)
    return Started(
        first_decision_s=_since(story, story.first_decision_us),
        supervised_s=_since(story, supervised),
        stopped_s=stopped,
        first_healed_s=_since(story, story.first_healed_us),
        memory_mb=memory.peak_mb,
        lmdb_map_mb=memory.lmdb_map_mb,
        endings=tuple(f"{attempt.row.name} {attempt.ending}" for attempt in story.attempts),
    )


# --- looking ---------------------------------------------------------------------------------------------------------


def _supervised_us(root: Path, bus: Bus, process: subprocess.Popen[bytes], story: Story) -> int:
    """When every process had pulsed with its tasks, the store stood, and the judge saw every stage well and serving."""
    look = _Look(root)
    ground.wait_for("full supervision", lambda: look.complete(bus), [process])
    return max(look.at_us, story.first_decision_us or 0)


class _Look:
    def __init__(self, root: Path) -> None:
        self._root = root
        self._positions = dict.fromkeys((*_METRICS, _VITALS), 0)
        self._pulsed: set[str] = set()
        self._seen_well = False
        self.at_us = 0
        """Of the newest sign that was needed."""

    def complete(self, bus: Bus) -> bool:
        for record in self._records(bus):
            if isinstance(record, Pulse) and record.process not in self._pulsed:
                # A process pulses while it is still importing: only with its tasks it works.
                if record.tasks or not ROLE_OF[record.agent].agents:
                    self._pulsed.add(record.process)
                    self.at_us = max(self.at_us, record.at_us)
            elif isinstance(record, Vitals) and not self._seen_well and record.tasks:
                self._seen_well = all(task.state is TaskState.OK for task in record.tasks)
                self.at_us = max(self.at_us, record.at_us)
        done = self._seen_well and self._pulsed.issuperset(self._expected()) and self._store_stands()
        time.sleep(LOOK_S)
        return done

    def _records(self, bus: Bus) -> Iterator[object]:
        for stream, position in self._positions.items():
            for block in bus.read(stream, position, max_rows=5000, max_bytes=8 << 20):
                yield from decode_block(stream.topic, bytes(block.value))
                self._positions[stream] = block.next

    def _expected(self) -> set[str]:
        found = msgspec.json.decode((self._root / "run" / "processes.json").read_bytes(), type=_Processes)
        return {name for name, child in found.children.items() if child.role != "trainer"}

    def _store_stands(self) -> bool:
        for file in self._root.glob("*.db"):
            try:
                with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as store:
                    rows = store.execute("select version_num from mendstream_version").fetchall()
                    count = store.execute("select count(*) from sqlite_master where name = 'incidents'").fetchone()
            except sqlite3.Error:
                continue  # not there yet, or in the middle of its migration
            if rows and count[0]:
                return True
        return False


class _Child(msgspec.Struct):
    role: str


class _Processes(msgspec.Struct):
    children: dict[str, _Child]


def _live(story: Story, house: Settings, bus: Bus, process: subprocess.Popen[bytes]) -> None:
    """The demo's story: control, then each fault until it is healed."""
    telling = tell(story, lambda name, on: inject(house, name, {}, on, ACTOR, bus=bus), lambda text: None)
    while not story.over and story.now_us - story.started_us < LONGEST_S * 1e6:
        if process.poll() is not None:
            raise CouldNot(f"the house ended with code {process.returncode} amid its story", hint="run it alone")
        story.now_us = _now_us()
        story.news.read(bus)
        next(telling, None)
        time.sleep(LOOK_S)


def _registered(house: Settings) -> bool:
    """MLflow knows every version. Telling it takes as much memory as a training."""
    catalogue = Catalogue(models_dir(house).absolute())
    return all(catalogue.fetch(version).run_id for version in catalogue.versions())


def _stop(process: subprocess.Popen[bytes]) -> float:
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):  # too late: the figure says so
        process.wait(2 * ground.STOP_S)
    return time.monotonic() - begun


@contextlib.contextmanager
def _watched(pid: int) -> Iterator[Memory]:
    """The memory of a process and all of its descendants, within."""
    memory, ended = Memory(), threading.Event()

    def watch() -> None:
        while not ended.wait(Memory.EVERY_S):
            memory.take([_smaps(member) for member in family(pid)])

    thread = threading.Thread(target=watch, name="memory", daemon=True)
    thread.start()
    try:
        yield memory
    finally:
        ended.set()
        thread.join()


def _smaps(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/smaps").read_bytes()
    except OSError:  # it ended meanwhile
        return b""


# --- small parts -----------------------------------------------------------------------------------------------------


def _free_ports(count: int = 7) -> int:
    """The first of `count` free ports in a row, so that another house on this machine does no harm."""
    for base in range(18_001, 60_000, 10):
        with contextlib.ExitStack() as stack:
            try:
                for port in range(base, base + count):
                    stack.enter_context(contextlib.closing(socket.create_server(("127.0.0.1", port))))
            except OSError:
                continue
        return base
    raise CouldNot("no seven ports in a row are free", hint="too much is running on this machine")


def _since(story: Story, at_us: int | None) -> float | None:
    return None if at_us is None else (at_us - story.started_us) / 1e6


def _s(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.2f} s"


def _now_us() -> int:
    return time.time_ns() // 1000
