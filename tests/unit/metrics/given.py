"""Literal records, roles and free ports."""

import socket
from contextlib import ExitStack
from urllib.request import Request, urlopen

from mendstream.contracts.agent import Outputs
from mendstream.contracts.records import (
    Action,
    ActionKind,
    ActionRow,
    Alert,
    AlertKind,
    AlertState,
    DeadLetter,
    DeadReason,
    DriftVital,
    IncidentHead,
    IncidentStep,
    MemoryRow,
    Served,
    Status,
    TaskState,
    TaskVital,
    Verdict,
    VerdictKind,
    Vitals,
)
from mendstream.runtime.roster import ROLE_OF
from mendstream.settings.groups import Metrics

NOW = 1_750_000_000_000_000


def free_base(ports: int = 7) -> int:
    """The first of so many free ports in a row."""
    for base in range(20_000 + hash(__name__) % 500 * 10, 60_000, ports):
        with ExitStack() as held:
            try:
                for port in range(base, base + ports):
                    sock = held.enter_context(socket.socket())
                    sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return base
    raise AssertionError("no free ports")


def settings(base: int) -> Metrics:
    return Metrics(base_port=base)


def role(name: str):
    return ROLE_OF[name]


def scrape(port: int, accept: str = "text/plain") -> str:
    request = Request(f"http://127.0.0.1:{port}/metrics", headers={"Accept": accept})
    with urlopen(request, timeout=5) as answer:
        return answer.read().decode()


def outputs(*records, dead=()) -> Outputs:
    return Outputs("t", records=list(records), dead=list(dead))


def dead_letter(n: int) -> DeadLetter:
    return DeadLetter(
        id=f"d/{n}", topic="source", partition=0, position=n, stage="ingestion", code_version="0.1.0",
        reason=DeadReason.MALFORMED, detail="not JSON", attempts=1, value=b"{", at_us=NOW,
    )  # fmt: skip


def vitals(**changes) -> Vitals:
    given = {
        "pane": 7, "at_us": NOW, "n": 125, "rate": 500.0, "p50_ms": 2.0, "p95_ms": 450.0, "mode": "NORMAL",
        "model": "v1", "config": 1, "accuracy": 0.82, "labels": 100, "backlog": 3,
    }  # fmt: skip
    return Vitals(**(given | changes))


def task(name: str, backlog: int, *, state=TaskState.OK, age_ms: int = 10) -> TaskVital:
    return TaskVital(
        task=name, process="model-0", generation=1, pid=1, epoch=1, turns=1, backlog=backlog, config=1,
        pulse_age_ms=age_ms, state=state,
    )  # fmt: skip


def served(arm: str, n: int, *, slow=0, labels=0, errors=0, config=1) -> Served:
    return Served(
        task="decision/0", model="v1", config=config, arm=arm, n=n, slow=slow, latency_ms_sum=1.0, labels=labels,
        errors=errors,
    )  # fmt: skip


def drift(feature: str, psi: float) -> DriftVital:
    return DriftVital(feature=feature, model="v1", n=1000, psi=psi, ks=0.1, js=0.1, limit=0.2)


def alert(state: AlertState) -> Alert:
    return Alert(
        id="a/1", alert_id="a/1", kind=AlertKind.LATENCY_SLO_BREACH, subject="pipeline", state=state,
        detector="latency", statistic="p95_ms", value=450.0, limit=300.0, n=125, window_us=(NOW - 1, NOW), at_us=NOW,
    )  # fmt: skip


def step(
    name: str, status: Status, *, incident="inc-1", row=None, mttr=None, ended=False, outcome="mitigated",
    phase="DETECTED", subject="v2", detected=NOW, at=NOW,
) -> IncidentStep:  # fmt: skip
    memory = MemoryRow(
        memory_id=f"mem-{incident}", incident_id=incident, incident_type="PERF_DROP", cause="deploy",
        incident_summary="", action_taken="ROLLBACK", outcome=outcome, metrics_before={}, metrics_after={},
        mttr_seconds=mttr, features={},
    )  # fmt: skip
    head = IncidentHead(
        incident_id=incident, type="PERF_DROP", subject=subject, status=status, detected_at_us=detected,
        resolved_at_us=NOW + 4_000_000 if status is Status.RESOLVED else None, metrics_snapshot={},
    )  # fmt: skip
    return IncidentStep(
        id="h/1", seq=0, incident=head, step=name, phase=phase, text="", actor="healing", at_us=at, action=row,
        memory=memory if ended else None,
    )  # fmt: skip


def action(kind=ActionKind.ROLLBACK, id_: str = "act-1") -> Action:
    return Action(id=id_, kind=kind, target="model")


def row(result, id_: str = "act-1", *, is_undo: bool = False) -> ActionRow:
    return ActionRow(
        action_id=id_, rung=0, is_undo=is_undo, proposed_action=action(id_=id_), agl_decision="APPROVED",
        approved_action=action(id_=id_), result=result,
    )  # fmt: skip


def verdict(kind: VerdictKind, *, policies=(), facts=None) -> Verdict:
    return Verdict(
        id="p/1", proposal_id="h/2", incident_id="inc-1", action_id="act-1", verdict=kind, action=action(),
        plan_hash="00", policies=policies, reason="", facts=facts or {}, actor="policy", at_us=NOW,
        expires_at_us=NOW + 1,
    )  # fmt: skip
