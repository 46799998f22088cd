"""What the policy agent knows, folded from the records that it reads; the facts of a verdict come from here alone."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from mendstream.contracts import knobs
from mendstream.contracts.knobs import Fold, LiveConfig
from mendstream.contracts.records import (
    ActionKind,
    Alert,
    AlertKind,
    AlertState,
    CommandResult,
    ConfigChange,
    IncidentStep,
    Outcome,
    Proposal,
    Record,
    Status,
    TaskState,
    Verdict,
    VerdictKind,
    Vitals,
)

HOUR_US = 3_600_000_000
MAX_DEEDS = 4096
MAX_CHANGES = 64
MAX_VERDICTS = 64
VERDICT_KEPT_US = 600_000_000
"""A repeat comes soon after a crash; later than this the proposal has expired anyway."""
MAX_OPEN = 1024
"""Open incidents and open alerts, each."""
MAX_VERSIONS = 1024
MAX_PROCESSES = 1024

V = TypeVar("V")


class Deed(msgspec.Struct):
    """One action that was proposed, and what is known to have come of it."""

    kind: str
    target: str
    incident_id: str
    is_undo: bool = False
    granted_until_us: int = 0
    """It may still be carried out until then; 0: not granted by this agent."""
    executed_at_us: int | None = None
    refused: bool = False
    """Its addressee did not do it."""
    seen_us: int = 0

    def counts(self, now: int, window_us: int) -> bool:
        """Done within the window, or granted and perhaps being done."""
        if self.refused:
            return False
        if self.executed_at_us is None:
            return now < self.granted_until_us
        return now - self.executed_at_us < window_us


class Change(msgspec.Struct, frozen=True):
    """One applied change that an incident's action made."""

    incident_id: str
    before: LiveConfig
    after: LiveConfig


class Trained(msgspec.Struct, frozen=True):
    """A version that the trainer reported done."""

    incident_id: str
    digest: str


class Answered(msgspec.Struct, frozen=True):
    """A verdict that was given, and the hash of the plan that it answered."""

    plan_hash: str
    verdict: Verdict


class PolicyState(msgspec.Struct):
    config: LiveConfig = LiveConfig()
    live: dict[str, str] = {}
    """Version -> digest, of all that were ever live."""
    shadowed: dict[str, str] = {}
    trained: dict[str, Trained] = {}
    changes: list[Change] = []
    deeds: dict[str, Deed] = {}
    """By action id."""
    incidents: list[str] = []
    """Ids of those that are open."""
    corrupt: list[str] = []
    """Ids of open alerts that mark the data as corrupt."""
    down: dict[str, str] = {}
    """Open AGENT_DOWN alerts: alert id -> subject."""
    processes: dict[str, int] = {}
    """Process -> when vitals last showed it."""
    vitals_at_us: int = -1
    """Of the newest vitals; -1: none yet."""
    sick_bp: int = 0
    verdicts: dict[str, Answered] = {}
    """By proposal id, the newest last."""


def fold(state: PolicyState, record: Record) -> None:
    """Take in one record of the log."""
    match record:
        case ConfigChange():
            _config(state, record)
        case CommandResult():
            _result(state, record)
        case IncidentStep():
            _step(state, record)
        case Alert():
            _alert(state, record)
        case Vitals():
            _vitals(state, record)
        case _:
            pass  # a fault of the chaos wing: no agent acts on it


def remember(state: PolicyState, proposal: Proposal, verdict: Verdict, *, is_undo: bool) -> None:
    """Keep a verdict, and count what it allows from now on, before it is done. `is_undo`: verified, not claimed."""
    _put(state.verdicts, proposal.id, Answered(proposal.plan_hash, verdict), MAX_VERDICTS)
    if verdict.verdict in (VerdictKind.DENIED, VerdictKind.EXPIRED):
        return
    action = proposal.action
    deed = state.deeds.get(action.id) or Deed(action.kind, action.target, proposal.incident_id, is_undo)
    deed.seen_us = verdict.at_us
    if verdict.verdict is not VerdictKind.ESCALATED:
        deed.granted_until_us = verdict.expires_at_us
        deed.refused = False
    _put(state.deeds, action.id, deed, MAX_DEEDS)


