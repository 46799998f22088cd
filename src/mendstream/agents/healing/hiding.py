"""What another incident hides from a proof: an arm that does not serve while SAFE_MODE is held, a process that is down.

A proof may still be found meanwhile; but its time-out stands still and its guard does not look, up to a bound.
"""

from __future__ import annotations

from mendstream.agents.healing import served
from mendstream.agents.healing.log import write
from mendstream.agents.healing.state import Incident, Watch
from mendstream.agents.healing.turn import Turn
from mendstream.contracts.incident import Phase
from mendstream.contracts.records import AlertKind

ACTIVE = frozenset({Phase.PLANNED, Phase.ASKED, Phase.APPROVED, Phase.EXECUTING, Phase.VERIFYING, Phase.UNDOING})
"""Phases in which an incident holds its targets."""


def hidden(incident: Incident, turn: Turn) -> str:
    """Why what is served now says nothing about the remedy that is being proven, or an empty string."""
    if incident.phase is not Phase.VERIFYING or incident.watch is None:
        return ""
    behind = "" if "fallback" in incident.watch.arms else behind_hold(incident, turn)
    return behind or _behind_death(incident, turn)


def behind_hold(incident: Incident, turn: Turn) -> str:
    """Whose hold of SAFE_MODE is in force, or on its way out: until that is proven, one thing at a time."""
    if turn.config.safe_mode:
        return f"SAFE_MODE is held by {', '.join(turn.config.safe_mode)}"
    for other in turn.state.incidents.values():
        if other.back and other.key != incident.key and other.phase in ACTIVE:
            return f"the way out of SAFE_MODE of {other.incident_id} is being proven"
    return ""


def look(turn: Turn, incident: Incident) -> None:
    """Stop the clock of a proof that is hidden; let it go on, on a window that begins anew, when it no longer is."""
    watch = incident.watch
    if watch is None:
        return
    why = hidden(incident, turn)
    if why and not watch.hidden_since_us:
        watch.hidden_since_us = turn.now
        turn.state.count("proofs_hidden")
        write(turn, incident, "verification", f"the proof of {incident.act.action.kind} waits: {why}")
    elif watch.hidden_since_us and not why:
        watch.hidden_us += turn.now - watch.hidden_since_us
        watch.hidden_since_us = 0
        if turn.state.vitals is not None:
            served.reopen(watch, turn.state.vitals)
        write(turn, incident, "verification", f"{incident.act.action.kind} can be proven again")


def stood_still(watch: Watch, turn: Turn) -> int:
    """For how long the clock of its time-out has stood still."""
    now = turn.now - watch.hidden_since_us if watch.hidden_since_us else 0
    return min(watch.hidden_us + now, turn.params.hidden_us_max)


def _behind_death(incident: Incident, turn: Turn) -> str:
    """Which dead process another incident is bringing back, or has just brought back: what waited for it is late."""
    if incident.kind == AlertKind.AGENT_DOWN:  # deaths do not wait for one another: each has its own tasks to show
        return ""
    for other in turn.state.incidents.values():
        if _death(other) and other.phase in ACTIVE:
            return f"{other.subject} is dead: {other.incident_id}"
    for other in turn.state.ended:
        if _death(other) and turn.now - other.since_us < turn.params.symptom_us:
            return f"{other.subject} was dead: {other.incident_id}"
    return ""


def _death(incident: Incident) -> bool:
    """Whether a process has ended. One that is only silent or slow may be so because of the remedy: evidence."""
    return incident.kind == AlertKind.AGENT_DOWN and incident.alert.evidence.get("reason") == "exit"
