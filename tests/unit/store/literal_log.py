"""A log to read in tests: a bus in memory, and five literal incidents with the config changes that belong to them."""

from __future__ import annotations

import msgspec

from mendstream.contracts import records
from mendstream.contracts.hashes import step_hash
from mendstream.contracts.ports import Block
from mendstream.contracts.records import (
    Action,
    ActionKind,
    ActionRow,
    ConfigChange,
    Fault,
    IncidentHead,
    IncidentStep,
    MemoryRow,
    Status,
)
from mendstream.contracts.topics import Stream, Topic

INCIDENT_LOG = Stream(Topic.INCIDENT_LOG, 0)
CONFIG_UPDATES = Stream(Topic.CONFIG_UPDATES, 0)
NOON = 1_767_268_800_000_000
"""2026-01-01 12:00:00 UTC, in microseconds."""
SECOND = 1_000_000


class FakeBus:
    """One row a block, so that a batch is many blocks."""

    def __init__(self, incarnation="log-1"):
        self.incarnation = incarnation
        self.lines = {INCIDENT_LOG: [], CONFIG_UPDATES: []}

    def append(self, *found):
        for record in found:
            stream = Stream(records.TOPIC_OF[type(record)], 0)
            self.lines[stream].append(records.encode(record))

    def read(self, stream, position, *, max_rows, max_bytes):
        lines = self.lines[stream][position : position + max_rows]
        return [
            Block(stream=stream, position=position + i, rows=1, value=line + b"\n", at_us=NOON)
            for i, line in enumerate(lines)
        ]


def chained(steps, seq=0, prev_hash=""):
    """The steps with their numbers and hashes, as healing writes them."""
    done = []
    for step in steps:
        step = msgspec.structs.replace(step, seq=seq, prev_hash=prev_hash)
        step = msgspec.structs.replace(step, hash=step_hash(step))
        done.append(step)
        seq, prev_hash = seq + 1, step.hash
    return done


def head(incident_id, kind, status, at_s, ended_s=None, **more):
    return IncidentHead(
        incident_id=incident_id, type=kind, subject=more.pop("subject", "pipeline"), status=status,
        detected_at_us=NOON + int(at_s * SECOND),
        resolved_at_us=None if ended_s is None else NOON + int(ended_s * SECOND),
        metrics_snapshot=more.pop("metrics", {"p95_ms": 412.5, "n": 200}), **more,
    )  # fmt: skip


def step(incident, name, phase, at_s, **more):
    return IncidentStep(
        id=f"log-1/healing/0/{at_s}/1", seq=0, incident=incident, step=name, phase=phase,
        text=more.pop("text", f"{name} of {incident.incident_id}"), actor=more.pop("actor", "healing"),
        at_us=NOON + int(at_s * SECOND), **more,
    )  # fmt: skip


def action(action_id, kind, target, decision=None, **more):
    proposed = Action(id=action_id, kind=kind, target=target, params=more.pop("params", {}))
    return ActionRow(
        action_id=action_id, rung=more.pop("rung", 0), is_undo=more.pop("is_undo", False), proposed_action=proposed,
        agl_decision=decision, approved_action=more.pop("approved", None), **more,
    )  # fmt: skip


def memory(memory_id, incident_id, kind, cause, features, mttr=3.25, **more):
    return MemoryRow(
        memory_id=memory_id, incident_id=incident_id, incident_type=kind, cause=cause,
        incident_summary=more.pop("summary", f"{kind} caused by {cause}"),
        action_taken=more.pop("taken", "SAFE_MODE_ON"), outcome="mitigated",
        metrics_before={"p95_ms": 412.5}, metrics_after={"p95_ms": 96.0}, mttr_seconds=mttr, features=features,
    )  # fmt: skip


