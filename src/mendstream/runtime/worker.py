"""One process of the house: its drivers or its sink, its heartbeat, its logs; from start to a clean end."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import signal
import sys
import threading
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgspec
import structlog

from mendstream.contracts.errors import Fenced, LogFull, MendstreamError
from mendstream.contracts.ports import Bell
from mendstream.contracts.records import TaskPulse
from mendstream.contracts.topics import Stream, Topic, Wing
from mendstream.runtime import logs
from mendstream.runtime.assembly import Parts
from mendstream.runtime.ground import data_dir
from mendstream.runtime.heartbeat import Beat, Heartbeat
from mendstream.runtime.probe import Prober
from mendstream.runtime.roster import Place
from mendstream.settings import Settings, load

_IDLE_S = 0.5
_SINK_IDLE_S = 0.1
_PR_SET_PDEATHSIG = 1
_log = structlog.get_logger("worker")

BUG, COULD_NOT, FENCED, FULL = 1, 3, 4, 5
"""Exit codes that the supervisor knows."""


def main(environment: dict[str, str], place: Place, generation: int, lifeline: Connection | None) -> None:
    """The body of a child process; does not return. `environment`: what `settings.to_environment` gave."""
    _die_with_parent(lifeline)
    sys.exit(run(load(env=environment, dotenv=None).settings, place, generation))


def run(settings: Settings, place: Place, generation: int) -> int:
    """Run one process until SIGTERM or SIGINT; returns its exit code."""
    logs.setup(data_dir(settings) / "logs", place.process, settings.log.level)
    structlog.contextvars.bind_contextvars(process=place.process, generation=generation)
    try:
        with contextlib.closing(Worker(settings, place, generation)) as worker:
            worker.loop()
    except Fenced as error:
        _log.warning("fenced: another process owns this task now", cause=str(error))
        return FENCED
    except MendstreamError as error:
        _log.error(str(error), hint=error.hint)
        report(settings, place, error)
        return FULL if isinstance(error, LogFull) else COULD_NOT
    except Exception:  # noqa: BLE001 - the last door: whatever it was goes to the log, and the process ends
        _log.exception("a bug: the turn was not finished; the supervisor starts this process again")
        return BUG
    return 0


class Worker:
    def __init__(self, settings: Settings, place: Place, generation: int) -> None:
        self._settings = settings
        self._place = place
        self._stopping = threading.Event()
        self._bell: Bell | None = None
        self._catch_signals()
        self._journal = logs.Journal(data_dir(settings))
        self._parts = Parts(settings, place, observe=self._observe)
        self._meter = self._make_meter()
        self._probers: dict[int, Prober] = {}
        self._heartbeat = Heartbeat(
            self._parts.bus,
            self._parts.clock,
            Beat(data_dir(settings) / "run" / f"beat-{place.process}"),
            Stream(Topic.AGENT_METRICS, 0 if self._parts.role.wing is Wing.DATA else 1),
            process=place.process,
            agent=place.role,
            generation=generation,
            tasks=self._pulses,
        )

    def loop(self) -> None:
        """Until told to stop: turns while there is something to do, else wait for the bell."""
        self._heartbeat.send()
        self._heartbeat.start()
        self._parts.open_sink()
        self._take_partitions()
        _tune_collector()
        while not self._stopping.is_set():
            self._parts.faults.refresh()
            busy = [self._pump(partition) for partition in list(self._parts.drivers)]
            if self._parts.sink is not None:
                busy.append(self._parts.sink.pump())
            if not any(busy):
                self._wait()
            if self._shared:  # also when there is no end of work: who takes over from a dead replica has most of it
                self._take_partitions()

    def _pump(self, partition: int) -> bool:
        """One turn; a partition that another replica has taken over is let go."""
        try:
            return self._parts.drivers[partition].pump()
        except Fenced:
            if not self._shared:
                raise
            self._parts.let_go(partition)
            self._take_partitions()
            return True

    def close(self) -> None:
        self._heartbeat.stop()
        for prober in self._probers.values():
            prober.stop()
        self._parts.close()
        if self._meter is not None:
            self._meter.close()
        if self._bell is not None:
            self._bell.close()
        self._journal.close()

    # --- waiting -----------------------------------------------------------------------------------------------------

    def _wait(self) -> None:
        assert self._bell is not None
        most = _IDLE_S if self._parts.sink is None else _SINK_IDLE_S
        self._bell.wait(min([driver.wait_s(most) for driver in self._parts.drivers.values()], default=most))

    def _listen(self) -> None:
        if self._bell is not None:
            self._bell.close()
        streams = {s for driver in self._parts.drivers.values() for s in driver.streams}
        if self._parts.sink is not None:
            streams.update(self._parts.sink.reads)
        self._bell = self._parts.bus.listen(self._place.process, sorted(streams))
        for driver in self._parts.drivers.values():
            driver.wake_by(self._bell.ring)

    # --- ownership ---------------------------------------------------------------------------------------------------

    @property
    def _shared(self) -> bool:
        return self._parts.role.spread and self._settings.run.replicas.get(self._place.role, 1) > 1

    def _take_partitions(self) -> None:
        if self._parts.role.agents and self._parts.own(self._partitions()):
            self._watch_models()
            self._listen()
        elif self._bell is None:
            self._listen()

    def _partitions(self) -> tuple[int, ...]:
        """Which partitions this replica owns: all, or what the supervisor has assigned."""
        if not self._parts.role.spread:
            return (0,)
        everything = tuple(range(self._settings.run.partitions))
        if not self._shared:
            return everything
        assigned = read_assignment(data_dir(self._settings))
        mine = assigned.get(self._place.process)
        return tuple(mine) if mine is not None else everything[self._place.replica :: self._replicas()]

    def _replicas(self) -> int:
        return min(self._settings.run.replicas.get(self._place.role, 1), self._settings.run.partitions)

    def _watch_models(self) -> None:
        """Probes for the partitions whose model stage runs here."""
        from mendstream.agents.pipeline.model import ModelAgent

        for partition in set(self._probers) - set(self._parts.drivers):
            self._probers.pop(partition).stop()
        for partition, driver in self._parts.drivers.items():
            for leg in driver.legs:
                if isinstance(leg.agent, ModelAgent) and partition not in self._probers:
                    prober = Prober(self._parts.bus, self._parts.clock, leg.agent, str(leg.task), leg.live_config)
                    self._probers[partition] = prober
                    prober.start()

    # --- telling -----------------------------------------------------------------------------------------------------

    def _make_meter(self) -> Any:
        if not self._settings.metrics.enabled or self._parts.role.port is None:
            return None
        from mendstream.adapters.metrics import Meter

        return Meter(self._settings.metrics, self._parts.role, self._settings.run.partitions, self._place.replica)

    def _observe(self, agent: str, rows: int, seconds: float, outputs: Any) -> None:
        self._journal.write(outputs.records)
        if self._meter is not None:
            self._meter.turn(agent, rows, seconds, outputs)

    def _pulses(self) -> tuple[TaskPulse, ...]:
        return tuple(pulse for driver in list(self._parts.drivers.values()) for pulse in driver.pulses())

    def _catch_signals(self) -> None:
        def stop(number: int, frame: object) -> None:
            self._stopping.set()
            if self._bell is not None:
                self._bell.ring()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)


def _tune_collector() -> None:
    """What has been loaded stays; of what comes, batches of rows go by reference count, and cycles are rare.

    With the usual thresholds the collector would walk all rows of a batch several times while it is made.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def read_assignment(root: Path) -> dict[str, list[int]]:
    """process -> partitions, as the supervisor has them; empty where it has assigned nothing."""
    try:
        return msgspec.json.decode((root / "run" / "assignment.json").read_bytes(), type=dict[str, list[int]])
    except FileNotFoundError:
        return {}