def forget(state: PolicyState, now: int) -> None:
    """Drop what no window reaches any more."""
    old = [key for key, deed in state.deeds.items() if max(deed.seen_us, deed.executed_at_us or 0) < now - 2 * HOUR_US]
    for key in old:
        del state.deeds[key]
    for key in [key for key, held in state.verdicts.items() if held.verdict.at_us < now - VERDICT_KEPT_US]:
        del state.verdicts[key]


def _config(state: PolicyState, change: ConfigChange) -> None:
    before = state.config
    state.config, outcome = knobs.fold(before, change)
    if outcome is not Fold.APPLIED:
        return
    after = state.config
    if after.model_version:
        _put(state.live, after.model_version, after.model_digest, MAX_VERSIONS)
    if after.shadow_version:
        _put(state.shadowed, after.shadow_version, after.shadow_digest, MAX_VERSIONS)
    if change.incident_id is not None and change.action_id is not None:
        state.changes.append(Change(change.incident_id, before, after))
        del state.changes[:-MAX_CHANGES]


def _result(state: PolicyState, result: CommandResult) -> None:
    deed = state.deeds.get(result.action_id)
    if deed is None:
        # The supervisor's own restart of a process that nobody answered for: no proposal, but budgets count it.
        if result.data.get("kind") == ActionKind.RESTART and isinstance(result.data.get("target"), str):
            deed = Deed(ActionKind.RESTART, str(result.data["target"]), result.incident_id)
            _put(state.deeds, result.action_id or result.id, deed, MAX_DEEDS)
        else:
            return
    deed.seen_us = result.at_us
    deed.refused = result.outcome is Outcome.REFUSED
    if deed.refused:
        return
    if deed.executed_at_us is None or deed.kind == ActionKind.RESTART:
        deed.executed_at_us = result.at_us  # done, failed or unknown: an attempt was made
    version, digest = result.data.get("version"), result.data.get("digest")
    if deed.kind == ActionKind.RETRAIN and result.outcome is Outcome.DONE and isinstance(version, str):
        trained = Trained(deed.incident_id, digest if isinstance(digest, str) else "")
        _put(state.trained, version, trained, MAX_VERSIONS)


def _step(state: PolicyState, step: IncidentStep) -> None:
    head = step.incident
    is_open = head.status in (Status.OPEN, Status.MITIGATING)
    state.incidents = [held for held in state.incidents if held != head.incident_id]
    if is_open:
        state.incidents.append(head.incident_id)
        del state.incidents[:-MAX_OPEN]
    row = step.action
    if row is None or row.executed_at_us is None:
        return
    done = row.approved_action or row.proposed_action
    is_undo = row.is_undo and done.kind not in (ActionKind.RESTART, ActionKind.RETRAIN)
    deed = state.deeds.get(row.action_id) or Deed(done.kind, done.target, head.incident_id, is_undo)
    if deed.executed_at_us is None:
        deed.executed_at_us = row.executed_at_us
    deed.seen_us = step.at_us
    _put(state.deeds, row.action_id, deed, MAX_DEEDS)


def _alert(state: PolicyState, alert: Alert) -> None:
    state.corrupt = [held for held in state.corrupt if held != alert.alert_id]
    state.down.pop(alert.alert_id, None)
    if alert.state is not AlertState.FIRING:
        return
    if alert.evidence.get("corrupt") is True:
        state.corrupt.append(alert.alert_id)
        del state.corrupt[:-MAX_OPEN]
    if alert.kind is AlertKind.AGENT_DOWN:
        _put(state.down, alert.alert_id, alert.subject, MAX_OPEN)


def _vitals(state: PolicyState, vitals: Vitals) -> None:
    if vitals.at_us < state.vitals_at_us:
        return
    state.vitals_at_us = vitals.at_us
    sick: dict[str, bool] = {}
    for task in vitals.tasks:
        sick[task.process] = sick.get(task.process, False) or task.state is not TaskState.OK
        _put(state.processes, task.process, vitals.at_us, MAX_PROCESSES)
    state.sick_bp = sum(sick.values()) * 10_000 // len(sick) if sick else 0


def _put(held: dict[str, V], key: str, value: V, limit: int) -> None:
    """Set it as the newest; the oldest makes room."""
    held.pop(key, None)
    held[key] = value
    while len(held) > limit:
        del held[next(iter(held))]
