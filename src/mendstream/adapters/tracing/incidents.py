"""Records of incidents come in; the spans of their steps go out, and the span of the whole once it has ended.

A step lasts from the record before it to its own: planning ends with the proposal, approval with the verdict,
execution with the target's answer, verification with the proof.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from mendstream.adapters.tracing.names import of_incident, of_record
from mendstream.adapters.tracing.span import Span, Value
from mendstream.contracts.records import ActionRow, IncidentStep, Proposal, Record, Status, Verdict

_PROPOSALS_MAX = 1000
"""Newest proposals whose time is known; a verdict on an older one is a point in time."""


class Incidents:
    def __init__(self, put: Callable[[Span], None]) -> None:
        self._put = put
        self._since: dict[str, int] = {}
        """Incident that is under way -> when its newest step ended."""
        self._proposed: dict[str, int] = {}

    def recall(self, records: Iterable[Record]) -> None:
        """What an earlier process put out, oldest first: nothing is sent again."""
        for record in records:
            if isinstance(record, IncidentStep):
                self._follow(record)

    def proposed(self, records: Iterable[Record]) -> None:
        """What the policy is about to answer."""
        for record in records:
            if isinstance(record, Proposal):
                self._proposed[record.id] = record.at_us
                if len(self._proposed) > _PROPOSALS_MAX:
                    del self._proposed[next(iter(self._proposed))]

    def told(self, records: Iterable[Record]) -> None:
        """What a turn that is in the log put out."""
        for record in records:
            if isinstance(record, IncidentStep):
                self._put(_step(record, self._follow(record)))
                if record.memory is not None:  # written once, when the incident has ended
                    self._put(_whole(record))
            elif isinstance(record, Verdict):
                self._put(_verdict(record, self._proposed.pop(record.proposal_id, record.at_us)))

    def _follow(self, step: IncidentStep) -> int:
        """When the step began."""
        incident = step.incident
        if step.step == "detection":
            since = incident.detected_at_us
        else:
            since = self._since.get(incident.incident_id, step.at_us)
            if step.step == "logging" and incident.incident_id in self._since and incident.status is not Status.OPEN:
                return step.at_us  # news that is noted beside a step that goes on
        if step.step == "memory":
            self._since.pop(incident.incident_id, None)
        else:
            self._since[incident.incident_id] = step.at_us
        return min(since, step.at_us)


def _step(step: IncidentStep, start_us: int) -> Span:
    incident = step.incident.incident_id
    attributes = _head(step) | {
        "mendstream.seq": step.seq,
        "mendstream.step": step.step,
        "mendstream.phase": step.phase,
        "mendstream.text": step.text,
        "mendstream.actor": step.actor,
    }
    if step.action is not None:
        attributes |= _action(step.action)
    if step.data.get("way_back"):
        attributes["mendstream.way_back"] = True
    return Span(
        name=step.step, own=of_record(incident, step.id), parent=of_incident(incident), start_us=start_us,
        end_us=step.at_us, attributes=attributes, failed=_failed(step.action),
    )  # fmt: skip


def _whole(step: IncidentStep) -> Span:
    assert step.memory is not None
    head = step.incident
    attributes = _head(step) | {"mendstream.summary": step.memory.incident_summary}
    return Span(
        name=f"incident {head.type}", own=of_incident(head.incident_id), parent=None, start_us=head.detected_at_us,
        end_us=max(step.at_us, head.detected_at_us), attributes=attributes,
        failed=head.outcome if head.status is Status.FAILED else "",
    )  # fmt: skip


def _verdict(verdict: Verdict, start_us: int) -> Span:
    attributes: dict[str, Value] = {
        "mendstream.incident.id": verdict.incident_id,
        "mendstream.action.id": verdict.action_id,
        "mendstream.action.kind": verdict.action.kind.value,
        "mendstream.action.target": verdict.action.target,
        "mendstream.verdict": verdict.verdict.value,
        "mendstream.policies": ", ".join(verdict.policies),
        "mendstream.actor": verdict.actor,
        "mendstream.text": verdict.reason,
    }
    return Span(
        name="policy verdict", own=of_record(verdict.incident_id, verdict.id), parent=of_incident(verdict.incident_id),
        start_us=min(start_us, verdict.at_us), end_us=verdict.at_us, attributes=attributes,
    )  # fmt: skip


def _head(step: IncidentStep) -> dict[str, Value]:
    head = step.incident
    return {
        "mendstream.incident.id": head.incident_id,
        "mendstream.incident.type": head.type,
        "mendstream.incident.subject": head.subject,
        "mendstream.incident.status": head.status.value,
        "mendstream.incident.cause": head.cause,
        "mendstream.incident.outcome": head.outcome,
    }


def _action(row: ActionRow) -> dict[str, Value]:
    action = row.approved_action or row.proposed_action
    found: dict[str, Value] = {
        "mendstream.action.id": row.action_id,
        "mendstream.action.kind": action.kind.value,
        "mendstream.action.target": action.target,
        "mendstream.action.undo": row.is_undo,
    }
    if row.agl_decision is not None:
        found |= {"mendstream.verdict": row.agl_decision, "mendstream.policies": ", ".join(row.policies)}
    if row.result is not None:
        found["mendstream.action.result"] = row.result
    return found


def _failed(row: ActionRow | None) -> str:
    if row is None or row.result != "FAIL":
        return ""
    return f"{(row.approved_action or row.proposed_action).kind} failed"
