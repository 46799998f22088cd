"""A request id in, a person's verdict on policy-decisions out; or the list of what waits."""

from __future__ import annotations

import click

from mendstream.cli.show import document, note, table, when
from mendstream.cli.work.bus import opened, person, person_id, publish
from mendstream.cli.work.incident_log import Ask, asks, proposals, verdicts
from mendstream.contracts.errors import UsageError
from mendstream.contracts.ports import Bus
from mendstream.contracts.records import Proposal, Verdict, VerdictKind, encode
from mendstream.contracts.topics import Stream, Topic
from mendstream.settings import Settings

GOOD_FOR_US = 300 * 1_000_000
"""How long a person's answer may be acted on: what it rests on is seen now, not tomorrow."""


def answer(settings: Settings, request: str | None, word: str, reason: str, *, as_json: bool) -> int:
    """`word`: APPROVED or DENIED."""
    with opened(settings, readonly=request is None) as bus:
        now = bus.now_us()
        waiting = asks(bus, settings.healing.person_timeout_s, now)
        if request is None:
            _list(waiting, as_json)
            return 0
        mine = [ask for ask in waiting if _is(ask.proposal, request)]
        if not mine:
            return _not_waiting(bus, request, as_json)
        verdict = _verdict(bus, mine[0], VerdictKind(word), reason, now)
        publish(bus, Stream(Topic.POLICY_DECISIONS, 0), [verdict])
    if as_json:
        click.echo(encode(verdict))
    else:
        action = verdict.action
        click.echo(f"{word.lower()}: {action.kind} on {action.target}, incident {verdict.incident_id}")
    return 0


def _is(proposal: Proposal, request: str) -> bool:
    return request in (proposal.id, proposal.action.id, proposal.incident_id)


def _verdict(bus: Bus, ask: Ask, word: VerdictKind, reason: str, now: int) -> Verdict:
    """Binds to the plan that was asked about: as the policy has modified it, or as it was proposed."""
    asked, proposal = ask.asked, ask.proposal
    return Verdict(
        id=person_id(bus), proposal_id=proposal.id, incident_id=proposal.incident_id, action_id=proposal.action.id,
        verdict=word, action=asked.action if asked else proposal.action,
        plan_hash=asked.plan_hash if asked else proposal.plan_hash, policies=asked.policies if asked else (),
        reason=reason, facts=asked.facts if asked else {}, actor=person(), at_us=now, expires_at_us=now + GOOD_FOR_US,
    )  # fmt: skip


def _list(waiting: list[Ask], as_json: bool) -> None:
    if as_json:
        document([{"proposal": a.proposal, "asked": a.asked, "expires_at_us": a.expires_at_us} for a in waiting])
        return
    table(
        ("request", "incident", "action", "target", "impact", "why asked", "expires"),
        (
            (ask.proposal.id, ask.proposal.incident_id, ask.proposal.action.kind, ask.proposal.action.target,
             ask.proposal.impact, ask.asked.reason if ask.asked else "the policy is silent", when(ask.expires_at_us))
            for ask in waiting
        ),
        empty="nothing waits for a person",
    )  # fmt: skip


def _not_waiting(bus: Bus, request: str, as_json: bool) -> int:
    """Say why there is nothing to answer: a verdict, exit code 1. A request that nobody knows is a usage error."""
    known = [proposal for proposal in proposals(bus) if _is(proposal, request)]
    if not known:
        raise UsageError(f"no request {request}", hint="`mendstream approve` without a request lists what waits")
    why = _why_not(verdicts(bus).get(known[-1].id))
    if as_json:
        document({"request": request, "answered": False, "why": why})
    else:
        note(f"{request} does not wait for a person: {why}")
    return 1


def _why_not(verdict: Verdict | None) -> str:
    if verdict is None:
        return "the policy has not answered it yet"
    if verdict.verdict is VerdictKind.ESCALATED:
        return "it has expired, or its incident has gone on"
    return f"it was {verdict.verdict} by {verdict.actor}: {verdict.reason}"
