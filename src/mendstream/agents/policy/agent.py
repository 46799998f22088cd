"""Proposals in, verdicts out, one for each: judged by Cedar policies on facts that this agent has gathered itself."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from mendstream.agents.policy.engine import Facts, Policies, Ruling, rule
from mendstream.agents.policy.facts import THRESHOLD_PARAM, facts_of, flat
from mendstream.agents.policy.settings import PolicySettings
from mendstream.agents.policy.state import PolicyState, fold, forget, remember
from mendstream.contracts.agent import Batch, Outputs
from mendstream.contracts.hashes import plan_hash
from mendstream.contracts.knobs import LiveConfig
from mendstream.contracts.records import Action, Proposal, Verdict, VerdictKind
from mendstream.contracts.topics import Topic

ACTOR = "policy"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyAgent:
    """The AGL: nothing that healing proposes is done without its verdict."""

    policies: Policies
    settings: PolicySettings = field(default_factory=PolicySettings)
    name: str = "policy"
    # Requests stand first: what is read after them is at least as new as they are.
    reads: tuple[Topic, ...] = (
        Topic.POLICY_REQUESTS,
        Topic.INCIDENT_LOG,
        Topic.COMMAND_RESULTS,
        Topic.ALERTS,
        Topic.VITALS,
        Topic.CONFIG_UPDATES,
    )
    state_type: type[PolicyState] = PolicyState

    def start(self, partition: int) -> PolicyState:
        return PolicyState()

    def step(self, state: PolicyState, batch: Batch, now: int) -> tuple[PolicyState, Outputs]:
        """All facts of the batch first, then its proposals, so that a proposal never outruns what it rests on."""
        outputs = Outputs(batch.turn)
        proposals: list[Proposal] = []
        for record in batch.records:
            if isinstance(record, Proposal):
                proposals.append(record)
            else:
                fold(state, record)
        forget(state, now)
        for proposal in proposals:
            outputs.records.append(self._answer(state, proposal, batch.config, outputs, now))
        return state, outputs

    def _answer(
        self, state: PolicyState, proposal: Proposal, config: LiveConfig, outputs: Outputs, now: int
    ) -> Verdict:
        held = state.verdicts.get(proposal.id)
        if held is not None and held.plan_hash == plan_hash(proposal.action):
            return held.verdict
        facts: Facts = {}
        ruling = _refusal(state, proposal, now)
        if ruling is None:
            facts = facts_of(proposal, state, config, self.settings, now)
            ruling = rule(self.policies, proposal.action.kind, proposal.action.target, facts)
        action = _modified(proposal.action, ruling)
        verdict = Verdict(
            id=outputs.id(),
            proposal_id=proposal.id,
            incident_id=proposal.incident_id,
            action_id=action.id,
            verdict=ruling.verdict,
            action=action,
            plan_hash=plan_hash(action),
            policies=ruling.policies,
            reason=ruling.reason,
            facts=flat(facts),
            actor=ACTOR,
            at_us=now,
            expires_at_us=now + int(self.settings.verdict_ttl_s * 1e6),
        )
        if held is None:
            remember(state, proposal, verdict, is_undo=bool(facts.get("plan", {}).get("is_undo")))
        return verdict


def _refusal(state: PolicyState, proposal: Proposal, now: int) -> Ruling | None:
    """What needs no policy: a proposal that is not what it says, or that comes too late."""
    action = proposal.action
    if proposal.plan_hash != plan_hash(action):
        return _denied("the plan hash is not that of the action")
    if proposal.id in state.verdicts:
        return _denied("the proposal's id was used before, for another plan")
    deed = state.deeds.get(action.id)
    if deed is not None and (deed.kind, deed.target) != (action.kind, action.target):
        return _denied(f"the action's id was used before, for {deed.kind} of {deed.target}")
    if proposal.expires_at_us <= now:
        return Ruling(verdict=VerdictKind.EXPIRED, policies=(), reason="the proposal had expired before it was judged")
    return None


def _denied(reason: str) -> Ruling:
    return Ruling(verdict=VerdictKind.DENIED, policies=(), reason=reason)


def _modified(action: Action, ruling: Ruling) -> Action:
    if ruling.threshold_bp is None:
        return action
    params = {**action.params, THRESHOLD_PARAM: ruling.threshold_bp / 10_000}
    return msgspec.structs.replace(action, params=params)
