"""Keeps the processes of a house running: ends, signs of life and commands in; starts, kills and records out.

It only *reports* the end of a pipeline process: the judge turns that into AGENT_DOWN, healing decides, the policy
answers, and the command comes back here. Only an end that nobody answers it makes good by itself, and says so in a
record. Control processes it restarts by itself, with back-off and limits.

All waiting is measured in *awake* time: what passed while this process itself was late or stopped does not count, for a
machine that made us late made everybody late. So is what a process needs for its turn: as long as it is late with its
signs of life, it is late with everything.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeGuard

import structlog

from mendstream.contracts.agent import TaskId
from mendstream.contracts.errors import CommitUnknown, Conflict, CouldNot, MendstreamError
from mendstream.contracts.ports import Bus, Clock, Ended, Out, Restarter, TaskCommit
from mendstream.contracts.records import (
    ActionKind,
    Command,
    CommandKind,
    CommandResult,
    Exit,
    Outcome,
    Record,
    Scalar,
    decode_each,
    encode_block,
)
from mendstream.contracts.topics import Stream, Topic
from mendstream.runtime.answers import Answers
from mendstream.runtime.exits import COULD_NOT, FULL
from mendstream.runtime.roster import ROLE_OF, Place

COMMANDS = Stream(Topic.COMMANDS, 0)
RESULTS = Stream(Topic.COMMAND_RESULTS, 0)
METRICS = Stream(Topic.AGENT_METRICS, 1)
TICK_US = 250_000
SILENT_US = 5_000_000
"""A control process without a beat for so long is stuck."""
BEAT_US = 2 * TICK_US
"""What lies between two beats that came in time and were looked for in time: a longer gap, its process was late for."""
START_US = 20_000_000
"""How long a process may take to its first beat."""
TRAINER_AFTER_US = 5_000_000
"""A resident trainer's imports (seconds of CPU) wait until the house serves and watches."""
BACKOFF_US = (200_000, 30_000_000)
INTENSITY = (5, 60_000_000)
"""So many restarts of a control process in so many microseconds, then the house stops: something is badly wrong."""
STOP_US = 2_000_000
"""Who has not ended so long after being asked to is killed."""
_log = structlog.get_logger("supervisor")


class Notices(Protocol):
    """Where the supervision tells everybody how things stand."""

    def assignment(self, partitions: Mapping[str, Sequence[int]]) -> None:
        """process -> partitions, of every stage that has replicas to spread them over."""

    def processes(self, shown: Mapping[str, Mapping[str, Any]]) -> None:
        """What `Supervision.shown` says."""


@dataclass(slots=True)
class Child:
    """One process. Its times are awake time."""

    place: Place
    generation: int = 0
    pid: int = 0
    alive: bool = False
    ended: bool = False
    expected: bool = False
    """Its end was ordered, or is of no concern."""
    start_at_us: int | None = None
    beat_us: int = 0
    """Its newest sign of life, by its own clock."""
    heard_us: int = 0
    """When that was news; before its first one, when it was started."""
    heard: bool = False
    turn_us: int = 0
    """Which turn it was in then."""
    stood_us: int = 0
    """For how long it has been in that turn, as far as it was awake."""
    starts: deque[int] = field(default_factory=lambda: deque(maxlen=INTENSITY[0] + 1))

    @property
    def process(self) -> str:
        return self.place.process

    @property
    def pipeline(self) -> bool:
        return ROLE_OF[self.place.role].pipeline


