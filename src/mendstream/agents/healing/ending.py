"""How a rung is left and how an incident ends: undo first, then the next rung, a person, or the end with its memory."""

from __future__ import annotations

from typing import Any, Literal

from mendstream.agents.healing import log, memory
from mendstream.agents.healing.due import ENDED, WAITING, well
from mendstream.agents.healing.log import go, write
from mendstream.agents.healing.state import Case, Incident, WayBack
from mendstream.agents.healing.turn import Turn
from mendstream.contracts.incident import Phase
from mendstream.contracts.records import MemoryRow, Status

END = "__end__"
"""LangGraph's name for "no node follows"."""
_ENDED_MAX = 20


def cure(turn: Turn, incident: Incident, text: str, data: dict[str, Any]) -> None:
    """RESOLVED with proof."""
    back = incident.back
    acted = [act for act in incident.acts if act.executed_at_us is not None and act.result != "FAIL"]
    go(turn, incident, Phase.RESOLVED)
    incident.resolved_at_us = turn.now
    if back:
        back.outcome = f"{back.outcome}; released"
    elif not incident.outcome:
        incident.outcome = "mitigated" if acted and not all(act.by_other for act in acted) else "recovered"
    for act in acted[:-1]:
        if act.result is None:
            act.result = "SUCCESS"
            write(turn, incident, "verification", f"{act.action.kind} verified with its rung", row=log.row(act))
    last = acted[-1] if acted else None
    if last:
        last.result = "FAIL" if last.by_other else "SUCCESS"
    write(turn, incident, "verification", text, data=data, row=log.row(last) if last else None)
    _close_open(turn, incident)


def leave_rung(turn: Turn, incident: Incident, then: Literal["next", "escalate", "fail"], why: str) -> str:
    """Take back what the rung has changed, then go where `then` says."""
    incident.after_undo = then
    incident.act_done = False
    incident.watch = None
    incident.tried.append(why)
    if incident.in_force:
        go(turn, incident, Phase.UNDOING)
        return "undo"
    return settle(turn, incident)


def settle(turn: Turn, incident: Incident) -> str:
    """Nothing of the rung is in force any more: on."""
    _close_open(turn, incident)
    incident.acts = []
    incident.n, incident.targets = 0, ()
    if incident.after_undo == "fail":
        return _fail(turn, incident)
    back = incident.back
    if back:
        back.wait_us = min(2 * back.wait_us, turn.params.release_wait_us_max)
        back.quiet_since_us = 0
        incident.attempt += 1
        _orphan(turn, incident)
        incident.firing, incident.symptoms = [], {}
        if incident.phase is not Phase.LOGGED:
            go(turn, incident, Phase.LOGGED)
        write(turn, incident, "memory", f"SAFE_MODE stays; next try after {back.wait_us / 1e6:.0f} s of healthy probes")
        return END
    if incident.after_undo == "escalate":
        return escalate(turn, incident, incident.tried[-1] if incident.tried else "")
    incident.rung += 1
    incident.attempt = 1
    if incident.phase is not Phase.LOGGED:
        go(turn, incident, Phase.LOGGED)
    return "plan"


def escalate(turn: Turn, incident: Incident, why: str) -> str:
    """Nothing more that healing may do: a person has to close it."""
    if incident.phase is Phase.ESCALATED:
        return END
    if incident.phase not in (Phase.LOGGED, Phase.UNDOING):
        go(turn, incident, Phase.LOGGED)
    go(turn, incident, Phase.ESCALATED)
    turn.state.count("escalated")
    write(turn, incident, "planning", f"escalated to a person: {why}", data={"tried": list(incident.tried)})
    return END


def remember(turn: Turn, incident: Incident) -> str:
    """Keep what an ended incident teaches. A person's closing ends it first."""
    if incident.phase not in ENDED:
        follows = _close(turn, incident)
        if follows != "remember":
            return follows
    if incident.back:
        write(turn, incident, "memory", "the way back has ended: the model decides again")
        return END
    row = _memory(turn, incident)
    turn.state.count("resolved" if incident.phase is Phase.RESOLVED else "failed")
    turn.state.cases.append(
        Case(
            incident.incident_id, incident.kind, incident.cause, row.action_taken, row.outcome, row.mttr_seconds,
            incident.features,
        )
    )  # fmt: skip
    del turn.state.cases[: -turn.params.memories]
    write(turn, incident, "memory", row.incident_summary, memory=row)
    return END


