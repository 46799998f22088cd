"""Folding a batch into the state, before any move: config changes, vitals, alerts, answers, verdicts, closings."""

from __future__ import annotations

from mendstream.agents.healing import hiding, served
from mendstream.agents.healing.due import WAITING
from mendstream.agents.healing.ending import done
from mendstream.agents.healing.log import write
from mendstream.agents.healing.opening import open_incident
from mendstream.agents.healing.playbooks import playbook_of
from mendstream.agents.healing.proposing import ignore
from mendstream.agents.healing.state import Handshake, Incident, LiveVersion
from mendstream.agents.healing.turn import Turn
from mendstream.contracts import knobs
from mendstream.contracts.agent import Batch
from mendstream.contracts.incident import Phase
from mendstream.contracts.records import (
    Alert,
    AlertKind,
    AlertState,
    Closing,
    CommandResult,
    ConfigChange,
    Record,
    Verdict,
    Vitals,
)

_HISTORY = 100
_VERDICTS = 20
_UNDER_WAY = (Phase.EXECUTING, Phase.VERIFYING, Phase.UNDOING)


def fold(turn: Turn, batch: Batch) -> None:
    """One kind of record after the other: what was done, what was seen, what is wrong, what was answered."""
    order = (ConfigChange, Vitals, Alert, CommandResult, Verdict, Closing)
    by_kind: dict[type, list[Record]] = {kind: [] for kind in order}
    for record in batch.records:
        if type(record) in by_kind:
            by_kind[type(record)].append(record)
    for records in by_kind.values():
        for found in records:
            match found:
                case ConfigChange():
                    fold_change(turn, found)
                case Vitals():
                    fold_vitals(turn, found)
                case Alert():
                    fold_alert(turn, found)
                case CommandResult():
                    fold_result(turn, found)
                case Verdict():
                    fold_verdict(turn, found)
                case Closing():
                    fold_closing(turn, found)
    adopt_orphans(turn)
    for incident in turn.state.incidents.values():
        hiding.look(turn, incident)


def fold_change(turn: Turn, change: ConfigChange) -> None:
    """Whether a change was applied; what went live; what became of our own."""
    state = turn.state
    invalid = knobs.check(change.changes)
    applied = change.base_version >= state.config_version and not invalid
    if applied:
        state.config_version = change.version
        model = change.changes.get("model_version")
        if model and (not state.history or state.history[-1].model != model):
            digest = str(change.changes.get("model_digest", ""))
            state.history.append(LiveVersion(change.version, model, digest, change.at_us))
            del state.history[:-_HISTORY]
        if change.actor != "healing":
            state.changed_at_us = change.at_us
    shake = _handshake(turn, change.action_id)
    if shake is None or shake.version:
        return
    if applied:
        shake.version = change.version
    elif invalid:
        shake.refused = invalid
    else:
        shake.stale = True


def fold_vitals(turn: Turn, vitals: Vitals) -> None:
    """The newest pane: into baselines, and into every window that a proof rests on."""
    state = turn.state
    last = state.vitals
    if last is not None and vitals.pane <= last.pane:
        return
    before = served.per_task(last) if last else {}
    state.pane = {task: total - before[task] for task, total in served.per_task(vitals).items() if task in before}
    state.vitals = vitals
    served.mark(state.marks, vitals)
    calm = not any(incident.back is None for incident in state.incidents.values()) and not state.orphans
    served.learn(state.baseline, vitals, calm=calm)
    for incident in state.incidents.values():
        _watch_recovery(turn, incident)
        for watch in (incident.watch, incident.recovery):
            if watch is not None:
                served.observe(watch, vitals, turn.params)
        if incident.back:
            served.probe(incident.back, vitals, turn.config.model_version)


def fold_alert(turn: Turn, alert: Alert) -> None:
    """FIRING opens an incident unless one is open that owns or explains it. RESOLVED never starts anything."""
    if alert.state is AlertState.RESOLVED:
        _resolved(turn, alert)
        return
    state = turn.state
    if alert.alert_id in state.alerts_done or alert.alert_id in state.orphans:
        return
    owner = _owner(turn, alert)
    if owner is not None:
        _attach(turn, owner, alert)
        return
    host = _host(turn, alert)
    if host is not None:
        _symptom(turn, host, alert)
        return
    if _held_again(turn, alert):
        state.orphans[alert.alert_id] = (turn.now + turn.params.orphan_us, alert)
        return
    if _about_old_data(turn, alert):
        state.count("alerts_about_old_data")
        done(turn, alert.alert_id)
        return
    open_incident(turn, alert)


def fold_result(turn: Turn, result: CommandResult) -> None:
    for incident in turn.state.incidents.values():
        for act in incident.acts:
            if act.action.id == result.action_id and act.answer is None and act.executed_at_us is not None:
                act.answer = result


def fold_verdict(turn: Turn, verdict: Verdict) -> None:
    incident = _by_id(turn, verdict.incident_id)
    if incident is None:
        turn.state.count("verdicts_ignored")
    elif incident.phase in (Phase.PLANNED, Phase.ASKED) and len(incident.verdicts) < _VERDICTS:
        incident.verdicts.append(verdict)
    else:
        ignore(turn, incident, verdict, "nothing is asked")


