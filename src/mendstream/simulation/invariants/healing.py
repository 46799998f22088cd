"""An incident goes its way by the table, acts once, proves what it claims, and takes back what did not help."""

from __future__ import annotations

import bisect
import math
from collections import defaultdict
from dataclasses import dataclass
from typing import NamedTuple

from mendstream.contracts.agent import TaskId
from mendstream.contracts.incident import MOVES, STATUS_OF, Phase
from mendstream.contracts.knobs import Fold, LiveConfig, fold
from mendstream.contracts.ports import TaskCommit
from mendstream.contracts.records import (
    Action,
    ActionKind,
    ActionRow,
    Alert,
    AlertKind,
    AlertState,
    Command,
    CommandResult,
    ConfigChange,
    Decision,
    IncidentStep,
    Outcome,
    Proposal,
    Status,
)
from mendstream.contracts.topics import Stream, Topic
from mendstream.simulation.invariants.folded import Folded
from mendstream.simulation.log import Append
from mendstream.simulation.machine import Machine
from mendstream.simulation.story import Story

_SOURCE = Stream(Topic.SOURCE, 0)
_ENDED = (Phase.RESOLVED, Phase.FAILED)


def _back(step: IncidentStep) -> bool:
    """Whether it is of the way out of SAFE_MODE that follows an ended incident."""
    return bool(step.data.get("way_back"))


class LegalMoves(Folded):
    """Only moves of the table: else an incident could act without a verdict, or come back from its end.

    LOGGED may be passed without a step of its own.
    """

    name = "legal moves only"
    topics = (Topic.INCIDENT_LOG,)

    def __init__(self, machine: Machine, story: Story) -> None:
        super().__init__(machine, story)
        self._phase: dict[tuple[str, bool], Phase] = {}

    def told(self, append: Append) -> None:
        if append.stream.topic is Topic.INCIDENT_LOG:
            for step in append.records:
                if isinstance(step, IncidentStep):
                    self._step(step)

    def _step(self, step: IncidentStep) -> None:
        incident, back, to = step.incident.incident_id, _back(step), Phase(step.phase)
        now = self._phase.get((incident, back))
        self._phase[incident, back] = to
        if now is None:
            self._begin(incident, to, back=back)
        elif to != now and to not in MOVES[now] and not (Phase.LOGGED in MOVES[now] and to in MOVES[Phase.LOGGED]):
            self.broken(f"{incident} goes from {now} to {to}: {step.text}")
        allowed = {STATUS_OF[to]} | ({Status.MITIGATING} if STATUS_OF[to] is Status.OPEN else set())
        if not back and step.incident.status not in allowed:
            self.broken(f"{incident} is {to} and has status {step.incident.status}")

    def _begin(self, incident: str, to: Phase, *, back: bool) -> None:
        if back and self._phase.get((incident, False)) not in _ENDED:
            self.broken(f"{incident} is on its way back and has not ended")
        elif not back and to is not Phase.DETECTED:
            self.broken(f"{incident} begins as {to}")


class OneRemedy(Folded):
    """At most one running remedy per target: else two cures fight, and neither can be proven.

    A restart runs until it is answered, unless the death of its target is the incident; SAFE_MODE may be let go while a
    proof waits for just that; and a shadow run decides nothing, so it is in the way of another shadow run only.
    """

    name = "one remedy per target"
    topics = (Topic.INCIDENT_LOG, Topic.COMMAND_RESULTS)

    def __init__(self, machine: Machine, story: Story) -> None:
        super().__init__(machine, story)
        self._running: dict[tuple[str, bool], dict[str, Action]] = {}
        """(incident, way back) -> action id -> action"""
        self._proving: set[str] = set()
        """Incidents whose remedy is done, and being proven or undone."""

    def told(self, append: Append) -> None:
        match append.stream.topic:
            case Topic.INCIDENT_LOG:
                for step in append.records:
                    if isinstance(step, IncidentStep):
                        self._step(step)
            case Topic.COMMAND_RESULTS:
                for record in append.records:
                    if isinstance(record, CommandResult):
                        self._answered(record)

    def _step(self, step: IncidentStep) -> None:
        incident, row = step.incident.incident_id, step.action
        mine = self._running.setdefault((incident, _back(step)), {})
        (self._proving.add if step.phase in (Phase.VERIFYING, Phase.UNDOING) else self._proving.discard)(incident)
        if step.phase in (Phase.LOGGED, Phase.ESCALATED, *_ENDED):
            mine.clear()
        elif step.phase == Phase.EXECUTING and row is not None and row.result is None:
            self._begin(step, row.approved_action or row.proposed_action)

    def _begin(self, step: IncidentStep, action: Action) -> None:
        key = (step.incident.incident_id, _back(step))
        if action.id in self._running[key]:
            return
        for (other, back), acts in self._running.items():
            for running in acts.values():
                if (other, back) == key or running.target != action.target:
                    continue
                if not self._beside(action, running, other):
                    self.broken(f"{action.id} ({action.kind}) and {running.id} ({running.kind}) act on {action.target}")
        self._running[key][action.id] = action

    def _beside(self, action: Action, running: Action, other: str) -> bool:
        if action.kind is not running.kind and ActionKind.SHADOW in (action.kind, running.kind):
            return True
        return action.kind is ActionKind.SAFE_MODE_OFF and other in self._proving

    def _answered(self, result: CommandResult) -> None:
        case = self.story.cases.get(result.incident_id)
        if case is not None and case.last.incident.type != AlertKind.AGENT_DOWN:
            for acts in self._running.values():
                held = acts.get(result.action_id)
                if held is not None and held.kind is ActionKind.RESTART:
                    del acts[result.action_id]