def retire(turn: Turn, incident: Incident) -> None:
    """Out of the table; its symptoms get a time limit, and its hold of SAFE_MODE a way back."""
    state = turn.state
    del state.incidents[incident.key]
    for alert_id in incident.firing:
        done(turn, alert_id)
    _orphan(turn, incident)
    if incident.back:
        return
    state.ended.append(incident)
    del state.ended[:-_ENDED_MAX]
    if incident.incident_id in turn.config.safe_mode:
        back = way_back(turn, incident)
        state.incidents[back.key] = back


def done(turn: Turn, alert_id: str) -> None:
    """Let `alert_id` open nothing any more."""
    if alert_id not in turn.state.alerts_done:
        turn.state.alerts_done.append(alert_id)
        del turn.state.alerts_done[:-500]


def way_back(turn: Turn, incident: Incident) -> Incident:
    """The small follow-up that ends the hold of `incident`."""
    return Incident(
        incident_id=incident.incident_id,
        kind=incident.kind,
        subject=incident.subject,
        alert=incident.alert,
        detected_at_us=incident.detected_at_us,
        opened_at_us=turn.now,
        phase=Phase.LOGGED,
        since_us=turn.now,
        acted=True,
        cause=incident.cause,
        snapshot=incident.snapshot,
        rate=incident.rate,
        back=WayBack(
            status=Status.RESOLVED if incident.phase is Phase.RESOLVED else Status.FAILED,
            wait_us=turn.params.release_after_us,
            resolved_at_us=incident.resolved_at_us,
            outcome=incident.outcome,
        ),
    )


def _orphan(turn: Turn, incident: Incident) -> None:
    for alert_id, alert in incident.symptoms.items():
        turn.state.orphans[alert_id] = (turn.now + turn.params.orphan_us, alert)


def _close(turn: Turn, incident: Incident) -> str:
    closing = incident.closing
    if closing is None:
        return END
    found = well(incident, turn) if incident.phase in WAITING else None
    if found is not None and not incident.in_force:
        incident.outcome = "person"
        cure(turn, incident, f"closed by {closing.actor}: {closing.reason}; {found.text}", found.data)
        return "remember"
    if incident.phase is Phase.UNDOING:
        incident.after_undo = "fail"
        return END
    return leave_rung(turn, incident, "fail", f"closed by {closing.actor}")


def _fail(turn: Turn, incident: Incident) -> str:
    closing = incident.closing
    incident.outcome = "unresolved"
    go(turn, incident, Phase.FAILED)
    who = f"closed by {closing.actor} as unresolved: {closing.reason}" if closing else "ended without proof"
    write(turn, incident, "verification", who, actor=closing.actor if closing else "healing")
    return "remember"


def _close_open(turn: Turn, incident: Incident) -> None:
    """An action whose result is open gets one: what was not verified has not succeeded."""
    for act in incident.acts:
        if act.result is None:
            act.result = "FAIL"
            write(turn, incident, "verification", f"{act.action.kind} ended without proof", row=log.row(act))


def _memory(turn: Turn, incident: Incident) -> MemoryRow:
    kinds = "+".join(dict.fromkeys(act.action.kind.value for act in incident.acts if act.result == "SUCCESS"))
    end = incident.resolved_at_us
    mttr = None if end is None else (end - incident.detected_at_us) / 1e6
    tried = f" Tried before: {'; '.join(incident.tried)}." if incident.tried else ""
    time = "" if mttr is None else f" in {mttr:.1f} s"
    return MemoryRow(
        memory_id=f"mem-{incident.incident_id}",
        incident_id=incident.incident_id,
        incident_type=incident.kind,
        cause=incident.cause,
        incident_summary=f"{incident.kind} of {incident.subject} ({incident.cause}): {incident.outcome}{time}"
        f"{f' by {kinds}' if kinds else ''}.{tried}",
        action_taken=kinds,
        outcome=incident.outcome,
        metrics_before=incident.snapshot,
        metrics_after=memory.snapshot(turn.state),
        mttr_seconds=mttr,
        features=incident.features,
    )
