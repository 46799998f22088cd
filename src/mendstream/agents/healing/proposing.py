"""Proposals out, verdicts in: what is asked of the policy, and what counts as its answer."""

from __future__ import annotations

from mendstream.agents.healing import effects, log, memory
from mendstream.agents.healing.due import present, silent
from mendstream.agents.healing.ending import END, leave_rung
from mendstream.agents.healing.log import go, write
from mendstream.agents.healing.params import SECOND_US
from mendstream.agents.healing.playbooks import rung_of
from mendstream.agents.healing.playbooks.base import Draft, Measure
from mendstream.agents.healing.state import Act, Incident
from mendstream.agents.healing.turn import Turn
from mendstream.contracts.hashes import plan_hash
from mendstream.contracts.incident import Phase
from mendstream.contracts.records import Action, ActionKind, Proposal, Verdict, VerdictKind

POLICY = "policy"
"""Actor of the AGL's verdicts; any other is a person."""
_HOUR_US = 3600 * SECOND_US


def propose(turn: Turn, incident: Incident, measure: Measure, draft: Draft) -> None:
    """Make `draft` the present action and ask for it."""
    rung = 0 if incident.back else incident.rung
    action = Action(
        id=f"{incident.incident_id}.r{rung}.a{incident.attempt}.{incident.n + 1}",
        kind=measure.kind,
        target=draft.target,
        params=draft.params,
    )
    incident.acts.append(
        Act(
            action=action,
            rung=rung,
            plan_hash=plan_hash(action),
            undo=effects.undo_of(action, turn.config),
        )
    )
    incident.act_done = False
    go(turn, incident, Phase.PLANNED)
    ask(turn, incident, measure)
    found = [] if incident.back or incident.n else memory.similar(turn.state.cases, incident.kind, incident.features, 1)
    text = f"{told(action)} proposed: {measure.effect}"
    data: dict[str, object] = {"proposal_id": incident.act.proposals[-1], "plan_hash": incident.act.plan_hash}
    if found and found[0].case.incident_type == incident.kind:
        text += f" ({memory.told(found[0])})"
        case, distance = found[0]
        data["similar"] = {
            "incident_id": case.incident_id,
            "incident_type": case.incident_type,
            "cause": case.cause,
            "action_taken": case.action_taken,
            "outcome": case.outcome,
            "distance": round(min(distance, 1e9), 4),
        }
    write(turn, incident, "planning", text, data=data, row=log.row(incident.act))


def ask(turn: Turn, incident: Incident, measure: Measure) -> None:
    """Publish the proposal of the present action."""
    act = incident.act
    proposal = Proposal(
        id=turn.outputs.id(),
        incident_id=incident.incident_id,
        incident_type=incident.kind,
        action=act.action,
        plan_hash=act.plan_hash,
        rung=act.rung,
        expected_effect=measure.effect,
        impact=measure.impact,
        cost=measure.cost,
        undo=act.undo,
        is_undo=False,
        at_us=turn.now,
        expires_at_us=turn.now + turn.params.proposal_timeout_us,
    )
    act.proposals.append(proposal.id)
    act.proposed_at_us = turn.now
    turn.outputs.records.append(proposal)
    turn.state.count("proposals")


def read_verdicts(turn: Turn, incident: Incident) -> str | None:
    """The node that follows from the first verdict that counts; None if none does."""
    while incident.verdicts:
        verdict = incident.verdicts[0]
        yes = verdict.verdict in (VerdictKind.APPROVED, VerdictKind.MODIFIED)
        if yes and turn.config.healing_paused:
            return END
        del incident.verdicts[0]
        why = unusable(turn, incident, verdict)
        if why:
            ignore(turn, incident, verdict, why)
            continue
        return _obey(turn, incident, verdict)
    return None


def unusable(turn: Turn, incident: Incident, verdict: Verdict) -> str:
    """Why `verdict` does not answer the present proposal, or an empty string."""
    if incident.phase not in (Phase.PLANNED, Phase.ASKED):
        return "nothing is asked"
    act, kind = incident.act, verdict.verdict
    if verdict.proposal_id not in act.proposals or verdict.action_id != act.action.id:
        return "it answers another proposal"
    if incident.phase is Phase.ASKED and verdict.actor == POLICY and kind is not VerdictKind.EXPIRED:
        return "a person is asked, not the policy"
    if kind in (VerdictKind.DENIED, VerdictKind.EXPIRED, VerdictKind.ESCALATED):
        return ""
    if incident.phase is Phase.PLANNED and verdict.actor != POLICY:
        return "the policy is asked first"
    if verdict.expires_at_us <= turn.now:
        return "it has expired"
    action = verdict.action
    if kind is VerdictKind.APPROVED and verdict.plan_hash not in (act.plan_hash, act.asked_hash):
        return "it is for another plan"
    if verdict.plan_hash != plan_hash(action):
        return "its hash is not that of its action"
    if (action.id, action.kind, action.target) != (act.action.id, act.action.kind, act.action.target):
        return "it changes what is done, or to whom"
    return effects.unfit(action, turn.config)


