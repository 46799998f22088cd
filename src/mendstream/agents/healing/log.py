"""Writing the incident log: one step of one incident as a record, chained to the one before."""

from __future__ import annotations

from typing import Any, Literal

from mendstream.agents.healing import chain
from mendstream.agents.healing.state import Act, Incident
from mendstream.agents.healing.turn import Turn
from mendstream.contracts.incident import STATUS_OF, Phase, move
from mendstream.contracts.records import ActionRow, IncidentHead, IncidentStep, MemoryRow, Status

Step = Literal["detection", "logging", "planning", "approval", "execution", "verification", "memory"]
Decision = Literal["APPROVED", "DENIED", "MODIFIED"]
_DECIDED: dict[str, Decision] = {
    "APPROVED": "APPROVED",
    "MODIFIED": "MODIFIED",
    "DENIED": "DENIED",
    "EXPIRED": "DENIED",
}


def write(
    turn: Turn,
    incident: Incident,
    step: Step,
    text: str,
    *,
    data: dict[str, Any] | None = None,
    row: ActionRow | None = None,
    memory: MemoryRow | None = None,
    actor: str = "healing",
) -> None:
    """One step, for people (`text`) and for machines (`data`, the rows)."""
    state = turn.state
    found = dict(data or {})
    if incident.back:
        found["way_back"] = True
    sealed = chain.seal(
        IncidentStep(
            id=turn.outputs.id(),
            seq=state.seq,
            incident=head(incident),
            step=step,
            phase=incident.phase.value,
            text=text,
            actor=actor,
            at_us=turn.now,
            data=found,
            action=row,
            memory=memory,
            prev_hash=state.hash,
        )
    )
    state.seq += 1
    state.hash = sealed.hash
    turn.outputs.records.append(sealed)


def go(turn: Turn, incident: Incident, to: Phase) -> None:
    """Move `incident`; the only way in which its phase changes."""
    incident.phase = move(incident.phase, to)
    incident.since_us = turn.now
    if STATUS_OF[to] is not Status.OPEN:
        incident.acted = True


def head(incident: Incident) -> IncidentHead:
    """The row of `incidents` as it stands. A way back leaves its incident as it ended."""
    back = incident.back
    return IncidentHead(
        incident_id=incident.incident_id,
        type=incident.kind,
        subject=incident.subject,
        status=back.status if back else status(incident),
        detected_at_us=incident.detected_at_us,
        resolved_at_us=back.resolved_at_us if back else incident.resolved_at_us,
        metrics_snapshot=incident.snapshot,
        outcome=back.outcome if back else incident.outcome,
        cause=incident.cause,
    )


def status(incident: Incident) -> Status:
    """OPEN until an act begins, MITIGATING from then on."""
    found = STATUS_OF[incident.phase]
    return Status.MITIGATING if found is Status.OPEN and incident.acted else found


def row(act: Act) -> ActionRow:
    """The row of `healing_actions` of `act`."""
    return ActionRow(
        action_id=act.action.id,
        rung=act.rung,
        is_undo=False,
        proposed_action=act.action,
        agl_decision=_DECIDED.get(act.verdict),
        approved_action=act.approved,
        policies=act.policies,
        policy_reason=act.reason,
        decided_by=act.decided_by,
        executed_at_us=act.executed_at_us,
        result=act.result,
    )


def undo_row(act: Act) -> ActionRow | None:
    """The row of the undo of `act`, done under the approval that named it."""
    if act.undo is None or act.undo_change is None:
        return None
    return ActionRow(
        action_id=act.undo.id,
        rung=act.rung,
        is_undo=True,
        proposed_action=act.undo,
        agl_decision="APPROVED",
        approved_action=act.undo,
        policies=act.policies,
        policy_reason=f"the undo that was approved with {act.action.id}",
        decided_by=act.decided_by,
        executed_at_us=act.undo_change.at_us,
        result=act.undo_result,
    )
