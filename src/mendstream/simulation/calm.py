"""The settings of a house that was hurt and what it decided in; the same events decided in peace, and compared, out."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from msgspec.structs import replace

from mendstream.adapters.models.catalogue import Catalogue
from mendstream.contracts.agent import STAGES, TaskId
from mendstream.contracts.errors import CouldNot
from mendstream.contracts.knobs import Mode
from mendstream.contracts.ports import Bus, Out
from mendstream.contracts.records import ConfigChange, encode_block
from mendstream.contracts.topics import CONFIG, Stream, Topic, source_place
from mendstream.runtime.ground import current_config, open_bus, prepare
from mendstream.settings import Settings, models_dir
from mendstream.simulation import audit
from mendstream.simulation.audit import Compared, Decided, Made
from mendstream.simulation.spawned import end, start

CALM_S = 300.0
"""How long one run without kills may take."""
_TICK_S = 0.02
_SETTLED_S = 0.5
_INPUTS = {"feature": Topic.RAW_EVENTS, "model": Topic.FEATURES, "decision": Topic.PREDICTIONS}


def against_calm_ones(
    settings: Settings, folder: Path, found: dict[str, tuple[Made, Decided]], last: int, told: Callable[[int], None]
) -> Compared:  # fmt: skip
    """Decide all events once more for each model, mode and threshold that was at work, with just these from the first
    event on, and compare the events that they have decided.
    """
    sums: list[Compared] = []
    for number, made in enumerate(audit.made_with(found)):
        calm = _calm(settings, folder / f"calm-{number}")
        _decide(calm, made, last)
        sums.append(audit.compare(found, audit.decisions(Path(calm.run.data_dir))))
        told(number + 1)
    return audit.total(sums)


def _calm(settings: Settings, root: Path) -> Settings:
    """The same house in another place, embedded, at full speed, with the models of the first one."""
    shutil.copytree(models_dir(settings), root / "models")
    run = replace(settings.run, data_dir=str(root), namespace="")
    bus = replace(settings.bus, kind="lmdb", bootstrap_servers="")
    return replace(settings, run=run, bus=bus, ingestion=replace(settings.ingestion, rate=0.0))


def _decide(settings: Settings, made: Made, last: int) -> None:
    """Run the pipeline alone, as `made` says, until event `last` is decided: nobody watches, so nothing changes."""
    prepare(settings)
    _fix(settings, made)
    first, *others = ("fused",) if settings.run.fuse else STAGES
    bus = open_bus(settings, readonly=True)
    source = Stream(Topic.SOURCE, source_place(settings.ingestion.source))
    started: dict[str, subprocess.Popen[bytes]] = {}
    said = Path(settings.run.data_dir) / "run.txt"
    try:
        for role in (first, *others):
            started[role] = start(settings, "agent", role, said=said)
        _until(lambda: (bus.position(TaskId("ingestion", 0), source) or 0) > last, started)
        end([started.pop(first)])
        _until(lambda: drained(bus), started)
    finally:
        end(list(started.values()))
        bus.close()


def _fix(settings: Settings, made: Made) -> None:
    """Turn the knobs before the first event."""
    digest = Catalogue(models_dir(settings).absolute()).fetch(made.model).digest
    changes = {
        "model_version": made.model, "model_digest": digest, "decision_threshold": made.threshold,
        "safe_mode": ["crashtest"] if made.mode == Mode.SAFE_MODE else [],
    }  # fmt: skip
    bus = open_bus(settings)
    try:
        base = current_config(bus).version
        change = ConfigChange(
            id=f"{bus.incarnation}/crashtest/0/1", base_version=base, changes=changes, actor="crashtest",
            reason="as it was in the run with kills", at_us=time.time_ns() // 1000, forced=True,
        )  # fmt: skip
        bus.publish([Out(CONFIG, encode_block([change]), 1)])
    finally:
        bus.close()


def _until(there: Callable[[], bool], started: dict[str, subprocess.Popen[bytes]]) -> None:
    limit = time.monotonic() + CALM_S
    while not there():
        ended = next((role for role, process in started.items() if process.poll() is not None), None)
        if ended is not None:
            raise CouldNot(f"crashtest: {ended} ended in the run without kills", hint="run it alone")
        if time.monotonic() > limit:
            raise CouldNot(f"crashtest: the run without kills took more than {CALM_S:.0f} s", hint="fewer kills")
        time.sleep(_TICK_S)


def drained(bus: Bus) -> bool:
    """Whether each stage has read all that the one before it has written. On a broker, what a turn has written is seen
    a little later than how far the turn has read: so it has to be true twice.
    """
    if not _drained(bus):
        return False
    time.sleep(_SETTLED_S)
    return _drained(bus)


def _drained(bus: Bus) -> bool:
    for stage, topic in _INPUTS.items():
        stream = Stream(topic, 0)
        position = bus.position(TaskId(stage, 0), stream)
        # Behind the last row a broker's log may end later, with the mark of a transaction.
        if position is None or bus.read(stream, position, max_rows=1, max_bytes=1):
            return False
    return True
