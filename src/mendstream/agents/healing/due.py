"""When a legal move is due: news that an open incident waited for, or a deadline. Reads only."""

from __future__ import annotations

from enum import StrEnum

from mendstream.agents.healing import served
from mendstream.agents.healing.hiding import ACTIVE, behind_hold, hidden, stood_still
from mendstream.agents.healing.params import SECOND_US
from mendstream.agents.healing.playbooks import playbook_of, rung_of
from mendstream.agents.healing.playbooks.base import Check, Finding, Found, Measure
from mendstream.agents.healing.state import Act, Handshake, Incident
from mendstream.agents.healing.turn import Turn
from mendstream.contracts.incident import Phase
from mendstream.contracts.records import ActionKind, AlertKind, Outcome, TaskState, VerdictKind, Vitals

WAITING = frozenset({Phase.LOGGED, Phase.PLANNED, Phase.ASKED, Phase.ESCALATED})
"""Phases in which it may recover by itself."""
ENDED = frozenset({Phase.RESOLVED, Phase.FAILED})
_YES = (VerdictKind.APPROVED, VerdictKind.MODIFIED)
_PATIENCE = 3
_PATIENCE_MAX_US = 300 * SECOND_US


class Progress(StrEnum):
    WAIT = "wait"
    DONE = "done"
    AGAIN = "again"  # somebody else's change won: publish once more
    FAILED = "failed"


def due(incident: Incident, turn: Turn) -> bool:
    """Whether the graph has something to do for `incident`."""
    if incident.phase in ENDED:
        return False
    if closing_due(incident):
        return True
    if lifted(incident, turn) or recovered(incident, turn):
        return True
    if incident.act_done:
        return not blocked(incident, turn)
    match incident.phase:
        case Phase.DETECTED | Phase.APPROVED:
            return True
        case Phase.LOGGED:
            return not blocked(incident, turn)
        case Phase.PLANNED | Phase.ASKED:
            return _answered(incident, turn) or silent(incident, turn)
        case Phase.EXECUTING:
            return progress(incident, turn)[0] is not Progress.WAIT
        case Phase.VERIFYING:
            return finding(incident, turn).found is not Found.WAIT
        case Phase.UNDOING:
            return undo_progress(incident, turn) is not Progress.WAIT
        case _:
            return False


def closing_due(incident: Incident) -> bool:
    """A person wants it ended, and that has not begun."""
    if incident.closing is None or incident.phase in ENDED or incident.phase is Phase.DETECTED:
        return False
    return not (incident.phase is Phase.UNDOING and incident.after_undo == "fail")


def blocked(incident: Incident, turn: Turn) -> str:
    """Why nothing can be proposed now; empty if something can, or if planning has to find out that nothing is left."""
    if incident.phase is Phase.LOGGED and turn.now < _calm_until(incident, turn):
        return "its alerts are resolved: it may have recovered"
    rung = rung_of(incident)
    if rung is None:
        return ""
    if turn.config.healing_paused:
        return "healing is paused"
    measure = rung.measure(incident.n)
    if not measure.ready(incident, turn) and not _waited(incident, measure, turn):
        return f"not ready for {measure.kind}"
    draft = measure.propose(incident, turn)
    if isinstance(draft, str):
        return ""
    wanted = _keys(incident, measure.kind, draft.target)
    for other in turn.state.incidents.values():
        if other.key != incident.key and other.phase in ACTIVE and wanted & held(other, turn):
            return f"{other.incident_id} acts on the same target"
    return ""


def held(incident: Incident, turn: Turn) -> frozenset[str]:
    """What `incident` has a hold on while it acts: nobody else may touch it."""
    return frozenset().union(*(_held(incident, act, turn) for act in incident.acts))


def silent(incident: Incident, turn: Turn) -> bool:
    """Nobody has answered the proposal for too long."""
    deadline = _answer_by(incident, turn)
    return deadline is not None and turn.now >= deadline


def progress(incident: Incident, turn: Turn) -> tuple[Progress, str]:
    """What became of the effect that was put out."""
    act = incident.act
    if act.change is not None:
        return _folded(act.change, turn)
    answer, measure = act.answer, present(incident)
    if answer is None:
        late = turn.now >= (act.executed_at_us or 0) + measure.answer_us
        return (Progress.FAILED, "no answer from its target") if late else (Progress.WAIT, "")
    if answer.outcome is Outcome.FAILED or (answer.outcome is Outcome.REFUSED and "stale" not in answer.detail):
        return Progress.FAILED, f"{answer.outcome}: {answer.detail}"
    if measure.check is None and answer.outcome is not Outcome.DONE:
        return Progress.FAILED, f"{answer.outcome}: {answer.detail}"
    # Refused as stale or unknown: it may have been done, and the proof will tell.
    return Progress.DONE, answer.detail