class Supervision:
    """`start()` once, then `step()` again and again; `stop()`, and `step()` on until `stopped`."""

    def __init__(
        self, *, bus: Bus, clock: Clock, restarter: Restarter, notices: Notices, places: Sequence[Place],
        partitions: int,
    ) -> None:  # fmt: skip
        self.failure: MendstreamError | None = None
        """Why the house has to stop; None while it can go on."""
        self._bus = bus
        self._clock = clock
        self._restarter = restarter
        self._notices = notices
        self._partitions = partitions
        self._children = {place.process: Child(place) for place in places}
        self._void = False
        """A turn was not finished: only the log knows how far the commands were obeyed."""
        self._done: CommandResult | None = None
        """The newest command's result, whether or not it is in the log."""
        self._claim()
        self._answers = Answers(bus)
        self._awake_us = 0
        self._seen_us = clock.now_us()
        self._kill_at_us: int | None = None

    # --- life --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._assign()
        for child in self._children.values():
            if child.place.role == "trainer":
                child.start_at_us = self._awake_us + TRAINER_AFTER_US
            else:
                self._start(child)

    def step(self) -> None:
        """Wait for news, at most one tick, and answer it."""
        if self._kill_at_us is not None:
            self._stop_on(self._kill_at_us)
            return
        self._collect(TICK_US)
        try:
            self._serve()
        except (Conflict, CommitUnknown) as error:
            _log.warning("what the log has of the last turn is asked for", cause=str(error))
            self._void = True

    def _serve(self) -> None:
        if self._void:
            self._claim()
        self._answers.read(self._awake_us)
        self._commands()
        for child in list(self._children.values()):
            self._look_after(child)

    def _claim(self) -> None:
        claim = self._bus.claim(TaskId("supervisor", 0), [COMMANDS])
        self._task, self._epoch, self._turn = claim.task, claim.epoch, claim.turns
        self._position = claim.positions[COMMANDS]
        self._void = False

    def stop(self) -> None:
        """Ask everybody to finish the turn and end; what has not ended in time is killed."""
        self._kill_at_us = self._awake_us + STOP_US
        for child in self._children.values():
            if child.alive:
                child.expected = True
                self._restarter.stop(child.process)

    @property
    def stopped(self) -> bool:
        return not any(child.alive for child in self._children.values())

    def shown(self) -> dict[str, dict[str, Any]]:
        """process -> generation, pid, alive."""
        return {
            name: {"generation": child.generation, "pid": child.pid, "alive": child.alive, "role": child.place.role}
            for name, child in self._children.items()
        }

    def _stop_on(self, kill_at_us: int) -> None:
        self._collect(max(0, min(TICK_US, kill_at_us - self._awake_us)))
        if self._awake_us >= kill_at_us:
            for child in self._children.values():
                if child.alive:
                    self._restarter.kill(child.process)

    # --- starts and ends ---------------------------------------------------------------------------------------------

    def _start(self, child: Child) -> None:
        child.generation, child.pid = self._restarter.start(child.process)
        child.alive, child.ended, child.expected, child.start_at_us = True, False, False, None
        child.beat_us, child.turn_us = self._restarter.life_sign(child.process)
        child.heard_us, child.heard, child.stood_us = self._awake_us, False, 0
        child.starts.append(self._awake_us)
        self._notices.processes(self.shown())

    def _collect(self, timeout_us: int) -> None:
        found = self._restarter.wait(timeout_us / 1e6)
        now = self._clock.now_us()
        self._awake_us += max(0, min(now - self._seen_us, TICK_US))
        self._seen_us = now
        for ended in found:
            child = self._children[ended.process]
            if child.alive and child.generation == ended.generation:
                self._ended(child, ended)

    def _ended(self, child: Child, ended: Ended) -> None:
        child.alive, child.ended = False, True
        self._answers.ended(child.process, self._awake_us)
        if child.place.role == "trainer" and ended.code == 0:
            child.expected = True  # it had nothing to do for a while
        record = Exit(
            process=child.process, agent=child.place.role, generation=child.generation, pid=child.pid,
            code=ended.code, expected=child.expected, at_us=self._clock.now_us(),
        )  # fmt: skip
        with contextlib.suppress(MendstreamError):  # a full log: the process that met it says so
            self._bus.publish([Out(METRICS, encode_block([record]), 1)])
        _log.info("process ended", child=child.process, code=ended.code, expected=child.expected)
        if not child.expected and ended.code in (COULD_NOT, FULL):
            self._fail(child)
        self._assign()
        self._notices.processes(self.shown())

    def _fail(self, child: Child) -> None:
        """What ended it for good, in its own words: a full log stops the house, a refused start too."""
        nothing = "a process could not go on and could not say why", "is the disk full?"
        message, hint = self._restarter.failure(child.process) or nothing
        self.failure = CouldNot(f"{child.process}: {message}", hint=hint)

    def _look_after(self, child: Child) -> None:
        if child.alive:
            self._check_beat(child)
        elif child.start_at_us is not None:
            if self._awake_us >= child.start_at_us:
                self._start(child)
        elif child.expected or not child.ended:
            return
        elif not child.pipeline:
            self._schedule(child)
        elif self._answers.missing(child.process, self._awake_us):
            self._start_unasked(child)

    def _schedule(self, child: Child) -> None:
        """Restart a control process by itself, later and later; give up on one that keeps ending."""
        recent = [at for at in child.starts if self._awake_us - at < INTENSITY[1]]
        if len(recent) > INTENSITY[0]:
            self.failure = CouldNot(
                f"{child.process} ended {len(recent)} times within {INTENSITY[1] // 1_000_000} s",
                hint=f"see logs/{child.process}.log in the data directory",
            )
            return
        child.start_at_us = self._awake_us + min(BACKOFF_US[0] << max(0, len(recent) - 1), BACKOFF_US[1])

    def _check_beat(self, child: Child) -> None:
        """A control process is stuck that gives no sign of life, or does not come to an end of its turn; of pipeline
        processes the judge takes care.
        """
        if child.pipeline:
            return
        sign = self._restarter.life_sign(child.process)
        if sign.at_us != child.beat_us:
            passed_us = max(0, min(sign.at_us - child.beat_us, BEAT_US))
            child.stood_us = child.stood_us + passed_us if sign.turn_us == child.turn_us else 0
            child.beat_us, child.turn_us = sign
            child.heard_us, child.heard = self._awake_us, True
        if self._awake_us - child.heard_us > (SILENT_US if child.heard else START_US):
            self._end(child, "a control process is silent: killing it")
        elif child.stood_us > ROLE_OF[child.place.role].turn_s * 1e6:
            self._end(child, "a control process does not come to the end of its turn: killing it")

    def _end(self, child: Child, why: str) -> None:
        """Its end is reported, and answered, as if it had ended by itself."""
        _log.warning(why, child=child.process)
        self._restarter.kill(child.process)

    def _start_unasked(self, child: Child) -> None:
        """Make good an end that nobody has answered. The record lets the policy's budgets count it."""
        self._make_sure()
        ended = child.generation
        self._start(child)
        self._assign()
        detail = f"nobody answered the end of generation {ended}: generation {child.generation} runs"
        _log.warning(detail, child=child.process)
        done = CommandResult(
            id=f"{self._bus.incarnation}/{self._task}/{self._turn + 1}/1", command_id="", action_id="",
            incident_id=self._answers.incident(child.process), outcome=Outcome.DONE, detail=detail,
            data={
                "kind": ActionKind.RESTART.value, "target": child.process, "generation": child.generation,
                "pid": child.pid,
            },
            at_us=self._clock.now_us(),
        )  # fmt: skip
        self._commit({}, [done])

    # --- commands ----------------------------------------------------------------------------------------------------

    def _commands(self) -> None:
        """Obey in order; one whose target has to end first waits for that end, and the others behind it."""
        for position, record in self._orders():
            self._make_sure()
            done = self._done_before(record)
            if done is None and self._ends_first(record):
                return
            result = self._done = done or self._obey(record)
            self._commit({COMMANDS: position + 1}, [] if result is None else [result])
            self._position = position + 1

    def _orders(self) -> Iterator[tuple[int, Record | None]]:
        for block in self._bus.read(COMMANDS, self._position, max_rows=100, max_bytes=1 << 20):
            yield from enumerate(decode_each(Topic.COMMANDS, bytes(block.value)), start=block.position)

    def _make_sure(self) -> None:
        """Before anything is done to a process: raises Fenced if another supervisor has taken over."""
        self._commit({}, [])

    def _commit(self, positions: Mapping[Stream, int], records: Sequence[Record]) -> None:
        """One turn: what was done, and how far the commands were read."""
        outputs = [Out(RESULTS, encode_block(records), len(records))] if records else []
        before = dict.fromkeys(positions, self._position)
        turn = TaskCommit(
            task=self._task, epoch=self._epoch, turn=self._turn + 1, positions=dict(positions), before=before,
            outputs=outputs,
        )  # fmt: skip
        self._bus.commit([turn])
        self._turn += 1

    def _ends_first(self, record: Record | None) -> bool:
        """Whether it is a restart of what still runs: that is killed, and the command stands until its end is seen."""
        if not _is_restart(record):
            return False
        child = self._children.get(record.target)
        if child is None or not child.alive or _stale(record, child):
            return False
        child.expected = True
        self._restarter.kill(child.process)
        return True

    def _done_before(self, record: Record | None) -> CommandResult | None:
        """Its result, if it was obeyed in a turn that was not finished."""
        if self._done is None or not _is_restart(record) or record.id != self._done.command_id:
            return None
        return self._done

    def _obey(self, record: Record | None) -> CommandResult | None:
        if _is_restart(record):
            return self._restart(record)
        if isinstance(record, Command) and record.addressee == "trainer":
            self._wake_trainer()
        return None

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
        if _stale(command, child):
            detail = f"stale: generation {command.generation} was named, {child.generation} is there"
            return self._result(command, Outcome.REFUSED, detail, {"generation": child.generation})
        self._start(child)
        self._assign()
        _log.info("restarted on command", child=child.process, incident=command.incident_id, action=command.action_id)
        return self._result(
            command,
            Outcome.DONE,
            f"generation {child.generation} runs",
            {"generation": child.generation, "pid": child.pid},
        )

    def _result(self, command: Command, outcome: Outcome, detail: str, data: dict[str, Scalar]) -> CommandResult:
        return CommandResult(
            id=f"{command.id}/result", command_id=command.id, action_id=command.action_id,
            incident_id=command.incident_id, outcome=outcome, detail=detail, data=data, at_us=self._clock.now_us(),
        )  # fmt: skip

    # --- replicas ----------------------------------------------------------------------------------------------------

    def _assign(self) -> None:
        """Spread each stage's partitions over its replicas that live: they take over each other's tasks."""
        assignment: dict[str, Sequence[int]] = {}
        for role in dict.fromkeys(child.place.role for child in self._children.values()):
            if not ROLE_OF[role].spread:
                continue
            replicas = [c for c in self._children.values() if c.place.role == role]
            living = [c for c in replicas if not c.ended] or replicas
            for place, child in enumerate(living):
                assignment[child.process] = range(place, self._partitions, len(living))
        self._notices.assignment(assignment)


def _is_restart(record: Record | None) -> TypeGuard[Command]:
    return isinstance(record, Command) and record.addressee == "supervisor" and record.kind is CommandKind.RESTART


def _stale(command: Command, child: Child) -> bool:
    """Of a dead process a later generation may be named: one that somebody ran beside the house, and that ended too."""
    if command.generation is None or command.generation == child.generation:
        return False
    return child.alive or command.generation < child.generation
