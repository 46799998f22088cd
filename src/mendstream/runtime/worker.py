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
from typing import TYPE_CHECKING, Any

import structlog

from mendstream.adapters.room import told
from mendstream.contracts.errors import CommitUnknown, Conflict, Fenced, MendstreamError, NoAnswer
from mendstream.runtime import logs
from mendstream.runtime.exits import exit_code
from mendstream.runtime.generations import next_generation
from mendstream.runtime.ground import data_dir, embedded, prepare
from mendstream.runtime.recall import newest_steps
from mendstream.runtime.roster import ROLE_OF, Place
from mendstream.runtime.words import LastWords
from mendstream.settings import Settings, load

if TYPE_CHECKING:  # the supervisor names `main` of here, and needs neither Arrow nor an agent
    from mendstream.runtime.work import Work

_PR_SET_PDEATHSIG = 1
_AGAIN_S = 0.5
_log = structlog.get_logger("worker")


def main(environment: dict[str, str], place: Place, generation: int, lifeline: Connection | None) -> None:
    """The body of a child process; does not return. `environment`: what `settings.to_environment` gave."""
    _die_with_parent(lifeline)
    sys.exit(run(load(env=environment, dotenv=None).settings, place, generation))


def run(settings: Settings, place: Place, generation: int) -> int:
    """Run one process until SIGTERM or SIGINT; returns its exit code."""
    root = data_dir(settings)
    words = LastWords(root, place.process)
    with contextlib.closing(
        logs.setup(root / "logs", place.process, settings.log.level, traced=settings.tracing.enabled)
    ):
        structlog.contextvars.bind_contextvars(process=place.process, generation=generation)
        return _live(settings, place, generation, words)


def _live(settings: Settings, place: Place, generation: int, words: LastWords) -> int:
    try:
        with told(data_dir(settings)), contextlib.closing(Worker(settings, place, generation)) as worker:
            worker.loop()
    except (Fenced, CommitUnknown, Conflict) as error:
        _log.warning("what this process knows may be out of date: it starts again", cause=str(error))
        return exit_code(error)
    except MendstreamError as error:
        _log.error(str(error), hint=error.hint)
        words.leave(error)
        return exit_code(error)
    except Exception as error:  # noqa: BLE001 - the last door: whatever it was goes to the log, and the process ends
        _log.exception("a bug: the turn was not finished; the supervisor starts this process again")
        return exit_code(error)
    return 0


class Worker:
    """The live process around its work: signals, journal, metrics."""

    def __init__(self, settings: Settings, place: Place, generation: int) -> None:
        self._stopping = threading.Event()
        self._work: Work | None = None
        self._catch_signals()
        self._journal = logs.Journal(data_dir(settings))
        self._meter = _make_meter(settings, place)
        self._tracer = _make_tracer(settings, place, self._meter)
        self._work = self._begun(settings, place, generation)

    def _begun(self, settings: Settings, place: Place, generation: int) -> Work:
        """Waits for a log that is away; once told to stop, raises NoAnswer."""
        from mendstream.runtime.local import LocalWorld
        from mendstream.runtime.work import Work

        trace = None if self._tracer is None else self._tracer.step
        while True:
            try:
                return Work(settings, place, LocalWorld(settings, place), generation, self._observe, trace)
            except NoAnswer as error:
                _log.warning("the log does not answer: waiting for it", cause=str(error))
                if self._stopping.wait(_AGAIN_S):
                    raise

    def loop(self) -> None:
        """Until told to stop."""
        assert self._work is not None
        self._work.open()
        if "healing" in self._work.parts.role.agents:
            self._recall([told for told in (self._meter, self._tracer) if told is not None])
        _tune_collector()
        while not self._stopping.is_set():
            self._work.turn()

    def _recall(self, told: list[Any]) -> None:
        """Counters and traces go on from where the process before had them."""
        assert self._work is not None
        while told and not self._stopping.is_set():
            try:
                steps = newest_steps(self._work.parts.bus)
                for one in told:
                    one.recall("healing", steps)
                return
            except NoAnswer as error:
                _log.warning("the log does not answer: waiting for it", cause=str(error))
                self._stopping.wait(_AGAIN_S)

    def close(self) -> None:
        if self._work is not None:
            self._work.close()
        if self._tracer is not None:
            self._tracer.close()
        if self._meter is not None:
            self._meter.close()
        self._journal.close()

    def _observe(self, agent: str, rows: int, seconds: float, outputs: Any) -> None:
        self._journal.write(outputs.records)
        if self._meter is not None:
            self._meter.turn(agent, rows, seconds, outputs)
        if self._tracer is not None:
            self._tracer.told(agent, outputs.records)

    def _catch_signals(self) -> None:
        def stop(number: int, frame: object) -> None:
            self._stopping.set()
            if self._work is not None:
                self._work.ring()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)


def _make_meter(settings: Settings, place: Place) -> Any:
    role = ROLE_OF[place.role]
    if not settings.metrics.enabled or role.port is None:
        return None
    from mendstream.adapters.metrics import Meter

    return Meter(settings.metrics, role, settings.run.partitions, place.replica)


def _make_tracer(settings: Settings, place: Place, meter: Any) -> Any:
    if not settings.tracing.enabled:
        return None
    from mendstream.adapters.tracing import Tracer, check

    check(settings.tracing)
    return Tracer(
        settings.tracing,
        house=settings.name or "mendstream",
        role=place.role,
        process=place.process,
        system="kafka" if settings.bus.kind == "kafka" else "mendstream",
        lost=(lambda spans: None) if meter is None else meter.lost_spans,
    )


def _tune_collector() -> None:
    """What has been loaded stays; of what comes, batches of rows go by reference count, and cycles are rare.

    With the usual thresholds the collector would walk all rows of a batch several times while it is made.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


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
    """`mendstream agent NAME`: one process in the foreground, on a house that is ready, or beside one on Kafka."""
    if not embedded(settings):
        prepare(settings)
    return run(settings, Place(name, replica), next_generation(data_dir(settings), f"{name}-{replica}"))