def finding(incident: Incident, turn: Turn) -> Finding:
    """What the serving path says about the remedy."""
    check, watch, act = present(incident).check, incident.watch, incident.act
    if check is None or watch is None:
        return Finding(Found.WAIT, "nothing to prove", {})
    again = check.again(incident, act, turn)
    if again:
        return Finding(Found.AGAIN, again, {})
    passed, stood = turn.now - act.done_at_us, stood_still(watch, turn)
    guarded = passed >= check.settle_us and not hidden(incident, turn)
    worse = check.worse(incident, watch, turn) if guarded else ""
    if worse:
        return Finding(Found.WORSE, worse, {})
    found = check.proof(incident, watch, turn)
    patience = _patience(incident, check, turn)
    if found.found is Found.WAIT and passed - stood >= patience:
        text = f"not proven in {patience / SECOND_US:.1f} s: {found.text}"
        if stood:
            text += f"; {stood / SECOND_US:.1f} s more it was hidden"
        return Finding(Found.INEFFECTIVE, text, found.data)
    return found


def undoing(incident: Incident) -> Act | None:
    """The newest change of the rung that is still in force."""
    return next((act for act in reversed(incident.acts) if act.in_force), None)


def undo_progress(incident: Incident, turn: Turn) -> Progress:
    """DONE: the next undo can start, or the present one is visible everywhere."""
    act = undoing(incident)
    if act is None or act.change is None:
        return Progress.DONE
    late = turn.now >= incident.since_us + turn.params.undo_timeout_us
    if act.undo_change is None:
        known = bool(act.change.version) or act.change.stale
        return Progress.DONE if known else Progress.FAILED if late else Progress.WAIT
    told, _ = _folded(act.undo_change, turn)
    if told is Progress.DONE:
        return Progress.DONE if _everywhere(act.undo_change, turn.state.vitals) else _late(late)
    return told if told is Progress.AGAIN else _late(late or told is Progress.FAILED)


def recovered(incident: Incident, turn: Turn) -> Finding | None:
    """The proof that the house serves well again although nothing was done, or None."""
    if incident.phase not in WAITING or incident.firing or incident.in_force:
        return None
    return well(incident, turn)


def well(incident: Incident, turn: Turn) -> Finding | None:
    """The proof that the house serves well by itself, or None."""
    playbook = playbook_of(incident)
    if playbook is None or incident.recovery is None or incident.back:
        return None
    found = playbook.well(incident, incident.recovery, turn)
    return found if found.found is Found.PROVEN else None


def lifted(incident: Incident, turn: Turn) -> bool:
    """A way back whose hold somebody else has lifted."""
    return incident.back is not None and incident.phase in WAITING and incident.incident_id not in turn.config.safe_mode


def present(incident: Incident) -> Measure:
    """The measure that the present action belongs to."""
    rung = rung_of(incident)
    if rung is None:
        raise LookupError(f"{incident.incident_id} has no rung {incident.rung}")
    return rung.measure(incident.n)


def deadline(incident: Incident, turn: Turn) -> int | None:
    """When `incident` has to be looked at although nothing has arrived."""
    if incident.phase is Phase.LOGGED and turn.now < _calm_until(incident, turn):
        return _calm_until(incident, turn)
    if incident.act_done or incident.phase is Phase.LOGGED:
        rung = rung_of(incident)
        measure = rung.measure(incident.n) if rung else None
        return _wait_until(incident, measure) if measure and measure.wait_us else None
    match incident.phase:
        case Phase.PLANNED | Phase.ASKED:
            return _answer_by(incident, turn)
        case Phase.EXECUTING if incident.act.change:
            return incident.act.change.at_us + turn.params.config_timeout_us
        case Phase.EXECUTING:
            return (incident.act.executed_at_us or 0) + present(incident).answer_us
        case Phase.VERIFYING:
            check, watch, done = present(incident).check, incident.watch, incident.act.done_at_us
            if check is None or watch is None:
                return None
            settled = done + check.settle_us
            stands = turn.params.hidden_us_max if watch.hidden_since_us else stood_still(watch, turn)
            return settled if settled > turn.now else done + _patience(incident, check, turn) + stands
        case Phase.UNDOING:
            return incident.since_us + turn.params.undo_timeout_us
        case _:
            return None