def report(settings: Settings, place: Place, error: MendstreamError) -> None:
    """Leave the reason where the supervisor finds it."""
    with contextlib.suppress(OSError):  # the disk may be what is full
        path = data_dir(settings) / "run" / f"error-{place.process}"
        path.write_bytes(msgspec.json.encode({"message": str(error), "hint": error.hint}))


def _die_with_parent(lifeline: Connection | None) -> None:
    """No orphans: end when the supervisor does, however it ends.

    The pipe tells every process that still runs; on Linux the kernel also ends one that was stopped.
    """
    # Every child is handed the pipe that keeps the fork server alive: one that is stopped would hold it open for ever,
    # and it is the fork server's end that the kernel answers.
    alive = getattr(forkserver, "_forkserver")._forkserver_alive_fd  # noqa: B009 - no stub has it
    if lifeline is not None and alive is not None:
        os.close(alive)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if lifeline is not None:

        def watch() -> None:
            with contextlib.suppress(EOFError, OSError):
                lifeline.recv()
            os._exit(1)

        threading.Thread(target=watch, name="lifeline", daemon=True).start()


def run_agent(settings: Settings, name: str, replica: int = 0) -> int:
    """`mendstream agent NAME`: one process in the foreground, on a data directory that is ready."""
    return run(settings, Place(name, replica), next_generation(data_dir(settings), f"{name}-{replica}"))


def next_generation(root: Path, process: str) -> int:
    """The number of this start of `process`; grows over the life of a data directory."""
    path = root / "run" / "generations.json"
    held: dict[str, int] = {}
    with contextlib.suppress(FileNotFoundError):
        held = msgspec.json.decode(path.read_bytes(), type=dict[str, int])
    held[process] = held.get(process, 0) + 1
    fresh = path.with_suffix(f".{os.getpid()}")
    fresh.write_bytes(msgspec.json.encode(held))
    fresh.rename(path)
    return held[process]
