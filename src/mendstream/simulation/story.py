"""What has happened so far, folded once for all invariants: config, incidents, proposals, verdicts, faults."""

from __future__ import annotations

import hashlib
from collections import deque
from dataclasses import dataclass, field

from mendstream.chaos.plan import Injection
from mendstream.contracts.agent import TaskId
from mendstream.contracts.knobs import Fold, LiveConfig, fold
from mendstream.contracts.ports import TaskCommit
from mendstream.contracts.records import (
    Alert,
    AlertState,
    Command,
    CommandResult,
    ConfigChange,
    IncidentStep,
    Proposal,
    Status,
    Verdict,
    decode_each,
)
from mendstream.contracts.topics import Stream, Topic
from mendstream.simulation.health import Health
from mendstream.simulation.log import Append, SimLog
from mendstream.simulation.machine import Machine
from mendstream.simulation.trail import Trail

TAIL = 200
_TOLD = (Topic.ALERTS, Topic.INCIDENT_LOG, Topic.CONFIG_UPDATES, Topic.POLICY_REQUESTS, Topic.POLICY_DECISIONS,
         Topic.COMMANDS, Topic.COMMAND_RESULTS)  # fmt: skip
"""Topics whose records are folded here."""
_KEPT = frozenset((*_TOLD, Topic.DECISIONS))
"""Topics whose blocks are kept, to be told again after a power cut."""


@dataclass(frozen=True)
class Violation:
    invariant: str
    at_s: float
    """Since the start of the house."""
    text: str


@dataclass
class Case:
    """One incident."""

    steps: list[IncidentStep] = field(default_factory=list)

    @property
    def last(self) -> IncidentStep:
        return self.steps[-1]

    @property
    def open(self) -> bool:
        return self.last.incident.status not in (Status.RESOLVED, Status.FAILED)


class Story:
    """A watcher of the log, the first in the row."""

    health: Health

    def __init__(self, start_us: int) -> None:
        self.start_us = start_us
        self.now_us = start_us
        self.digest = hashlib.blake2b(digest_size=16)
        self.tail: deque[str] = deque(maxlen=TAIL)
        self.violations: list[Violation] = []
        self.history: list[tuple[int, Append]] = []
        """(the kernel's time, what) of control records and decisions, as far as the log still has them"""
        self._trail: Trail | None = None
        self._begin()
        self.injected: list[tuple[int, Injection, bool]] = []
        """(when, what, put in or taken out)"""
        self.calm_since_us: int | None = None
        """Since when all faults have stopped."""

    def _begin(self) -> None:
        """Nothing has been told yet."""
        self.config = LiveConfig()
        self.changes: dict[int, ConfigChange] = {}
        """version -> the change that made it"""
        self.cases: dict[str, Case] = {}
        self.alerts: dict[str, Alert] = {}
        """alert_id -> while it fires"""
        self.alarms: list[Alert] = []
        """All that ever fired."""
        self.proposals: dict[str, Proposal] = {}
        self.verdicts: list[Verdict] = []
        self.commands: dict[str, Command] = {}
        self.results: list[CommandResult] = []

    # --- what happens ------------------------------------------------------------------------------------------------

    def appended(self, append: Append) -> None:
        self.now_us = append.at_us
        self.digest.update(f"{append.at_us} {append.stream} {append.position} ".encode())
        self.digest.update(append.value)
        if append.stream.topic in _KEPT:
            self.history.append((self.health.now_us, append))
        if append.stream.topic not in _TOLD:
            return
        for record in append.records:
            self._fold(record)
            self.note(f"{append.process}: {append.stream.topic} {_short(record)}", append.at_us)

    def committed(self, commit: TaskCommit, process: str, generation: int) -> None:
        """Only what was written counts here."""

    def claimed(self, task: TaskId, epoch: int, process: str, generation: int) -> None:
        self.note(f"{process} (generation {generation}) owns {task}, epoch {epoch}", self.now_us)

    def forgot(self, log: SimLog) -> None:
        """What is left of the log is told again from its start."""
        self._begin()
        self.history = [
            (at_us, held) for at_us, held in self.history if held.position + held.rows <= log.bounds(held.stream)[1]
        ]
        for topic in _TOLD:
            for block in log.read(Stream(topic, 0), 0, max_rows=1 << 30, max_bytes=1 << 40):
                for record in decode_each(topic, bytes(block.value)):
                    self._fold(record)
        self.note(f"the log is an older copy of itself: incarnation {log.incarnation}", self.now_us)

    def hurt(self, injection: Injection, on: bool, at_us: int) -> None:
        self.injected.append((at_us, injection, on))
        params = " ".join(f"{name}={value}" for name, value in injection.params.items())
        self.note(f"FAULT {injection.fault} {params} {'in' if on else 'out'}", at_us)

    def note(self, text: str, at_us: int) -> None:
        """One line of the timeline."""
        self.tail.append(f"{(at_us - self.start_us) / 1e6:9.4f} s  {text}")

    def broken(self, invariant: str, text: str) -> None:
        self.violations.append(Violation(invariant, (self.now_us - self.start_us) / 1e6, text))
        self.note(f"BROKEN {invariant}: {text}", self.now_us)

    def _fold(self, record: object) -> None:
        match record:
            case ConfigChange():
                self.config, became = fold(self.config, record)
                if became is Fold.APPLIED:
                    self.changes[self.config.version] = record
            case IncidentStep():
                self.cases.setdefault(record.incident.incident_id, Case()).steps.append(record)
            case Alert():
                if record.state is AlertState.FIRING:
                    self.alerts[record.alert_id] = record
                    self.alarms.append(record)
                else:
                    self.alerts.pop(record.alert_id, None)
            case Proposal():
                self.proposals[record.id] = record
            case Verdict():
                self.verdicts.append(record)
            case Command():
                self.commands[record.id] = record
            case CommandResult():
                self.results.append(record)

    def trail(self, machine: Machine) -> Trail:
        """What became of every event; read once, when all is over."""
        if self._trail is None:
            self._trail = Trail(machine)
        return self._trail

    # --- how things stand --------------------------------------------------------------------------------------------

    def open_cases(self) -> list[Case]:
        return [case for case in self.cases.values() if case.open]


def _short(record: object) -> str:
    match record:
        case IncidentStep():
            return f"{record.incident.incident_id} {record.step} {record.phase} {record.text}"
        case Alert():
            return f"{record.state} {record.kind} of {record.subject}: {record.statistic} {record.value:.4g}"
        case ConfigChange():
            return f"{record.version} {record.changes} by {record.actor}: {record.reason}"
        case Proposal():
            return f"{record.id} {record.action.kind} {record.action.target}"
        case Verdict():
            return f"{record.verdict} {record.action.kind} by {record.actor}: {record.reason}"
        case Command():
            return f"{record.kind} {record.target} generation {record.generation}"
        case CommandResult():
            return f"{record.outcome} {record.detail}"
    return type(record).__name__
