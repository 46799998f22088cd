"""A FIRING alert that nothing explains in; a new incident with what the house looked like before it out."""

from __future__ import annotations

import hashlib

from mendstream.agents.healing import memory, served
from mendstream.agents.healing.playbooks.accuracy import bad_version, last_good
from mendstream.agents.healing.playbooks.agent_down import process_of
from mendstream.agents.healing.state import Incident
from mendstream.agents.healing.turn import Turn
from mendstream.contracts.incident import Phase
from mendstream.contracts.records import Alert, AlertKind


def open_incident(turn: Turn, alert: Alert) -> Incident:
    """A new row of the table, with what the house looked like before."""
    state, vitals = turn.state, turn.state.vitals
    incident = Incident(
        incident_id="inc-" + hashlib.sha256(alert.alert_id.encode()).hexdigest()[:10],
        kind=alert.kind.value,
        subject=alert.subject,
        alert=alert,
        detected_at_us=alert.at_us,
        opened_at_us=turn.now,
        phase=Phase.DETECTED,
        since_us=turn.now,
        firing=[alert.alert_id],
        snapshot=memory.snapshot(state) | {"statistic": alert.statistic, "value": alert.value, "limit": alert.limit},
        features=memory.signature(state, alert, turn.now),
    )
    if vitals is not None:
        incident.rate = vitals.rate
        if alert.kind is AlertKind.AGENT_DOWN:
            process = process_of(incident)
            incident.tasks = tuple(task.task for task in vitals.tasks if task.process == process)
    _take_error_level(turn, incident)
    state.incidents[incident.key] = incident
    state.count("incidents")
    return incident


def _take_error_level(turn: Turn, incident: Incident) -> None:
    baseline, params = turn.state.baseline, turn.params
    bad, good = "", turn.config.model_version
    if incident.kind == AlertKind.PERF_DROP:
        bad, before = bad_version(incident, turn), last_good(incident, turn)
        good = before.model if before else good
    incident.error_level = served.error_level(baseline, good, bad, params.proof_labels // 2)
    if incident.kind in (AlertKind.PERF_DROP, AlertKind.DATA_DRIFT):
        baseline.fresh = []
