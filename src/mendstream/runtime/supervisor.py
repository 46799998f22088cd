"""The house as processes: starts one per place, sees each end at once, carries out restarts, and stops cleanly.

It only *reports* the end of a pipeline process: the judge turns that into AGENT_DOWN, healing decides, the policy
answers, and the command comes back here. Control processes it restarts by itself, with back-off and limits.
"""

from __future__ import annotations

import contextlib
import fcntl
import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import IO, Any

import msgspec
import structlog

from mendstream.adapters.bus import boot
from mendstream.adapters.bus.watch import LockWatch
from mendstream.adapters.sources import SPOOL
from mendstream.contracts.agent import TaskId
from mendstream.contracts.errors import CouldNot, DataDirError, MendstreamError
from mendstream.contracts.ports import Out, TaskCommit
from mendstream.contracts.records import (
    Command,
    CommandKind,
    CommandResult,
    Exit,
    Outcome,
    Record,
    decode_each,
    encode_block,
)
from mendstream.contracts.topics import Stream, Topic, Wing
from mendstream.runtime import logs
from mendstream.runtime.clock import WallClock
from mendstream.runtime.ground import data_dir, open_bus, prepare
from mendstream.runtime.roster import ROLE_OF, Place, places
from mendstream.runtime.spool import StdinSpool
from mendstream.settings import Settings, to_environment

COMMANDS = Stream(Topic.COMMANDS, 0)
RESULTS = Stream(Topic.COMMAND_RESULTS, 0)
METRICS = Stream(Topic.AGENT_METRICS, 1)
TICK_S = 0.25
LOCK_LIMIT_US = {"process": 1_000_000, "power": 10_000_000}
"""How long a process may hold the write lock. With synced commits a busy disk alone can take seconds."""
SILENT_US = 5_000_000
"""A control process without a beat for so long is stuck."""
UNANSWERED_US = 15_000_000
"""A pipeline process whose end nobody answered for so long is started by the supervisor itself."""
START_US = 20_000_000
"""How long a process may take to its first beat."""
TRAINER_AFTER_US = 5_000_000
"""A resident trainer's imports (seconds of CPU) wait until the house serves and watches."""
BACKOFF_US = (200_000, 30_000_000)
INTENSITY = (5, 60_000_000)
"""So many restarts of a control process in so many microseconds, then the house stops: something is badly wrong."""
STOP_S = 2.0
_log = structlog.get_logger("supervisor")


@dataclass(slots=True)
class Child:
    place: Place
    process: ForkServerProcess | None = None
    generation: int = 0
    pid: int = 0
    started_us: int = 0
    ended_us: int | None = None
    start_at_us: int | None = None
    expected: bool = False
    starts: deque[int] = field(default_factory=lambda: deque(maxlen=INTENSITY[0] + 1))

    @property
    def alive(self) -> bool:
        return self.process is not None and self.ended_us is None


