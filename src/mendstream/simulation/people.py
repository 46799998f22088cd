"""The operators of a simulated house: they start it again, answer what waits for a person, and close what nobody heals.

How fast, and whether at all, a plan says. When the faults have stopped they are quick and there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from mendstream.contracts.errors import LogFull
from mendstream.contracts.incident import Phase
from mendstream.contracts.ports import Out
from mendstream.contracts.records import (
    AlertKind,
    Closing,
    ConfigChange,
    Proposal,
    Record,
    Verdict,
    VerdictKind,
    encode_block,
)
from mendstream.contracts.topics import CONFIG, Stream, Topic
from mendstream.simulation.log import Writer
from mendstream.simulation.machine import Machine
from mendstream.simulation.story import Story

DECISIONS = Stream(Topic.POLICY_DECISIONS, 0)
_LOOK_US = 500_000
_GOOD_FOR_US = 300_000_000


@dataclass
class Manners:
    answer_us: int = 1_500_000
    """How long a question waits for its answer."""
    yes: float = 0.8
    """Chance of an approval."""
    away: bool = False
    """Nobody answers, nobody closes; the house is started again all the same."""
    blind: bool = False
    """They answer what they were asked, whatever has become of it meanwhile."""
    closing: float = 0.0
    """Chance at each look that they have enough of an open incident, and close it."""
    restart_us: int = 2_000_000
    """How long a house that is down stays so."""
    rules_us: int = 20_000_000
    """How long they bear a bad model that nobody heals, or rules in its place, before they promote the first one."""


class People:
    def __init__(self, machine: Machine, story: Story, manners: Manners) -> None:
        self.manners = manners
        self._machine = machine
        self._me = Writer("people", 1, machine.clock.now_us)
        self._story = story
        self._answered: set[str] = set()
        self._asked_at: dict[str, int] = {}
        self._down_since: int | None = None
        self._rules_since: int | None = None
        self._count = 0

    def start(self) -> None:
        self._machine.kernel.after(_LOOK_US, self._look)

    def forget(self) -> None:
        """What they said may be gone from the log: they look at everything again."""
        self._answered.clear()
        self._asked_at.clear()

    def _look(self) -> None:
        self._machine.kernel.after(_LOOK_US, self._look)
        now = self._machine.kernel.now_us
        self._mind_the_house(now)
        if self.manners.away or not self._machine.up:
            return
        self._mind_the_rules(now)
        for case in self._story.cases.values():
            step = case.last  # of an incident that has ended, the way out of SAFE_MODE may ask too
            since = self._asked_at.setdefault(step.id, now)
            if case.open and self.manners.closing:
                self._have_enough(step.incident.incident_id)
            if step.phase == Phase.ASKED and self.manners.blind and since == now:
                self._machine.kernel.after(self.manners.answer_us, partial(self._answer, step.incident.incident_id))
                self._answered.add(step.id)
            if now - since < self.manners.answer_us or step.id in self._answered:
                continue
            if step.phase == Phase.ASKED:
                self._answered.add(step.id)
                self._answer(step.incident.incident_id)
            elif step.phase == Phase.ESCALATED:
                self._answered.add(step.id)
                self._close(step.incident.incident_id, "looked at it")

    def _have_enough(self, incident_id: str) -> None:
        if self._machine.dice.of("people who close").random() < self.manners.closing:
            self._close(incident_id, "it has gone on for long enough")

    def _close(self, incident_id: str, reason: str) -> None:
        self._publish(
            Closing(
                id=self._id(), incident_id=incident_id, actor="operator", reason=reason,
                at_us=self._machine.clock.now_us(),
            )
        )  # fmt: skip

    def _mind_the_house(self, now: int) -> None:
        if self._machine.up:
            self._down_since = None
            return
        if self._down_since is None:
            self._down_since = now
        elif now - self._down_since >= self.manners.restart_us:
            self._down_since = None
            self._machine.log.full = False  # whoever starts a house makes room first
            failure = self._machine.house_failure
            if failure is not None and "--rebuild" in failure.hint and not self._machine.store.away:
                self._machine.store.rebuild(self._machine.log)
            self._machine.start()

    def _mind_the_rules(self, now: int) -> None:
        """SAFE_MODE against a bad model ends when somebody makes a good one live, and so does an alert about it. From
        one against a slow model healing has to find the way back alone.
        """
        config = self._story.config
        kinds: list[str] = [held.kind for held in self._story.alerts.values()]
        kinds += [self._story.cases[name].last.incident.type for name in config.safe_mode if name in self._story.cases]
        bad = AlertKind.PERF_DROP in kinds
        if not bad or self._story.open_cases():
            self._rules_since = None
        elif self._rules_since is None:
            self._rules_since = now
        elif now - self._rules_since >= self.manners.rules_us and "v1" in self._machine.shelf.files:
            self._rules_since = None
            changes: dict[str, Any] = {
                "model_version": "v1", "model_digest": self._machine.card("v1").digest,
                "excluded_models": [name for name in config.excluded_models if name != "v1"],
            }  # fmt: skip
            if config.model_version == "v1":  # it was held off for data that are over: `incidents release`
                changes = {"safe_mode": []}
            self._publish(
                ConfigChange(
                    id=self._id(), base_version=config.version, changes=changes, actor="operator", forced=True,
                    reason="rules have decided for long enough", at_us=self._machine.clock.now_us(),
                ),
                CONFIG,
            )  # fmt: skip

    def _answer(self, incident_id: str) -> None:
        proposals = [p for p in self._story.proposals.values() if p.incident_id == incident_id and not p.is_undo]
        if not proposals:
            return
        proposal = proposals[-1]
        asked = next((v for v in reversed(self._story.verdicts) if v.proposal_id == proposal.id), None)
        yes = self._machine.dice.of("people").random() < self.manners.yes
        self._publish(self._verdict(proposal, asked, VerdictKind.APPROVED if yes else VerdictKind.DENIED))

    def _verdict(self, proposal: Proposal, asked: Verdict | None, kind: VerdictKind) -> Verdict:
        now = self._machine.clock.now_us()
        return Verdict(
            id=self._id(), proposal_id=proposal.id, incident_id=proposal.incident_id, action_id=proposal.action.id,
            verdict=kind, action=asked.action if asked else proposal.action,
            plan_hash=asked.plan_hash if asked else proposal.plan_hash, policies=asked.policies if asked else (),
            reason="a person said so", facts=asked.facts if asked else {}, actor="operator", at_us=now,
            expires_at_us=now + _GOOD_FOR_US,
        )  # fmt: skip

    def _publish(self, record: Record, stream: Stream = DECISIONS) -> None:
        try:
            self._machine.log.publish([Out(stream, encode_block([record]), 1)], self._me)
        except LogFull:
            return  # their command line says so; they try again at the next look

    def _id(self) -> str:
        self._count += 1
        return f"{self._machine.log.incarnation}/people/0/{self._count}"