def slow_model():
    """Incident 1: the seven steps of a breach that safe mode ends, 3.25 s after its detection."""
    kind = "LATENCY_SLO_BREACH"
    opened = head("inc-1", kind, Status.OPEN, 1)
    acting = head("inc-1", kind, Status.MITIGATING, 1, cause="infrastructure")
    ended = head("inc-1", kind, Status.RESOLVED, 1, 4.25, cause="infrastructure", outcome="mitigated")
    ask = action("act-1", ActionKind.SAFE_MODE_ON, "decision", params={"hold": "inc-1"})
    yes = msgspec.structs.replace(
        ask, agl_decision="APPROVED", approved_action=ask.proposed_action, policies=("safe_mode_on",),
        policy_reason="reversible and cheap", decided_by="agl",
    )  # fmt: skip
    run = msgspec.structs.replace(yes, executed_at_us=NOON + 2 * SECOND)
    good = msgspec.structs.replace(run, result="SUCCESS")
    return [
        step(opened, "detection", "DETECTED", 1),
        step(opened, "logging", "LOGGED", 1.1),
        step(opened, "planning", "PLANNED", 1.2, action=ask, data={"plan_hash": "ab12", "cost": 1.0}),
        step(acting, "approval", "APPROVED", 1.5, action=yes, data={"facts": {"open_incidents": 1}}),
        step(acting, "execution", "VERIFYING", 2, action=run),
        step(ended, "verification", "RESOLVED", 4.25, action=good, data={"n": 240, "p95_ms": 96.0}),
        step(
            ended, "memory", "RESOLVED", 4.25, text="RESOLVED in 3.25 s",
            memory=memory("mem-1", "inc-1", kind, "infrastructure", {"p95_ms": 412.5, "cpu": 0.2}),
        ),
    ]  # fmt: skip


def other_incidents():
    """2: a second breach, 4.75 s. 3: a dead agent, one second. 4: nobody answered in time. 5: a person is asked."""
    slow = head("inc-2", "LATENCY_SLO_BREACH", Status.RESOLVED, 20, 24.75, outcome="mitigated", cause="load")
    dead = head("inc-3", "AGENT_DOWN", Status.RESOLVED, 30, 31, subject="model-0", outcome="mitigated")
    late = head("inc-4", "PERF_DROP", Status.FAILED, 40, 70, outcome="unresolved", cause="deploy")
    asks = head("inc-5", "DATA_DRIFT", Status.MITIGATING, 80, cause="drift")
    restart = action("act-3", ActionKind.RESTART, "model-0")
    return [
        step(slow, "detection", "RESOLVED", 20),
        step(dead, "verification", "RESOLVED", 31, action=msgspec.structs.replace(
            restart, agl_decision="MODIFIED", approved_action=restart.proposed_action, result="SUCCESS")),
        step(late, "planning", "PLANNED", 41, action=action("act-4", ActionKind.ROLLBACK, "model")),
        step(late, "approval", "FAILED", 70, action=action(
            "act-4", ActionKind.ROLLBACK, "model", "EXPIRED", decided_by="clock", result="FAIL")),
        step(asks, "approval", "ASKED", 81, action=action("act-5", ActionKind.RETRAIN, "trainer", "ESCALATED")),
    ]  # fmt: skip


def change(config_id, base, at_s, changes, **more):
    return ConfigChange(
        id=config_id, base_version=base, changes=changes, actor=more.pop("actor", "healing"),
        reason=more.pop("reason", "because"), at_us=NOON + int(at_s * SECOND), **more,
    )  # fmt: skip


def changes():
    """Two that apply, and between them a stale one, an invalid one and a fault."""
    return [
        change("cfg-1", 0, 0, {"model_version": "v1", "model_digest": "d1"}, actor="operator:ann", forced=True),
        change("cfg-stale", 0, 1.8, {"sampling": 0.5}),
        change("cfg-invalid", 1, 1.9, {"sampling": 7}),
        Fault(id="f-1", name="slow-model", on=True, params={"ms": 300}, actor="chaos", at_us=NOON),
        change(
            "cfg-2", 1, 2, {"safe_mode": ["inc-1"]}, incident_id="inc-1", action_id="act-1", approval="verdict-1",
            reason="LATENCY_SLO_BREACH",
        ),
        change("cfg-late", 1, 90, {"sampling": 0.25}),
    ]  # fmt: skip


def whole_log():
    bus = FakeBus()
    bus.append(*chained([*slow_model(), *other_incidents()]), *changes())
    return bus