class House:
    """All processes of one data directory. Use as a context manager: leaving it stops them all."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.root = data_dir(settings)
        self.clock = WallClock()
        self.failure: MendstreamError | None = None
        self._environment = to_environment(settings)
        self._stopping = False
        self._children: dict[str, Child] = {}
        self._lock: IO[str] | None = None

    # --- life --------------------------------------------------------------------------------------------------------

    def __enter__(self) -> House:
        self._lock = _only_one(self.root)
        logs.setup(self.root / "logs", "supervisor", self.settings.log.level)
        self._context = _forkserver()
        self._lifeline, self._hold = self._context.Pipe(duplex=False)
        prepare(self.settings)
        self._bus = open_bus(self.settings)
        self._bell = self._bus.listen("supervisor", [COMMANDS])
        self._claim = self._bus.claim(TaskId("supervisor", 0), [COMMANDS])
        self._turn = self._claim.turns
        self._position = self._claim.positions[COMMANDS]
        self._watches = [LockWatch(self.root / "run" / f"lock-{wing.value}", self.clock) for wing in Wing]
        self._last_tick = self.clock.now_us()
        run = self.settings.run
        for place in places(
            fuse=run.fuse,
            partitions=run.partitions,
            replicas=run.replicas,
            trainer=self.settings.models.trainer == "resident",
        ):
            self._children[place.process] = Child(place)
        self._assign()
        if self.settings.ingestion.source == "stdin":
            StdinSpool(sys.stdin.buffer, self.root / SPOOL, self._bus).start()
        for child in self._children.values():
            if child.place.role == "trainer":
                child.start_at_us = self.clock.now_us() + TRAINER_AFTER_US
            else:
                self._start(child)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Tell everybody to finish the turn and end; what has not ended in time is killed."""
        self._stopping = True
        for child in self._children.values():
            if child.alive:
                child.expected = True
                _signal(child.pid, signal.SIGTERM)
        limit = self.clock.now_us() + int(STOP_S * 1e6)
        while any(child.alive for child in self._children.values()) and self.clock.now_us() < limit:
            self._collect(0.05)
        for child in self._children.values():
            if child.alive:
                _signal(child.pid, signal.SIGKILL)
        while any(child.alive for child in self._children.values()):
            self._collect(0.05)
        self._bell.close()
        self._bus.sync()
        self._bus.close()
        boot.closed(self.root)
        self._hold.close()
        if self._lock is not None:
            self._lock.close()

    def step(self) -> None:
        """Wait for news, at most one tick, and answer it."""
        self._collect(TICK_S)
        now = self.clock.now_us()
        # A machine that made us late made everybody late: nobody is called silent for the time that we missed.
        late = max(0, now - self._last_tick - int(TICK_S * 1e6))
        self._last_tick = now
        self._commands()
        self._watch_locks(now)
        for child in list(self._children.values()):
            self._look_after(child, now, late)

    def shown(self) -> dict[str, dict[str, Any]]:
        """process -> generation, pid, alive."""
        return {
            name: {"generation": child.generation, "pid": child.pid, "alive": child.alive, "role": child.place.role}
            for name, child in self._children.items()
        }

    # --- starting and ending -----------------------------------------------------------------------------------------

    def _start(self, child: Child) -> None:
        from mendstream.runtime.worker import main, next_generation

        child.generation = next_generation(self.root, child.place.process)
        process = self._context.Process(
            target=main,
            args=(self._environment, child.place, child.generation, self._lifeline),
            name=child.place.process,
        )
        with _no_main():
            process.start()
        now = self.clock.now_us()
        child.process, child.pid, child.started_us = process, process.pid or 0, now
        child.ended_us, child.start_at_us, child.expected = None, None, False
        child.starts.append(now)
        self._note()

    def _collect(self, timeout_s: float) -> None:
        """Sleep until a child ends, the bell rings or time is up; publish each end."""
        alive = {c.process.sentinel: c for c in self._children.values() if c.process is not None and c.ended_us is None}
        for ready in wait([*alive, self._bell.fileno()], timeout_s):
            if ready == self._bell.fileno():
                self._bell.wait(0)
            else:
                self._ended(alive[ready])  # type: ignore[index]

    def _ended(self, child: Child) -> None:
        assert child.process is not None
        child.process.join(1)
        code = child.process.exitcode
        now = self.clock.now_us()
        child.ended_us = now
        if child.place.role == "trainer" and code == 0:
            child.expected = True  # it had nothing to do for a while
        exit_record = Exit(
            process=child.place.process, agent=child.place.role, generation=child.generation, pid=child.pid,
            code=code if code is not None else 0, expected=child.expected, at_us=now,
        )  # fmt: skip
        with contextlib.suppress(MendstreamError):  # a full log: the process that met it says so
            self._bus.publish([Out(METRICS, encode_block([exit_record]), 1)])
        _log.info("process ended", child=child.place.process, code=code, expected=child.expected)
        if not child.expected:
            self._read_failure(child, code)
        self._assign()
        self._note()

    def _read_failure(self, child: Child, code: int | None) -> None:
        """What ended it for good, in its own words: a full log stops the house, a refused start too."""
        from mendstream.runtime.worker import COULD_NOT, FULL

        if code not in (COULD_NOT, FULL):
            return
        path = self.root / "run" / f"error-{child.place.process}"
        try:
            left = msgspec.json.decode(path.read_bytes(), type=dict[str, str])
        except FileNotFoundError:
            left = {"message": "a process could not go on and could not say why", "hint": "is the disk full?"}
        path.unlink(missing_ok=True)
        self.failure = CouldNot(f"{child.place.process}: {left['message']}", hint=left["hint"])

    def _look_after(self, child: Child, now: int, late: int) -> None:
        if child.alive:
            self._check_beat(child, now, late)
        elif child.start_at_us is not None:
            if now >= child.start_at_us:
                self._start(child)
        elif child.expected or child.ended_us is None:
            return
        elif not ROLE_OF[child.place.role].pipeline:
            self._schedule(child, now)
        elif now - child.ended_us > UNANSWERED_US:
            _log.warning("nobody answered the end of a pipeline process: starting it", child=child.place.process)
            self._start(child)
            self._assign()

    def _schedule(self, child: Child, now: int) -> None:
        """Restart a control process by itself, later and later; give up on one that keeps ending."""
        recent = [at for at in child.starts if now - at < INTENSITY[1]]
        if len(recent) > INTENSITY[0]:
            self.failure = CouldNot(
                f"{child.place.process} ended {len(recent)} times within {INTENSITY[1] // 1_000_000} s",
                hint=f"see {self.root / 'logs' / (child.place.process + '.log')}",
            )
            return
        child.start_at_us = now + min(BACKOFF_US[0] << max(0, len(recent) - 1), BACKOFF_US[1])

    def _check_beat(self, child: Child, now: int, late: int) -> None:
        """A control process that gives no sign of life is stuck; of pipeline processes the judge takes care."""
        if ROLE_OF[child.place.role].pipeline:
            return
        from mendstream.runtime.beat import Beat

        last = Beat(self.root / "run" / f"beat-{child.place.process}").last_us()
        limit = SILENT_US if last >= child.started_us else START_US
        if now - max(last, child.started_us) - late > limit:
            _log.warning("a control process is silent: killing it", child=child.place.process)
            _signal(child.pid, signal.SIGKILL)

    def _watch_locks(self, now: int) -> None:
        """Whoever holds a write lock for too long is stopped or stuck, and would freeze all the others."""
        for watch in self._watches:
            holder = watch.holder()
            if holder is None or holder.pid == os.getpid():
                continue
            if now - holder.since_us > LOCK_LIMIT_US[self.settings.bus.durability] and watch.holder() == holder:
                _log.warning("a process has held the write lock too long: killing it", pid=holder.pid)
                _signal(holder.pid, signal.SIGKILL)
                watch.clear(holder)

    # --- commands ----------------------------------------------------------------------------------------------------

    def _commands(self) -> None:
        for block in self._bus.read(COMMANDS, self._position, max_rows=100, max_bytes=1 << 20):
            for record in decode_each(Topic.COMMANDS, bytes(block.value)):
                result = self._obey(record)
                following = self._position + 1
                outs = [] if result is None else [Out(RESULTS, encode_block([result]), 1)]
                self._bus.commit(
                    [
                        TaskCommit(
                            task=self._claim.task, epoch=self._claim.epoch, turn=self._turn + 1,
                            positions={COMMANDS: following}, before={COMMANDS: self._position}, outputs=outs,
                        )
                    ]
                )  # fmt: skip
                self._turn += 1
                self._position = following

    def _obey(self, record: Record | None) -> CommandResult | None:
        if not isinstance(record, Command):
            return None
        if record.addressee == "trainer":
            self._wake_trainer()
            return None
        if record.addressee != "supervisor" or record.kind is not CommandKind.RESTART:
            return None
        return self._restart(record)

    def _wake_trainer(self) -> None:
        child = self._children.setdefault("trainer-0", Child(Place("trainer")))
        if not child.alive:
            self._start(child)

    def _restart(self, command: Command) -> CommandResult:
        child = self._children.get(command.target)
        if child is None:
            known = ", ".join(self._children)
            return self._result(
                command, Outcome.REFUSED, f"there is no process {command.target!r}; there are {known}", {}
            )
        if command.generation is not None and command.generation != child.generation:
            detail = f"stale: generation {command.generation} was named, {child.generation} is there"
            return self._result(command, Outcome.REFUSED, detail, {"generation": child.generation})
        if child.alive:
            child.expected = True
            _signal(child.pid, signal.SIGKILL)
            while child.alive:
                self._collect(0.05)
        self._start(child)
        self._assign()
        return self._result(
            command,
            Outcome.DONE,
            f"generation {child.generation} runs",
            {"generation": child.generation, "pid": child.pid},
        )

    def _result(self, command: Command, outcome: Outcome, detail: str, data: dict[str, Any]) -> CommandResult:
        return CommandResult(
            id=f"{command.id}/result", command_id=command.id, action_id=command.action_id,
            incident_id=command.incident_id, outcome=outcome, detail=detail, data=data, at_us=self.clock.now_us(),
        )  # fmt: skip

    # --- telling -----------------------------------------------------------------------------------------------------

    def _assign(self) -> None:
        """Spread each stage's partitions over its replicas that live: they take over each other's tasks."""
        assignment: dict[str, list[int]] = {}
        for role in {child.place.role for child in self._children.values() if ROLE_OF[child.place.role].spread}:
            replicas = [c for c in self._children.values() if c.place.role == role]
            living = [c for c in replicas if c.ended_us is None] or replicas
            for place, child in enumerate(living):
                assignment[child.place.process] = list(range(place, self.settings.run.partitions, len(living)))
        _replace(self.root / "run" / "assignment.json", msgspec.json.encode(assignment))

    def _note(self) -> None:
        """For `mendstream status` from another terminal."""
        _replace(
            self.root / "run" / "processes.json", msgspec.json.encode({"pid": os.getpid(), "children": self.shown()})
        )


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


def _forkserver() -> Any:
    """Children are forked from a process that has imported what they need, so they start in milliseconds."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("MALLOC_ARENA_MAX", "2")  # a heap per thread would keep what threads once needed
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    os.environ.setdefault("LANGSMITH_TRACING", "false")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mendstream.runtime.preload"])
    return context


@contextlib.contextmanager
def _no_main() -> Iterator[None]:
    """Children need nothing of the caller's main module, and importing it again would cost each of them its start."""
    main = sys.modules["__main__"]
    held: dict[str, Any] = {n: main.__dict__.pop(n) for n in ("__file__", "__spec__") if n in main.__dict__}
    main.__dict__["__spec__"] = None
    try:
        yield
    finally:
        main.__dict__.update(held)


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


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it was faster
        os.kill(pid, number)
