"""One record becomes rows: each is looked up by its primary key, then set to what the record says it is now.

The log's own times are written, so applying a record twice, or all of them again, ends in the same rows.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy.orm import Session

from mendstream.adapters.store.models import ConfigRow, HealingAction, Incident, MemoryChunk
from mendstream.contracts.records import Action, ActionRow, ConfigChange, IncidentStep, MemoryRow, VerdictKind

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# The verdicts that the table has no word for: open while a person is asked, and no answer in time is a no.
_DECISIONS: dict[str, str | None] = {VerdictKind.ESCALATED: None, VerdictKind.EXPIRED: VerdictKind.DENIED.value}


def put_step(session: Session, step: IncidentStep) -> None:
    """The incident as it stands after `step`, and the action and the memory that it carries."""
    at = moment(step.at_us)
    _put_incident(session, step, at)
    if step.action is not None:
        _put_action(session, step, step.action, at)
    if step.memory is not None:
        _put_memory(session, step.memory, at)


def put_change(session: Session, change: ConfigChange) -> None:
    """A change that applied."""
    row = session.get(ConfigRow, change.id)
    if row is None:
        row = ConfigRow(config_id=change.id)
        session.add(row)
    row.changed_by = change.actor
    row.changes = change.changes
    row.reason = change.reason
    row.incident_id = change.incident_id
    row.created_at = moment(change.at_us)
    row.base_version = change.base_version
    row.version = change.version
    row.action_id = change.action_id
    row.approval = change.approval
    row.forced = change.forced


def moment(at_us: int) -> datetime:
    """Exact: a float of seconds would lose the last microsecond."""
    return _EPOCH + timedelta(microseconds=at_us)


def _put_incident(session: Session, step: IncidentStep, at: datetime) -> None:
    head = step.incident
    row = session.get(Incident, head.incident_id)
    new = row is None
    if row is None:
        row = Incident(incident_id=head.incident_id, created_at=at)
        session.add(row)
    row.type = head.type
    row.detected_at = moment(head.detected_at_us)
    row.resolved_at = _maybe(head.resolved_at_us)
    row.status = head.status.value
    row.metrics_snapshot = dict(head.metrics_snapshot)
    row.mttr_seconds = None if head.resolved_at_us is None else (head.resolved_at_us - head.detected_at_us) / 1e6
    row.updated_at = at
    row.subject = head.subject
    row.cause = head.cause
    row.outcome = head.outcome
    row.phase = step.phase
    row.step = step.step
    row.text = step.text
    row.seq = step.seq
    if new:
        session.flush()  # before the rows that point at it: without relationships the session does not know their order


def _put_action(session: Session, step: IncidentStep, action: ActionRow, at: datetime) -> None:
    row = session.get(HealingAction, action.action_id)
    if row is None:
        row = HealingAction(action_id=action.action_id, created_at=at)
        session.add(row)
    row.incident_id = step.incident.incident_id
    row.proposed_action = _plain(action.proposed_action)
    row.agl_decision = None if action.agl_decision is None else _DECISIONS.get(action.agl_decision, action.agl_decision)
    row.approved_action = None if action.approved_action is None else _plain(action.approved_action)
    row.executed_at = _maybe(action.executed_at_us)
    row.result = action.result
    row.updated_at = at
    row.kind = action.proposed_action.kind.value
    row.target = action.proposed_action.target
    row.rung = action.rung
    row.is_undo = action.is_undo
    row.decided_by = action.decided_by
    row.policies = list(action.policies)
    row.policy_reason = action.policy_reason
    match step.step:
        case "planning":
            row.plan = step.data
        case "approval":
            row.verdict = step.data
        case "verification":
            row.proof = step.data


def _put_memory(session: Session, memory: MemoryRow, at: datetime) -> None:
    row = session.get(MemoryChunk, memory.memory_id)
    if row is None:
        row = MemoryChunk(memory_id=memory.memory_id, created_at=at)
        session.add(row)
    row.incident_id = memory.incident_id
    row.incident_type = memory.incident_type
    row.cause = memory.cause
    row.incident_summary = memory.incident_summary
    row.action_taken = memory.action_taken
    row.outcome = memory.outcome
    row.metrics_before = dict(memory.metrics_before)
    row.metrics_after = dict(memory.metrics_after)
    row.mttr_seconds = memory.mttr_seconds
    row.features = dict(memory.features)


def _maybe(at_us: int | None) -> datetime | None:
    return None if at_us is None else moment(at_us)


def _plain(action: Action) -> dict[str, Any]:
    return dict(msgspec.to_builtins(action))