def ignore(turn: Turn, incident: Incident, verdict: Verdict, why: str) -> None:
    """Note a verdict that does not count."""
    turn.state.count("verdicts_ignored")
    write(
        turn, incident, "approval", f"verdict {verdict.verdict} ignored: {why}",
        data={"verdict_id": verdict.id, "proposal_id": verdict.proposal_id}, actor=verdict.actor,
    )  # fmt: skip


def mind_silence(turn: Turn, incident: Incident) -> str:
    """Ask once more, then ask a person; a person's silence counts as no."""
    if not silent(incident, turn):
        return END
    act = incident.act
    if incident.phase is Phase.ASKED:
        act.verdict, act.result, act.reason = "EXPIRED", "FAIL", "nobody answered in time"
        write(turn, incident, "approval", f"{act.action.kind}: nobody answered in time", row=log.row(act))
        return leave_rung(turn, incident, "next", f"{act.action.kind} expired")
    if len(act.proposals) < 2:
        ask(turn, incident, present(incident))
        write(turn, incident, "approval", f"{act.action.kind} proposed once more: no verdict yet",
              data={"proposal_id": act.proposals[-1]})  # fmt: skip
        return END
    act.verdict, act.result, act.reason = "EXPIRED", "FAIL", "the policy did not answer"
    write(turn, incident, "approval", f"{act.action.kind}: the policy does not answer", row=log.row(act))
    return leave_rung(turn, incident, "escalate", "the policy does not answer")


def next_rung(turn: Turn, incident: Incident, why: str) -> None:
    """On to the next rung of the ladder."""
    incident.tried.append(why)
    incident.rung += 1
    incident.attempt, incident.n, incident.targets = 1, 0, ()


def spent(turn: Turn) -> bool:
    """Whether this hour's budget of actions is used up."""
    return len(acted(turn)) >= turn.params.actions_per_hour


def acted(turn: Turn) -> list[int]:
    """When actions were put out within the last hour."""
    return [at for at in turn.state.acted_at_us if at > turn.now - _HOUR_US]


def told(action: Action) -> str:
    """An action in a few words."""
    params = action.params
    match action.kind:
        case ActionKind.SAFE_MODE_ON:
            return "safe_mode=1"
        case ActionKind.SAFE_MODE_OFF:
            return "safe_mode=0"
        case ActionKind.SET_THRESHOLD:
            return f"decision_threshold={params.get('value')}"
        case ActionKind.ROLLBACK | ActionKind.PROMOTE:
            return f"{action.kind.lower()} to {params.get('version')}"
        case ActionKind.SHADOW:
            return f"shadow run of {params.get('version')}"
        case ActionKind.RESTART:
            return f"restart of {action.target} (generation {params.get('generation')})"
        case ActionKind.RETRAIN:
            return "retraining on data since the onset"


def _obey(turn: Turn, incident: Incident, verdict: Verdict) -> str:
    act, kind = incident.act, verdict.verdict
    if kind in (VerdictKind.DENIED, VerdictKind.EXPIRED) and turn.config.healing_paused:
        act.proposals, act.proposed_at_us = [], turn.now
        ignore(turn, incident, verdict, "healing is paused; asked again once that is lifted")
        return END
    act.verdict, act.verdict_id = kind.value, verdict.id
    act.policies, act.reason, act.decided_by = verdict.policies, verdict.reason, verdict.actor
    text = f"{act.action.kind} {kind} by {verdict.actor}: {verdict.reason}"
    match kind:
        case VerdictKind.APPROVED | VerdictKind.MODIFIED:
            act.approved = verdict.action
            go(turn, incident, Phase.APPROVED)
            follows = "execute"
        case VerdictKind.ESCALATED:
            if incident.phase is Phase.PLANNED:
                go(turn, incident, Phase.ASKED)
                act.asked_hash = verdict.plan_hash
            follows = END
        case _:
            act.result = "FAIL"
            follows = ""
    write(turn, incident, "approval", text, row=log.row(act), actor=verdict.actor,
          data={"verdict_id": verdict.id, "facts": dict(verdict.facts)})  # fmt: skip
    return follows or _refused(turn, incident)


def _refused(turn: Turn, incident: Incident) -> str:
    """A no: the next rung."""
    kind, rung = incident.act.action.kind, rung_of(incident)
    if rung is not None and rung.measure(incident.n).optional:
        incident.n += 1
        go(turn, incident, Phase.LOGGED)
        return "plan"
    return leave_rung(turn, incident, "next", f"{kind} refused")
