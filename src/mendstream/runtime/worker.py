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
from mendstream.contracts.errors import CommitUnknown, Fenced, MendstreamError
from mendstream.runtime import logs
from mendstream.runtime.exits import exit_code
from mendstream.runtime.generations import next_generation
from mendstream.runtime.ground import data_dir
from mendstream.runtime.recall import newest_steps
from mendstream.runtime.roster import ROLE_OF, Place
from mendstream.runtime.words import LastWords
from mendstream.settings import Settings, load

if TYPE_CHECKING:  # the supervisor names `main` of here, and needs neither Arrow nor an agent
    from mendstream.runtime.work import Work

_PR_SET_PDEATHSIG = 1
_log = structlog.get_logger("worker")


def main(environment: dict[str, str], place: Place, generation: int, lifeline: Connection | None) -> None:
    """The body of a child process; does not return. `environment`: what `settings.to_environment` gave."""
    _die_with_parent(lifeline)
    sys.exit(run(load(env=environment, dotenv=None).settings, place, generation))


def run(settings: Settings, place: Place, generation: int) -> int:
    """Run one process until SIGTERM or SIGINT; returns its exit code."""
    root = data_dir(settings)
    words = LastWords(root, place.process)
    with contextlib.closing(logs.setup(root / "logs", place.process, settings.log.level)):
        structlog.contextvars.bind_contextvars(process=place.process, generation=generation)
        return _live(settings, place, generation, words)


def _live(settings: Settings, place: Place, generation: int, words: LastWords) -> int:
    try:
        with told(data_dir(settings)), contextlib.closing(Worker(settings, place, generation)) as worker:
            worker.loop()
    except (Fenced, CommitUnknown) as error:
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
        from mendstream.runtime.local import LocalWorld
        from mendstream.runtime.work import Work

        self._stopping = threading.Event()
        self._work: Work | None = None
        self._catch_signals()
        self._journal = logs.Journal(data_dir(settings))
        self._meter = _make_meter(settings, place)
        self._work = Work(settings, place, LocalWorld(settings, place), generation, self._observe)

    def loop(self) -> None:
        """Until told to stop."""
        assert self._work is not None
        self._work.open()
        if self._meter is not None and "healing" in self._work.parts.role.agents:
            self._meter.recall("healing", newest_steps(self._work.parts.bus))
        _tune_collector()
        while not self._stopping.is_set():
            self._work.turn()

    def close(self) -> None:
        if self._work is not None:
            self._work.close()
        if self._meter is not None:
            self._meter.close()
        self._journal.close()

    def _observe(self, agent: str, rows: int, seconds: float, outputs: Any) -> None:
        self._journal.write(outputs.records)
        if self._meter is not None:
            self._meter.turn(agent, rows, seconds, outputs)

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
    """`mendstream agent NAME`: one process in the foreground, on a data directory that is ready."""
    return run(settings, Place(name, replica), next_generation(data_dir(settings), f"{name}-{replica}"))