def fold_closing(turn: Turn, closing: Closing) -> None:
    incident = turn.state.incidents.get(closing.incident_id)
    if incident is None:
        turn.state.count("closings_ignored")
    elif incident.closing is None:
        incident.closing = closing


def adopt_orphans(turn: Turn) -> None:
    """A symptom that outlives its cause was more than a symptom."""
    state = turn.state
    for alert_id, (due_us, alert) in list(state.orphans.items()):
        if turn.now >= due_us:
            del state.orphans[alert_id]
            fold_alert(turn, alert)


def _watch_recovery(turn: Turn, incident: Incident) -> None:
    """Look for recovery once the alerts are gone; on an escalated incident always, for the person who closes it."""
    playbook = playbook_of(incident)
    quiet = not incident.firing and not incident.in_force
    if playbook is None or incident.back or incident.phase not in WAITING:
        incident.recovery = None
    elif quiet or incident.phase is Phase.ESCALATED:
        incident.recovery = incident.recovery or playbook.recovers(incident, turn)
    else:
        incident.recovery = None


def _resolved(turn: Turn, alert: Alert) -> None:
    done(turn, alert.alert_id)
    turn.state.orphans.pop(alert.alert_id, None)
    for incident in (*turn.state.incidents.values(), *turn.state.ended):
        incident.symptoms.pop(alert.alert_id, None)
        if alert.alert_id in incident.firing:
            incident.firing.remove(alert.alert_id)
            if incident.key in turn.state.incidents:
                write(turn, incident, "logging", f"alert resolved: {alert.statistic} {alert.value:.4g}",
                      data={"alert_id": alert.alert_id})  # fmt: skip


def _owner(turn: Turn, alert: Alert) -> Incident | None:
    """The open incident of the same kind and subject, or the way back that this alert judges."""
    for incident in turn.state.incidents.values():
        if incident.back is None:
            if (incident.kind, incident.subject) == (alert.kind, alert.subject):
                return incident
        elif incident.phase in _UNDER_WAY and alert.kind in (incident.kind, AlertKind.LATENCY_SLO_BREACH):
            return incident
    return None


def _held_again(turn: Turn, alert: Alert) -> bool:
    """A way back failed a moment ago: events that were slow meanwhile are still being counted."""
    return alert.kind is AlertKind.LATENCY_SLO_BREACH and any(
        held.back is not None
        and held.phase is Phase.LOGGED
        and held.attempt > 1
        and turn.now - held.since_us < turn.params.symptom_us
        for held in turn.state.incidents.values()
    )


def _attach(turn: Turn, incident: Incident, alert: Alert) -> None:
    known = alert.alert_id in incident.firing
    if alert.at_us >= incident.alert.at_us and alert.kind == incident.kind:
        incident.alert = alert
    if not known:
        incident.firing.append(alert.alert_id)
    if incident.back:
        incident.symptoms[alert.alert_id] = alert
    incident.recovery = None if incident.phase is not Phase.ESCALATED else incident.recovery
    if not known and incident.phase is not Phase.DETECTED:
        write(turn, incident, "logging", f"another alert attached: {alert.statistic} {alert.value:.4g}",
              data={"alert_id": alert.alert_id})  # fmt: skip


def _host(turn: Turn, alert: Alert) -> Incident | None:
    """The incident whose cause explains `alert`."""
    # Once a person has been asked about the cause, what comes after it may be something new, and can be treated.
    open_ones = [held for held in turn.state.incidents.values() if held.phase is not Phase.ESCALATED]
    if alert.kind is AlertKind.LATENCY_SLO_BREACH:
        lately = [held for held in turn.state.ended if turn.now - held.since_us < turn.params.symptom_us]
        explaining, kind = [*open_ones, *lately], AlertKind.AGENT_DOWN
    elif alert.kind is AlertKind.PERF_DROP:
        explaining, kind = open_ones, AlertKind.DATA_DRIFT
    else:
        return None
    return next((held for held in explaining if held.kind == kind and held.back is None), None)


def _symptom(turn: Turn, host: Incident, alert: Alert) -> None:
    known = alert.alert_id in host.symptoms
    host.symptoms[alert.alert_id] = alert
    if host.key not in turn.state.incidents:
        turn.state.orphans[alert.alert_id] = (turn.now + turn.params.orphan_us, alert)
    if known or host.phase is Phase.DETECTED:
        return
    turn.state.count("symptoms")
    write(
        turn, host, "logging", f"{alert.kind} of {alert.subject} is a symptom of this",
        data={"alert_id": alert.alert_id, "value": alert.value, "limit": alert.limit},
    )  # fmt: skip


def _about_old_data(turn: Turn, alert: Alert) -> bool:
    """PERF_DROP of a version that was live and is not any more: late labels."""
    live = turn.config.model_version
    known = any(version.model == alert.subject for version in turn.state.history)
    return alert.kind is AlertKind.PERF_DROP and known and alert.subject != live


def _handshake(turn: Turn, action_id: str | None) -> Handshake | None:
    if action_id is None:
        return None
    for incident in turn.state.incidents.values():
        for act in incident.acts:
            if act.action.id == action_id:
                return act.change
            if act.undo is not None and act.undo.id == action_id:
                return act.undo_change
    return None


def _by_id(turn: Turn, incident_id: str) -> Incident | None:
    held = turn.state.incidents
    return held.get(incident_id) or held.get(f"{incident_id}#back")
