"""The incident log as a verb needs it: where each incident stands, and the proposals that wait for a person."""

from __future__ import annotations

from dataclasses import dataclass

from mendstream.cli.work.bus import records
from mendstream.contracts.incident import Phase
from mendstream.contracts.ports import Bus
from mendstream.contracts.records import IncidentHead, IncidentStep, Proposal, Status, Verdict
from mendstream.contracts.topics import Stream, Topic


@dataclass(slots=True)
class Standing:
    """One incident after its newest step."""

    head: IncidentHead
    phase: str
    since_us: int
    """When it came into this phase."""
    text: str
    """What the newest step says."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A proposal that only a person can answer now."""

    proposal: Proposal
    asked: Verdict | None
    """The policy's own answer, ESCALATED; None if it never gave one."""
    expires_at_us: int


def standings(bus: Bus) -> dict[str, Standing]:
    """Incident id -> where it stands, oldest incident first."""
    found: dict[str, Standing] = {}
    for step in records(bus, Stream(Topic.INCIDENT_LOG, 0)):
        if isinstance(step, IncidentStep):
            held = found.get(step.incident.incident_id)
            since = held.since_us if held and held.phase == step.phase else step.at_us
            found[step.incident.incident_id] = Standing(step.incident, step.phase, since, step.text)
    return found


def is_open(head: IncidentHead) -> bool:
    return head.status in (Status.OPEN, Status.MITIGATING)


def proposals(bus: Bus) -> list[Proposal]:
    """Oldest first."""
    return [record for record in records(bus, Stream(Topic.POLICY_REQUESTS, 0)) if isinstance(record, Proposal)]


def verdicts(bus: Bus) -> dict[str, Verdict]:
    """Proposal id -> its newest verdict."""
    found = records(bus, Stream(Topic.POLICY_DECISIONS, 0))
    return {record.proposal_id: record for record in found if isinstance(record, Verdict)}


def asks(bus: Bus, timeout_s: int, now: int) -> list[Ask]:
    """What waits for a person at `now`: the newest proposal of each incident that healing has put to one."""
    asked = {name: held for name, held in standings(bus).items() if held.phase == Phase.ASKED.value}
    newest = {proposal.incident_id: proposal for proposal in proposals(bus)}
    answers = verdicts(bus)
    found = [
        Ask(newest[name], answers.get(newest[name].id), held.since_us + timeout_s * 1_000_000)
        for name, held in asked.items()
        if name in newest
    ]
    return [ask for ask in found if ask.expires_at_us > now and not _answered(ask)]


def _answered(ask: Ask) -> bool:
    """A person has spoken, and healing has not read it yet."""
    return ask.asked is not None and ask.asked.verdict.value != "ESCALATED"
