"""Literal records for the policy tests, and a small house that feeds them to the agent step by step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from mendstream.agents.policy import PolicyAgent, PolicySettings, PolicyState, load_policies
from mendstream.agents.policy.policies import shipped
from mendstream.contracts import knobs
from mendstream.contracts.agent import Batch
from mendstream.contracts.hashes import plan_hash
from mendstream.contracts.knobs import LiveConfig
from mendstream.contracts.records import (
    Action,
    ActionKind,
    ActionRow,
    Alert,
    AlertKind,
    AlertState,
    CommandResult,
    ConfigChange,
    IncidentHead,
    IncidentStep,
    Outcome,
    Proposal,
    Record,
    Status,
    TaskState,
    TaskVital,
    Verdict,
    Vitals,
)

S = 1_000_000
MINUTE = 60 * S
T0 = 1_700_000_000 * S
POLICIES = load_policies(*shipped())


def action(kind: str, target: str = "model-0", id: str = "a1", **params: Any) -> Action:  # noqa: A002 - as the field is called
    return Action(id=id, kind=kind, target=target, params=params)  # type: ignore[arg-type]


def hold(kind: str, target: str = "model", id: str = "a1") -> Action:  # noqa: A002
    """SAFE_MODE in the name of incident i1."""
    return action(kind, target, id, holder="i1")


def proposal(what: Action, id: str = "p1", at: int = T0, **changed: Any) -> Proposal:  # noqa: A002
    values: dict[str, Any] = {
        "id": id, "incident_id": "i1", "incident_type": "LATENCY_SLO_BREACH", "action": what,
        "plan_hash": plan_hash(what), "rung": 0, "expected_effect": "better", "impact": "low", "cost": 1.0,
        "undo": None, "is_undo": False, "at_us": at, "expires_at_us": at + 10 * S,
    }  # fmt: skip
    return Proposal(**{**values, **changed})


def vitals(at: int = T0, **states: TaskState) -> Vitals:
    """One task a process; a process's `_` stands for `-`."""
    tasks = tuple(
        TaskVital(
            task=f"{name.partition('_')[0]}/0", process=name.replace("_", "-"), generation=1, pid=1, epoch=1, turns=1,
            backlog=0, config=0, pulse_age_ms=10, state=state,
        )
        for name, state in (states or {"model_0": TaskState.OK, "decision_0": TaskState.OK}).items()
    )  # fmt: skip
    return Vitals(
        pane=at // 250_000, at_us=at, n=100, rate=500.0, p50_ms=1.0, p95_ms=2.0, mode="NORMAL", model="v1", config=1,
        accuracy=None, labels=0, backlog=0, tasks=tasks,
    )  # fmt: skip


def result(action_id: str, at: int, outcome: Outcome = Outcome.DONE, **data: Any) -> CommandResult:
    return CommandResult(
        id=f"r-{action_id}", command_id=f"c-{action_id}", action_id=action_id, incident_id="i1", outcome=outcome,
        detail="", data=data, at_us=at,
    )  # fmt: skip


def alert(kind: AlertKind, subject: str, state: AlertState = AlertState.FIRING, **evidence: Any) -> Alert:
    return Alert(
        id=f"{kind}-{state}", alert_id=f"{kind}-{subject}", kind=kind, subject=subject, state=state, detector="d",
        statistic="s", value=1.0, limit=0.5, n=100, window_us=(T0, T0), at_us=T0, evidence=evidence,
    )  # fmt: skip


def step(
    what: Action | None = None, executed_at: int | None = None, status: Status = Status.OPEN, incident_id: str = "i1",
    is_undo: bool = False,
) -> IncidentStep:  # fmt: skip
    head = IncidentHead(
        incident_id=incident_id, type="AGENT_DOWN", subject="model-0", status=status, detected_at_us=T0,
        resolved_at_us=None, metrics_snapshot={},
    )  # fmt: skip
    row = what and ActionRow(
        action_id=what.id, rung=0, is_undo=is_undo, proposed_action=what, agl_decision="APPROVED", approved_action=what,
        executed_at_us=executed_at,
    )  # fmt: skip
    return IncidentStep(
        id="s",
        seq=0,
        incident=head,
        step="execution",
        phase="EXECUTING",
        text="",
        actor="healing",
        at_us=T0,
        action=row,
    )


@dataclass
class House:
    """The agent with its state, and the config as a driver folds it."""

    agent: PolicyAgent = field(default_factory=lambda: PolicyAgent(policies=POLICIES))
    state: PolicyState = field(default_factory=PolicyState)
    config: LiveConfig = field(default_factory=LiveConfig)
    turn: int = 0

    def feed(self, *records: Record, now: int = T0) -> list[Verdict]:
        for record in records:
            if isinstance(record, ConfigChange):
                self.config, _ = knobs.fold(self.config, record)
        self.turn += 1
        batch = Batch(turn=f"log/policy/0/{self.turn}", partition=0, config=self.config, records=records)
        self.state, outputs = self.agent.step(self.state, batch, now)
        return [msgspec.convert(record, Verdict) for record in outputs.records]

    def change(self, now: int = T0, *, incident: str | None = None, by: str | None = None, **knobs_set: Any) -> None:
        """An applied change of knobs."""
        self.feed(
            ConfigChange(
                id=f"c{self.config.version}", base_version=self.config.version, changes=knobs_set, actor="init",
                reason="", at_us=now, incident_id=incident, action_id=by,
            ),
            now=now,
        )  # fmt: skip

    def ask(self, what: Action, now: int = T0, id: str = "", **changed: Any) -> Verdict:  # noqa: A002
        """One proposal in, its verdict out."""
        (verdict,) = self.feed(proposal(what, id or f"p-{what.id}-{now}", now, **changed), now=now)
        return verdict


def calm(**settings: Any) -> House:
    """A house with vitals of two well processes and model v1 live."""
    house = House(agent=PolicyAgent(policies=POLICIES, settings=PolicySettings(**settings)))
    house.feed(vitals())
    house.change(model_version="v1", model_digest="d1")
    return house


RESTART, ROLLBACK, PROMOTE = ActionKind.RESTART, ActionKind.ROLLBACK, ActionKind.PROMOTE
SHADOW, RETRAIN, SET_THRESHOLD = ActionKind.SHADOW, ActionKind.RETRAIN, ActionKind.SET_THRESHOLD
SAFE_MODE_ON, SAFE_MODE_OFF = ActionKind.SAFE_MODE_ON, ActionKind.SAFE_MODE_OFF