class _Decided(NamedTuple):
    at_us: int
    config: int
    model: str
    normal: bool
    partition: int
    slow: bool
    wrong: bool


class ProvenCure(Folded):
    """RESOLVED only with good evidence after the change: else the house says well while customers see ill.

    Looked at are the decisions themselves, against the world's own times and labels: enough of them in every partition
    that is used, made by the remedy's versions after it took effect, and few of them slow or wrong, as it claims.
    """

    name = "resolved means proven"
    topics = (Topic.DECISIONS, Topic.CONFIG_UPDATES, Topic.ALERTS, Topic.INCIDENT_LOG)
    SLOW_SHARE = 0.2
    LOOK_US = 2_000_000
    NEW_US = 1_000_000
    """A proof of 2 s begins when a backlog has gone: what is newer than this lies within it."""
    PANE_US = 650_000
    """So much earlier than its effect a proof may begin: it counts whole panes, of which the judge tells afterwards."""
    MARGIN = 0.03

    def __init__(self, machine: Machine, story: Story) -> None:
        super().__init__(machine, story)
        self._decided: list[_Decided] = []
        self._config = LiveConfig()
        self._applied: dict[str, tuple[int, int]] = {}
        """action -> (when its change was applied, config version)"""
        self._resolved: set[tuple[str, bool]] = set()
        self._opened: dict[str, int] = {}
        self._firing: dict[str, tuple[int, str, str]] = {}
        """alert -> (since when, kind, subject)"""
        self._slo_us = machine.settings.slo.latency_ms * 1000
        self._taken: list[tuple[int, int]] = [(0, machine.kernel.now_us)]
        """(position of the source, since when ingestion stands there)"""

    # --- what happens ------------------------------------------------------------------------------------------------

    def told(self, append: Append) -> None:
        now = self.now_us
        match append.stream.topic:
            case Topic.DECISIONS:
                self._decided += [
                    self._of(record, append.stream.partition, now)
                    for record in append.records
                    if isinstance(record, Decision)
                ]
            case Topic.CONFIG_UPDATES:
                for record in append.records:
                    if isinstance(record, ConfigChange):
                        self._config, became = fold(self._config, record)
                        if became is Fold.APPLIED and record.action_id is not None:
                            self._applied[record.action_id] = (now, self._config.version)
            case Topic.ALERTS:
                for record in append.records:
                    if isinstance(record, Alert) and record.state is AlertState.FIRING:
                        self._firing[record.alert_id] = (now, record.kind, record.subject)
                    elif isinstance(record, Alert):
                        self._firing.pop(record.alert_id, None)
            case Topic.INCIDENT_LOG:
                for record in append.records:
                    if isinstance(record, IncidentStep):
                        self._step(record, now)

    def committed(self, commit: TaskCommit, process: str, generation: int) -> None:
        position = commit.positions.get(_SOURCE)
        if position is not None:
            self._taken.append((position, self.machine.kernel.now_us))

    def claimed(self, task: TaskId, epoch: int, process: str, generation: int) -> None:
        if task.agent == "ingestion":
            self._taken.append((self._taken[-1][0], self.machine.kernel.now_us))

    def _of(self, decision: Decision, partition: int, now: int) -> _Decided:
        n = int(decision.event_id[1:])
        slow = now - self._born_us(n) > self._slo_us
        wrong = (decision.score >= 0.5) != bool(self.machine.tape.made[n].label)  # as labels judge, whatever threshold
        return _Decided(now, decision.config, decision.model, decision.mode == "NORMAL", partition, slow, wrong)

    def _born_us(self, n: int) -> int:
        """When the house took it in: how long it waited outside is not the house's latency."""
        after = bisect.bisect_right(self._taken, n, key=lambda held: held[0])
        # In a fused turn the event is decided before ingestion's part is told of: it came after the turn before.
        turn = self._taken[min(after, len(self._taken) - 1)][1]
        return max(turn, self.machine.tape.due_at_us(n) or 0)

    def _step(self, step: IncidentStep, now: int) -> None:
        incident, back = step.incident.incident_id, _back(step)
        self._opened.setdefault(incident, now)
        if step.phase != Phase.RESOLVED or (incident, back) in self._resolved:
            return
        self._resolved.add((incident, back))
        acted = step.action is not None and (back or step.incident.outcome == "mitigated")
        why = self._acted(step, step.action, now) if step.action and acted else self._by_itself(step, back, now)
        if why:
            self.broken(f"{incident} ({step.incident.type}) is RESOLVED ({step.text}), but {why}")

    # --- what a claim rests on ---------------------------------------------------------------------------------------

    def _acted(self, step: IncidentStep, row: ActionRow, now: int) -> str:
        action = row.approved_action or row.proposed_action
        if action.kind is ActionKind.RESTART:
            since = self._back_since(action.target, action.params.get("generation"))
            if since is None:
                return f"no later generation of {action.target} runs"
            return self._evidence(step, [held for held in self._decided if held.at_us >= since], now - since)
        since, version = self._applied.get(action.id, (now, 0))
        if not version:
            return f"{action.kind} was never applied"
        found = [held for held in self._decided if held.at_us >= since and held.config >= version]
        match action.kind:
            case ActionKind.ROLLBACK | ActionKind.PROMOTE:
                found = [held for held in found if held.normal and held.model == action.params["version"]]
            case ActionKind.SAFE_MODE_ON:
                found = [held for held in found if not held.normal]
            case ActionKind.SAFE_MODE_OFF if not self._config.safe_mode:
                found = [held for held in found if held.normal]
        return self._evidence(step, found, now - since)

    def _by_itself(self, step: IncidentStep, back: bool, now: int) -> str:
        head = step.incident
        if back:
            return "SAFE_MODE is still held" if head.incident_id in self._config.safe_mode else ""
        # A judge that has just been started still works off the panes in which it was ill.
        settled = min(self.story.health.well_us("healing-0"), self.story.health.well_us("judge-0") // 5) > self.LOOK_US
        closed = head.outcome == "person"  # who looks at it may know better than the detector
        for since, kind, subject in self._firing.values():
            if settled and not closed and (kind, subject) == (head.type, head.subject) and now - since > self.LOOK_US:
                return f"its alert has fired for {(now - since) / 1e6:.1f} s"
        since = self._opened[head.incident_id]
        if head.type == AlertKind.AGENT_DOWN:
            since = self._back_since(head.subject, None) or since
        return self._evidence(step, [held for held in self._decided if held.at_us >= since], now - since)

    def _back_since(self, process: str, generation: object) -> int | None:
        """Since when the present life of `process`, later than `generation`, has taken turns."""
        found = None
        for life in self.machine.life:
            if life.process == process:
                later = not isinstance(generation, int) or life.generation > generation
                found = life.at_us if life.what == "ready" and later else found
        return found

    def _evidence(self, step: IncidentStep, found: list[_Decided], passed: int) -> str:
        settings, kind = self.machine.settings.healing, step.incident.type
        if len(found) < settings.proof_events:
            return f"only {len(found)} decisions tell of it"
        if passed < settings.proof_s * 1e6 - self.PANE_US:
            return f"only {passed / 1e6:.2f} s have passed"
        silent = {held.partition for held in self._decided} - {held.partition for held in found}
        if silent:
            return f"partitions {sorted(silent)} have decided nothing by it"
        wrong = step.data.get("error_before")
        if kind in (AlertKind.PERF_DROP, AlertKind.DATA_DRIFT) and isinstance(wrong, float):
            return self._errors(found, wrong)
        return self._latency(found) if kind == AlertKind.LATENCY_SLO_BREACH else ""

    def _errors(self, found: list[_Decided], before: float) -> str:
        share, n = sum(held.wrong for held in found) / len(found), len(found)
        limit = before + self.MARGIN + 3 * math.sqrt(max(before * (1 - before), 0.01) / n)
        return f"{share:.3f} of its {n} decisions are wrong, {before:.3f} before" if share > limit else ""

    def _latency(self, found: list[_Decided]) -> str:
        new = [held for held in found if held.at_us >= found[-1].at_us - self.NEW_US]
        slow = sum(held.slow for held in new) / len(new)
        return f"{slow:.0%} of its newest {len(new)} decisions are slow" if slow > self.SLOW_SHARE else ""


@dataclass
class _Change:
    """One applied change by healing that is no undo."""

    incident: str
    rung: int
    """0: of the way out of SAFE_MODE."""
    wrote: frozenset[tuple[str, str]]
    """(knob, value), or (knob, element) of a list, of what it made different"""


class HarmUndone(Folded):
    """What did not help is taken back before anything else: else failed remedies pile up, and are what is ill next.

    In force is a change while all that it made different is still as it made it. An undo that is not to be seen is
    given to a person, and that is an answer.
    """

    name = "harm is undone"
    topics = (Topic.POLICY_REQUESTS, Topic.CONFIG_UPDATES, Topic.INCIDENT_LOG)

    def __init__(self, machine: Machine, story: Story) -> None:
        super().__init__(machine, story)
        self._config = LiveConfig()
        self._rungs: dict[str, tuple[str, int]] = {}
        """action -> (incident, rung)"""
        self._changes: dict[str, _Change] = {}
        self._owner: dict[tuple[str, str], str] = {}
        """(knob, value) that holds -> the action that made it so"""
        self._given_up: set[str] = set()
        """Actions whose undo is in a person's hands."""

    def told(self, append: Append) -> None:
        match append.stream.topic:
            case Topic.POLICY_REQUESTS:
                for record in append.records:
                    if isinstance(record, Proposal):
                        self._rungs[record.action.id] = (record.incident_id, record.rung)
            case Topic.CONFIG_UPDATES:
                for record in append.records:
                    if isinstance(record, ConfigChange):
                        self._fold(record)
            case Topic.INCIDENT_LOG:
                for record in append.records:
                    if isinstance(record, IncidentStep):
                        self._step(record)

    def _fold(self, change: ConfigChange) -> None:
        before = self._config
        self._config, became = fold(before, change)
        if became is not Fold.APPLIED:
            return
        wrote: set[tuple[str, str]] = set()
        for knob in change.changes:
            was, now = _values(before, knob), _values(self._config, knob)
            wrote |= now - was
            for gone in was - now:
                self._owner.pop(gone, None)
        action = change.action_id or ""
        for made in sorted(wrote):
            self._owner[made] = action
        if action in self._rungs and wrote:
            self._changes[action] = _Change(*self._rungs[action], frozenset(wrote))

    def _in_force(self, incident: str) -> dict[str, int]:
        """Action -> rung, of what the incident has changed and nobody has taken back."""
        return {
            action: change.rung
            for action, change in self._changes.items()
            if change.incident == incident
            and action not in self._given_up
            and all(self._owner.get(made) == action for made in change.wrote)
        }

    def _step(self, step: IncidentStep) -> None:
        incident, row = step.incident.incident_id, step.action
        if row is not None and row.is_undo and row.result == "FAIL":
            self._given_up.add(row.action_id.removesuffix(".undo"))
        if _back(step):
            return
        held = self._in_force(incident)
        match step.phase:
            case Phase.FAILED | Phase.ESCALATED:
                left = held
            case Phase.RESOLVED:
                kept = step.incident.outcome == "mitigated"
                last = max((rung for owner, rung in self._rungs.values() if owner == incident), default=0)
                left = {action: rung for action, rung in held.items() if not (kept and rung == last)}
            case Phase.PLANNED if row is not None:
                left = {action: rung for action, rung in held.items() if rung != row.rung}
            case _:
                return
        if left:
            self.broken(f"{incident} is {step.phase} and {', '.join(sorted(left))} is still in force")

    def end(self) -> None:
        # One that has begun while the stream ran dry is still being healed.
        if self._config.safe_mode and not self.story.open_cases():
            self.broken(f"all is well, and {', '.join(self._config.safe_mode)} hold SAFE_MODE")
        for incident, case in self.story.cases.items():
            left = sorted(self._in_force(incident)) if case.last.incident.status is Status.FAILED else []
            if left:
                self.broken(f"{incident} has failed and {', '.join(left)} is still in force")


def _values(config: LiveConfig, knob: str) -> set[tuple[str, str]]:
    value = getattr(config, knob)
    return {(knob, str(one)) for one in value} if isinstance(value, tuple) else {(knob, repr(value))}


class ChosenOnce(Folded):
    """An interrupted choice is resumed, never chosen again, and carried out once: else a crash doubles what is done."""

    name = "chosen once"
    topics = (Topic.POLICY_REQUESTS, Topic.INCIDENT_LOG, Topic.COMMANDS, Topic.COMMAND_RESULTS, Topic.CONFIG_UPDATES)

    def __init__(self, machine: Machine, story: Story) -> None:
        super().__init__(machine, story)
        self._plan: dict[str, str] = {}
        """action -> plan hash"""
        self._newest: dict[tuple[str, bool], str] = {}
        """(incident, way back) -> action"""
        self._over: set[str] = set()
        """Actions that were put out, or have a result."""
        self._ordered: set[str] = set()
        self._done: set[str] = set()
        self._config = LiveConfig()
        self._applied: set[str] = set()
        self._read = len(machine.life)
        self._starts: dict[str, int] = defaultdict(int)
        """process -> its starts in the present life of the supervisor, less those that were reported"""

    def told(self, append: Append) -> None:
        match append.stream.topic:
            case Topic.POLICY_REQUESTS:
                for record in append.records:
                    if isinstance(record, Proposal):
                        self._proposed(record)
            case Topic.INCIDENT_LOG:
                for record in append.records:
                    if isinstance(record, IncidentStep) and record.action is not None:
                        row = record.action
                        if row.executed_at_us is not None or row.result is not None or row.agl_decision == "DENIED":
                            self._over.add(row.action_id)
            case Topic.COMMANDS:
                for record in append.records:
                    if isinstance(record, Command) and record.action_id in self._ordered:
                        self.broken(f"{record.action_id} is ordered twice")
                    elif isinstance(record, Command):
                        self._ordered.add(record.action_id)
            case Topic.COMMAND_RESULTS:
                for record in append.records:
                    if isinstance(record, CommandResult):
                        self._result(record)
            case Topic.CONFIG_UPDATES:
                for record in append.records:
                    if isinstance(record, ConfigChange):
                        self._config, became = fold(self._config, record)
                        if became is Fold.APPLIED and record.action_id is not None:
                            if record.action_id in self._applied:
                                self.broken(f"{record.action_id} has changed the config twice")
                            self._applied.add(record.action_id)

    def _proposed(self, proposal: Proposal) -> None:
        action = proposal.action
        if self._plan.setdefault(action.id, proposal.plan_hash) != proposal.plan_hash:
            self.broken(f"{action.id} is proposed with another plan than before: {action.kind} of {action.target}")
        key = (proposal.incident_id, proposal.rung == 0)
        before = self._newest.get(key, action.id)
        if before != action.id and before not in self._over:
            self.broken(f"{action.id} is proposed while {before} waits for its answer")
        self._newest[key] = action.id

    def _result(self, result: CommandResult) -> None:
        if result.outcome is not Outcome.DONE:
            return
        target = result.data.get("target")
        if result.action_id:
            if result.action_id in self._done:
                self.broken(f"{result.action_id} was done twice")
            self._done.add(result.action_id)
            command = self.story.commands.get(result.command_id)
            target = command.target if command is not None else target
        if isinstance(target, str):
            self._starts[target] -= 1

    def tick(self) -> None:
        for life in self.machine.life[self._read :]:
            if life.what != "started":
                continue
            if life.process == "supervisor-0":
                self._starts.clear()
            self._starts[life.process] += 1
        self._read = len(self.machine.life)
        for process in self.story.health.pipeline:
            if self._starts[process] > 2:  # the first of the supervisor's life, and one not yet reported
                self.broken(f"{process} was started {self._starts[process] - 1} times, and nobody has said so")
