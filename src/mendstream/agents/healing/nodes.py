"""The nodes of the graph, one for each of the seven steps and one for undo. Pure, and never waiting.

A node looks at the incident and the turn, makes legal moves, writes steps and outputs, and names the node that follows;
END means that the incident waits for news.
"""

from __future__ import annotations

from mendstream.agents.healing import effects, log, memory, proposing
from mendstream.agents.healing.due import (
    Progress,
    blocked,
    closing_due,
    finding,
    lifted,
    present,
    progress,
    recovered,
    undo_progress,
    undoing,
)
from mendstream.agents.healing.ending import END, cure, escalate, leave_rung, settle
from mendstream.agents.healing.log import go, write
from mendstream.agents.healing.params import SECOND_US
from mendstream.agents.healing.playbooks import rung_of
from mendstream.agents.healing.playbooks.base import Found
from mendstream.agents.healing.served import observe, recent
from mendstream.agents.healing.state import Act, Incident
from mendstream.agents.healing.turn import Turn
from mendstream.contracts.incident import Phase
from mendstream.contracts.records import PANE_US, AlertKind, Outcome

_LABELS_US = 5 * SECOND_US


def entry(incident: Incident) -> str:
    """The node of the incident's phase."""
    if closing_due(incident):
        return "remember"
    if incident.act_done:
        return "plan"
    return {
        Phase.DETECTED: "detect",
        Phase.LOGGED: "plan",
        Phase.PLANNED: "approve",
        Phase.ASKED: "approve",
        Phase.APPROVED: "execute",
        Phase.EXECUTING: "execute",
        Phase.VERIFYING: "verify",
        Phase.UNDOING: "undo",
        Phase.ESCALATED: "plan",
        Phase.RESOLVED: "remember",
        Phase.FAILED: "remember",
    }[incident.phase]


def detect(turn: Turn, incident: Incident) -> str:
    alert = incident.alert
    write(
        turn, incident, "detection",
        f"{alert.kind} of {alert.subject}: {alert.statistic} {alert.value:.4g}, limit {alert.limit:.4g}, n {alert.n}",
        data={"alert_id": alert.alert_id, "detector": alert.detector, "evidence": dict(alert.evidence)},
    )  # fmt: skip
    return "log"


def log_incident(turn: Turn, incident: Incident) -> str:
    incident.cause = memory.cause_of(turn.state, incident, turn.params)
    go(turn, incident, Phase.LOGGED)
    write(
        turn, incident, "logging", f"incident opened; probable cause: {incident.cause}",
        data={"features": incident.features, "error_level": incident.error_level, "tasks": list(incident.tasks)},
    )  # fmt: skip
    return "remember" if incident.closing else "plan"


def plan(turn: Turn, incident: Incident) -> str:
    """Choose the first rung, from the present one on, that applies; propose its measure."""
    if _ended_by_itself(turn, incident):
        return "remember"
    while True:
        rung = rung_of(incident)
        if rung is None:
            return escalate(turn, incident, "no rung is left")
        if incident.n == 0 and not incident.targets:
            incident.targets = rung.targets(incident, turn)
        if blocked(incident, turn):
            return END
        measure = rung.measure(incident.n)
        draft = measure.propose(incident, turn)
        if isinstance(draft, str):
            write(turn, incident, "planning", f"{rung.name}: {measure.kind} does not apply: {draft}")
            if measure.optional:
                incident.n += 1
                continue
            if incident.acts:
                return leave_rung(turn, incident, "next", f"{measure.kind}: {draft}")
            proposing.next_rung(turn, incident, f"{measure.kind}: {draft}")
            continue
        if proposing.spent(turn):
            return leave_rung(turn, incident, "escalate", "the budget of actions for this hour is spent")
        proposing.propose(turn, incident, measure, draft)
        return END


def approve(turn: Turn, incident: Incident) -> str:
    """Read verdicts until one of them answers the proposal; else mind the time-out."""
    if _ended_by_itself(turn, incident):
        return "remember"
    follows = proposing.read_verdicts(turn, incident)
    if follows is not None or incident.phase not in (Phase.PLANNED, Phase.ASKED):
        return follows or END
    return proposing.mind_silence(turn, incident)


def execute(turn: Turn, incident: Incident) -> str:
    """Put the effect out once; then learn what became of it."""
    act = incident.act
    action = act.approved or act.action
    if incident.phase is Phase.APPROVED:
        go(turn, incident, Phase.EXECUTING)
        act.executed_at_us = turn.now
        turn.state.acted_at_us = [*proposing.acted(turn), turn.now]
        turn.state.count("actions")
        _before_image(turn, incident)
        _put_out(turn, incident, act)
        write(turn, incident, "execution", f"{proposing.told(action)} put out", row=log.row(act))
        return END
    told, text = progress(incident, turn)
    if told is Progress.WAIT:
        return END
    if told is Progress.AGAIN and act.change is not None:
        _put_out(turn, incident, act)
        write(turn, incident, "execution", f"{action.kind} put out again: another change came first",
              data={"tries": act.change.tries, "base": turn.base - 1})  # fmt: skip
        return END
    if told is Progress.FAILED:
        act.result = "FAIL"
        if act.change is not None and not act.change.version and act.change.stale:
            act.change.refused = text
        write(turn, incident, "execution", f"{action.kind} failed: {text}", row=log.row(act))
        return leave_rung(turn, incident, "next", f"{action.kind} failed")
    return _done(turn, incident, text)


