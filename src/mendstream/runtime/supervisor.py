"""The house on this machine: forked processes under one supervision, its files, its locks, and a clean stop."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import msgspec
import structlog

from mendstream.adapters import room
from mendstream.adapters.bus.watch import LockWatch, Tenure
from mendstream.adapters.sources import SPOOL
from mendstream.contracts.errors import DataDirError, MendstreamError, NoAnswer
from mendstream.contracts.topics import Wing
from mendstream.runtime import logs
from mendstream.runtime.aside import Every
from mendstream.runtime.clock import HouseClock, WallClock
from mendstream.runtime.ground import close, data_dir, embedded, open_bus, prepare
from mendstream.runtime.neighbour import refuse_second
from mendstream.runtime.restarter import LocalRestarter, fork_server
from mendstream.runtime.roster import Place, places
from mendstream.runtime.spool import StdinSpool
from mendstream.runtime.supervision import COMMANDS, TICK_US, Supervision
from mendstream.settings import Settings, to_environment

LOCK_LIMIT_US = {"process": 1_000_000, "power": 10_000_000}
"""How long a process may hold the write lock. With synced commits a busy disk alone can take seconds."""
_log = structlog.get_logger("supervisor")


class House:
    """All processes of one data directory. Use as a context manager: leaving it stops them all."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.root = data_dir(settings)
        self.clock = WallClock()
        """The house's own, once it has been set at the start."""

    def __enter__(self) -> House:
        from mendstream.runtime.worker import main

        self._lock = _only_one(self.root)
        self._log_file = logs.setup(
            self.root / "logs", "supervisor", self.settings.log.level, traced=self.settings.tracing.enabled
        )
        fork_server()
        prepare(self.settings)
        self.clock = HouseClock(self.root)
        self._bus = open_bus(self.settings)
        if not embedded(self.settings):
            refuse_second(self._bus, self.root, self.settings.run.namespace)
        self._bell = self._bus.listen("supervisor", [COMMANDS])
        self._restarter = LocalRestarter(self.root, self._bell, main, to_environment(self.settings))
        self._locks = _Locks(self.root / "run", self.clock, LOCK_LIMIT_US[self.settings.bus.durability])
        if embedded(self.settings):
            self._locks.start()
        self._supervision = Supervision(
            bus=self._bus, clock=self.clock, restarter=self._restarter, notices=_Files(self.root / "run"),
            places=self._places(), partitions=self.settings.run.partitions,
        )  # fmt: skip
        if self.settings.ingestion.source == "stdin":
            StdinSpool(sys.stdin.buffer, self.root / SPOOL, self._bus).start()
        self._supervision.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def step(self) -> None:
        """Wait for news, at most one tick, and answer it."""
        try:
            self._supervision.step()
        except NoAnswer as error:  # what it was about to do is still to be done
            _log.warning("the log does not answer: waiting for it", cause=str(error))

    def stop(self) -> None:
        """Tell everybody to finish the turn and end; what has not ended in time is killed."""
        self._supervision.stop()
        while not self._supervision.stopped:
            self._supervision.step()
        if embedded(self.settings):
            self._locks.stop()
        self._restarter.close()
        self._bell.close()
        close(self.settings, self._bus)
        self._log_file.close()
        self._lock.close()

    @property
    def failure(self) -> MendstreamError | None:
        """Why the house has to stop; None while it can go on."""
        return self._supervision.failure

    def shown(self) -> dict[str, dict[str, Any]]:
        """process -> generation, pid, alive."""
        return self._supervision.shown()

    def _places(self) -> tuple[Place, ...]:
        run = self.settings.run
        return places(
            fuse=run.fuse,
            partitions=run.partitions,
            replicas=run.replicas,
            # A server is there to be kept in step: also with a rollback before any training.
            trainer=self.settings.models.trainer == "resident" or bool(self.settings.models.mlflow_uri),
        )


class _Locks(Every):
    """Kills whoever holds a write lock for too long: it is stopped or stuck, and would freeze all the others.

    On a thread of its own, for the supervision writes to the log too, and would wait with them.
    """

    def __init__(self, folder: Path, clock: WallClock, limit_us: int) -> None:
        super().__init__("locks", TICK_US / 1e6, self._watch)
        self._clock = clock
        self._limit_us = limit_us
        self._watches = [(LockWatch(folder / f"lock-{wing.value}", clock), Tenure(TICK_US)) for wing in Wing]

    def _watch(self) -> None:
        for watch, tenure in self._watches:
            holder = watch.holder()
            held_us = tenure.us(holder, self._clock.now_us())
            if holder is None or holder.pid == os.getpid() or held_us <= self._limit_us:
                continue
            if _waits_for_disk(holder.pid):  # a kill would free nothing before the disk answers
                _log.warning("a process has held the write lock too long, but its disk has it", pid=holder.pid)
                tenure.renew()
            elif watch.holder() == holder:
                _log.warning("a process has held the write lock too long: killing it", pid=holder.pid)
                with contextlib.suppress(ProcessLookupError):  # it was faster
                    os.kill(holder.pid, signal.SIGKILL)
                watch.clear(holder)


def _waits_for_disk(pid: int) -> bool:
    import psutil

    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_DISK_SLEEP)
    except psutil.NoSuchProcess:
        return False


class _Files:
    """`Notices` as files: the replicas read theirs, `mendstream status` reads from another terminal."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def assignment(self, partitions: Mapping[str, Sequence[int]]) -> None:
        content = {process: list(mine) for process, mine in partitions.items()}
        _replace(self._folder / "assignment.json", msgspec.json.encode(content))

    def processes(self, shown: Mapping[str, Mapping[str, Any]]) -> None:
        _replace(self._folder / "processes.json", msgspec.json.encode({"pid": os.getpid(), "children": shown}))


def run(settings: Settings) -> int:
    """`mendstream run`: the house in the foreground until SIGTERM or Ctrl-C. Raises MendstreamError."""
    ended: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: ended.append(number))
    with House(settings) as house:
        while not ended and house.failure is None:
            house.step()
    if house.failure is not None:
        raise house.failure
    return 0


def _only_one(root: Path) -> IO[str]:
    """The lock of a running house; raises DataDirError if another one runs on this directory."""
    try:
        (root / "run").mkdir(parents=True, exist_ok=True)
        lock = (root / "run" / "house.lock").open("a+")
    except OSError as error:
        raise DataDirError(
            f"cannot write to the data directory {root}: {error.strerror}", hint="choose a writable one with --data DIR"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.seek(0)
        raise DataDirError(
            f"a house runs on {root} already (pid {lock.read().strip()})",
            hint="stop it, or name another directory with --data DIR",
        ) from error
    with room.told(root):
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
    return lock


def _replace(path: Path, content: bytes) -> None:
    fresh = path.with_suffix(f".{os.getpid()}.new")
    try:
        fresh.write_bytes(content)
        fresh.rename(path)
    except OSError as error:
        _log.warning("cannot write", path=str(path), cause=error.strerror)
