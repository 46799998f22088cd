"""Spans of incidents: from the records alone, the same in every process and after every restart."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import pytest
from tests.unit.metrics import given
from tests.unit.metrics.given import NOW

from mendstream.adapters.tracing.incidents import Incidents
from mendstream.adapters.tracing.names import add_trace, of_incident, parse
from mendstream.adapters.tracing.span import Span
from mendstream.contracts.records import IncidentStep, Proposal, Status, VerdictKind

MS = 1000
OPEN, MITIGATING, RESOLVED, FAILED = Status.OPEN, Status.MITIGATING, Status.RESOLVED, Status.FAILED


def steps(*rows: tuple, seq: int = 0) -> list[IncidentStep]:
    """(step, milliseconds since the detection, status, what else)"""
    return [
        msgspec.structs.replace(
            given.step(name, status, at=NOW + ms * MS, **(more[0] if more else {})), seq=n, id=f"h/{n}"
        )
        for n, (name, ms, status, *more) in enumerate(rows, start=seq)
    ]


def healed() -> list[IncidentStep]:
    return steps(
        ("detection", 0, OPEN), ("logging", 1, OPEN), ("planning", 2, OPEN, {"phase": "PLANNED"}),
        ("approval", 12, OPEN, {"phase": "APPROVED", "row": given.row(None)}),
        ("execution", 12, MITIGATING, {"phase": "EXECUTING", "row": given.row(None)}),
        ("execution", 30, MITIGATING, {"phase": "VERIFYING", "row": given.row(None)}),
        ("logging", 500, MITIGATING, {"phase": "VERIFYING"}),
        ("verification", 2500, RESOLVED, {"phase": "RESOLVED", "row": given.row("SUCCESS")}),
        ("memory", 2500, RESOLVED, {"phase": "RESOLVED", "ended": True}),
    )  # fmt: skip


def spans(*, told: Iterable, recalled: Iterable = ()) -> list[Span]:
    found: list[Span] = []
    incidents = Incidents(found.append)
    incidents.recall(recalled)
    incidents.told(told)
    return found


def test_a_healed_incident_is_one_trace_of_its_steps_and_the_whole():
    found = spans(told=healed())
    whole = found[-1]
    assert [span.name for span in found] == [step.step for step in healed()] + ["incident PERF_DROP"]
    assert (whole.own, whole.parent) == (of_incident("inc-1"), None)
    assert (whole.start_us, whole.end_us) == (NOW, NOW + 2500 * MS)
    assert {span.parent for span in found[:-1]} == {whole.own}
    assert {span.own.trace for span in found} == {whole.own.trace}
    assert len({span.own for span in found}) == len(found)


def test_a_step_lasts_from_the_one_before_it_and_news_beside_it_are_a_point():
    took = [(span.name, (span.start_us - NOW) // MS, (span.end_us - NOW) // MS) for span in spans(told=healed())]
    assert took == [
        ("detection", 0, 0), ("logging", 0, 1), ("planning", 1, 2), ("approval", 2, 12), ("execution", 12, 12),
        ("execution", 12, 30), ("logging", 500, 500), ("verification", 30, 2500), ("memory", 2500, 2500),
        ("incident PERF_DROP", 0, 2500),
    ]  # fmt: skip


@pytest.mark.parametrize("cut", range(1, 9))
def test_a_healing_that_was_started_again_goes_on_with_the_trace(cut):
    before, after = healed()[:cut], healed()[cut:]
    assert spans(told=before) + spans(told=after, recalled=before) == spans(told=healed())


def test_attributes_name_subject_action_verdict_and_result():
    proof = next(span for span in spans(told=healed()) if span.name == "verification")
    wanted = {
        "mendstream.incident.id": "inc-1", "mendstream.incident.type": "PERF_DROP",
        "mendstream.incident.subject": "v2", "mendstream.action.kind": "ROLLBACK", "mendstream.action.target": "model",
        "mendstream.verdict": "APPROVED", "mendstream.action.result": "SUCCESS", "mendstream.phase": "RESOLVED",
    }  # fmt: skip
    assert wanted.items() <= proof.attributes.items()
    assert proof.failed == ""


def test_what_failed_is_an_error():
    failed = {"phase": "FAILED", "row": given.row("FAIL")}
    (proof,) = spans(told=steps(("verification", 5, FAILED, failed)))
    assert proof.failed == "ROLLBACK failed"


def test_a_way_back_joins_the_trace_and_the_whole_is_told_once():
    back = steps(
        ("planning", 8000, RESOLVED, {"phase": "PLANNED"}), ("verification", 9000, RESOLVED, {"phase": "RESOLVED"}),
        ("memory", 9000, RESOLVED, {"phase": "RESOLVED"}), seq=9,
    )  # fmt: skip
    found = spans(told=[*healed(), *back])
    assert [span.name for span in found].count("incident PERF_DROP") == 1
    assert [(span.start_us - NOW) // MS for span in found[-3:]] == [8000, 8000, 9000]
    assert {span.own.trace for span in found} == {of_incident("inc-1").trace}


def test_the_policys_verdict_lasts_from_the_proposal_and_is_in_the_incidents_trace():
    found: list[Span] = []
    incidents = Incidents(found.append)
    proposal = Proposal(
        id="h/2", incident_id="inc-1", incident_type="PERF_DROP", action=given.action(), plan_hash="00", rung=0,
        expected_effect="", impact="low", cost=1.0, undo=None, is_undo=False, at_us=NOW - 7 * MS, expires_at_us=NOW + 1,
    )  # fmt: skip
    incidents.proposed([proposal])
    incidents.told([given.verdict(VerdictKind.DENIED, policies=("paused", "mode-ask"))])
    (span,) = found
    assert span.parent == of_incident("inc-1")
    assert (span.start_us, span.end_us) == (NOW - 7 * MS, NOW)
    assert span.attributes["mendstream.verdict"] == "DENIED"
    assert span.attributes["mendstream.policies"] == "paused, mode-ask"


def test_names_of_incidents_differ_and_are_headers_that_can_be_read():
    names = [of_incident(f"inc-{n}") for n in range(100)]
    assert len({name.trace for name in names}) == len({name.span for name in names}) == 100
    assert [parse(name.header) for name in names] == names


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ({"incident": "inc-0a1b"}, "inc-0a1b"),
        ({"action": "inc-0a1b.r0.a1.2"}, "inc-0a1b"),
        ({"incident": "inc-0a1b", "trace_id": "f0"}, None),
        ({"incident": ""}, None),
        ({"action": 3}, None),
        ({}, None),
    ],
)
def test_a_line_that_names_an_incident_bears_its_trace(line, named):
    wanted = line if named is None else {**line, "trace_id": f"{of_incident(named).trace:032x}"}
    assert add_trace(None, "info", dict(line)) == wanted