def verify(turn: Turn, incident: Incident) -> str:
    """Ask the serving path whether the remedy has worked."""
    found, act = finding(incident, turn), incident.act
    match found.found:
        case Found.WAIT:
            return END
        case Found.PROVEN:
            return _proven(turn, incident, found.text, found.data)
        case Found.AGAIN:
            return _again(turn, incident, found.text)
        case _:
            act.result = "FAIL"
            word = "made it worse" if found.found is Found.WORSE else "did not help"
            write(turn, incident, "verification", f"{act.action.kind} {word}: {found.text}",
                  data=found.data, row=log.row(act))  # fmt: skip
            return leave_rung(turn, incident, "next", f"{act.action.kind} {word}")


def undo(turn: Turn, incident: Incident) -> str:
    """Take the rung's changes back, the newest first; each has to be visible everywhere before the next."""
    while (act := undoing(incident)) is not None:
        told = undo_progress(incident, turn)
        if told is Progress.WAIT:
            return END
        if told is Progress.FAILED:
            act.undone, act.undo_result = True, "FAIL"
            write(turn, incident, "verification", f"the undo of {act.action.kind} is not visible: a person is needed",
                  row=log.undo_row(act))  # fmt: skip
            if incident.after_undo == "next":
                incident.after_undo = "escalate"
            continue
        if told is Progress.DONE and act.undo_change is not None:
            act.undone, act.undo_result = True, "SUCCESS"
            incident.since_us = turn.now
            write(turn, incident, "verification", f"{act.action.kind} is undone in every task", row=log.undo_row(act))
            continue
        wanted = effects.undo_changes(act, turn.config) if act.change and act.change.version else None
        if wanted is None:
            act.undone = True
            write(turn, incident, "execution", f"{act.action.kind} needs no undo: what it set is not in force any more")
            continue
        effects.publish_undo(turn, incident, act, wanted)
        turn.state.count("undos")
        write(turn, incident, "execution", f"undo of {act.action.kind} put out", row=log.undo_row(act))
        return END
    return settle(turn, incident)


def _ended_by_itself(turn: Turn, incident: Incident) -> bool:
    if lifted(incident, turn):
        cure(turn, incident, "somebody else has lifted the hold", {})
        return True
    found = recovered(incident, turn)
    if found is None:
        return False
    cure(turn, incident, f"recovered: {found.text}", found.data)
    return True


def _before_image(turn: Turn, incident: Incident) -> None:
    """How bad it is now. Labels come slowly and need a longer look."""
    labelled = incident.kind in (AlertKind.PERF_DROP, AlertKind.DATA_DRIFT)
    incident.before = recent(turn.state.marks, _LABELS_US if labelled else 2 * PANE_US)
    incident.backlog = turn.state.vitals.backlog if turn.state.vitals else 0


def _put_out(turn: Turn, incident: Incident, act: Act) -> None:
    action = act.approved or act.action
    if action.kind in effects.COMMANDS:
        effects.publish_command(turn, incident, action)
    else:
        effects.publish_change(turn, incident, act, action)


def _done(turn: Turn, incident: Incident, text: str) -> str:
    act, measure = incident.act, present(incident)
    act.done_at_us = turn.now
    act.by_other = act.answer is not None and act.answer.outcome is Outcome.REFUSED
    if measure.check is None:
        if act.change is None:
            act.result = "SUCCESS"
        write(turn, incident, "execution", f"{act.action.kind} done: {text}", row=log.row(act),
              data=dict(act.answer.data) if act.answer else {})  # fmt: skip
        return _next_measure(turn, incident)
    if _more_targets(incident):
        write(turn, incident, "execution", f"{act.action.kind} of {act.action.target} done: {text}", row=log.row(act))
        return _next_measure(turn, incident)
    go(turn, incident, Phase.VERIFYING)
    incident.watch = measure.check.watch(incident, act, turn)
    if turn.state.vitals is not None:
        observe(incident.watch, turn.state.vitals, turn.params)
    write(turn, incident, "execution", f"{act.action.kind} done: {text}", row=log.row(act))
    return "verify"


def _proven(turn: Turn, incident: Incident, text: str, data: dict[str, object]) -> str:
    rung = rung_of(incident)
    if rung is None or incident.n + 1 >= rung.size(incident):
        cure(turn, incident, text, data)
        return "remember"
    act = incident.act
    act.result = "SUCCESS"
    write(turn, incident, "verification", f"{act.action.kind} verified: {text}", data=data, row=log.row(act))
    return _next_measure(turn, incident)


def _again(turn: Turn, incident: Incident, why: str) -> str:
    """What the measure brought about has ended: do it anew, as an action of its own, while the rung allows it."""
    act = incident.act
    act.result = "FAIL"
    write(turn, incident, "verification", f"{act.action.kind} did not last: {why}", row=log.row(act))
    if incident.attempt >= turn.params.restart_attempts:
        return leave_rung(turn, incident, "next", f"{act.action.kind} {incident.attempt} times in vain")
    incident.tried.append(f"{act.action.kind} did not last")
    incident.attempt += 1
    incident.watch = None
    go(turn, incident, Phase.LOGGED)
    return "plan"


def _next_measure(turn: Turn, incident: Incident) -> str:
    incident.watch = None
    incident.n += 1
    incident.act_done = True
    return "plan"


def _more_targets(incident: Incident) -> bool:
    return incident.n + 1 < len(incident.targets)