def _calm_until(incident: Incident, turn: Turn) -> int:
    """No rung is begun before this while no alert fires; 0 if one does."""
    return 0 if incident.firing or incident.back else incident.since_us + turn.params.calm_us


def _answered(incident: Incident, turn: Turn) -> bool:
    """A verdict is there; a yes waits while healing is paused."""
    if not incident.verdicts:
        return False
    return not (turn.config.healing_paused and incident.verdicts[0].verdict in _YES)


def _answer_by(incident: Incident, turn: Turn) -> int | None:
    act, params = incident.act, turn.params
    if incident.phase is Phase.ASKED:
        return incident.since_us + params.ask_timeout_us
    if turn.config.healing_paused:
        return None
    if not act.proposals:
        return act.proposed_at_us
    if len(act.proposals) == 1:
        return act.proposed_at_us + params.proposal_repeat_us
    return act.proposed_at_us + params.proposal_timeout_us - params.proposal_repeat_us


def _folded(shake: Handshake, turn: Turn) -> tuple[Progress, str]:
    if shake.version:
        return Progress.DONE, f"config version {shake.version}"
    if shake.refused:
        return Progress.FAILED, shake.refused
    if shake.stale:
        tries = turn.params.config_tries
        return (
            (Progress.AGAIN, "") if shake.tries < tries else (Progress.FAILED, f"lost {tries} times to other changes")
        )
    late = turn.now >= shake.at_us + turn.params.config_timeout_us
    return (Progress.FAILED, "the change was never folded") if late else (Progress.WAIT, "")


def _everywhere(shake: Handshake, vitals: Vitals | None) -> bool:
    """Every task that is well has the config of `shake`."""
    if vitals is None or not served.owners(vitals):
        return False
    return all(task.config >= shake.version for task in vitals.tasks if task.state is TaskState.OK)


def _late(late: bool) -> Progress:
    return Progress.FAILED if late else Progress.WAIT


def _patience(incident: Incident, check: Check, turn: Turn) -> int:
    """The check's time-out; longer where so few events come that it could not be met."""
    if incident.rate <= 0:
        return check.timeout_us
    needed = int(_PATIENCE * turn.params.proof_events / incident.rate * SECOND_US)
    return max(check.timeout_us, min(needed, _PATIENCE_MAX_US))


def _waited(incident: Incident, measure: Measure, turn: Turn) -> bool:
    return bool(measure.wait_us) and turn.now >= _wait_until(incident, measure)


def _wait_until(incident: Incident, measure: Measure) -> int:
    done = max((act.done_at_us for act in incident.acts), default=0)
    return max(incident.since_us, done) + measure.wait_us


def _keys(incident: Incident, kind: ActionKind, target: str) -> frozenset[str]:
    match kind:
        case ActionKind.RESTART:
            # A dead process is restarted whatever else goes on: no other remedy could be proven without it.
            also = {"model", "mode"} if incident.kind == AlertKind.LATENCY_SLO_BREACH else set()
            return frozenset({f"process {target}"} | also)
        case ActionKind.SHADOW:
            return frozenset({"shadow"})
        case ActionKind.SAFE_MODE_OFF:
            return frozenset({"mode"})
        case ActionKind.SAFE_MODE_ON | ActionKind.ROLLBACK | ActionKind.PROMOTE:
            return frozenset({"model", "mode"})
        case _:
            return frozenset({target})


def _held(incident: Incident, act: Act, turn: Turn) -> frozenset[str]:
    """Of one act: what it wants, less what it leaves to others once it is done."""
    kind = act.action.kind
    keys = _keys(incident, kind, act.action.target)
    if kind is ActionKind.RESTART and act.done_at_us and incident.kind != AlertKind.AGENT_DOWN:
        return keys - {f"process {act.action.target}"}  # if the new process dies, that is an incident of its own
    proving = incident.phase in (Phase.VERIFYING, Phase.UNDOING)
    if proving and kind in (ActionKind.ROLLBACK, ActionKind.PROMOTE) and behind_hold(incident, turn):
        return keys - {"mode"}  # its proof waits for the live arm: whoever holds SAFE_MODE has to be able to let go
    return keys
