"""A house with a fault that heals tells a collector so: a trace of the incident, and traces of batches."""

from __future__ import annotations

import json

import pytest
from tests.processes.house import STAGES, STEPS, Running
from tests.support.collector import Collector

from mendstream.adapters.tracing.names import of_incident

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def collector():
    with Collector() as running:
        yield running


@pytest.fixture(scope="module")
def told(collector, tmp_path_factory):
    """(the incident as the log has it, the lines that the supervisor wrote), after the house has ended."""
    root = tmp_path_factory.mktemp("traced")
    with Running(root, tracing__enabled=True, tracing__endpoint=collector.endpoint, tracing__sample=0.2) as house:
        house.warm_up(labels=100, seconds=0)
        at_us = house.now_us
        house.kill("model-0")
        case = house.ended(house.incident(at_us, "AGENT_DOWN"))
        assert case.resolved
    lines = [json.loads(line) for line in house.process_log("supervisor").splitlines()]
    collector.until(lambda spans: any(span.name == "incident AGENT_DOWN" for span in spans))
    return case, lines


def of(collector, name):
    return [span for span in collector.spans if span.name == name]


def test_the_incident_is_one_trace_with_its_seven_steps_in_order(collector, told):
    case, _ = told
    (whole,) = of(collector, "incident AGENT_DOWN")
    assert whole.attributes["mendstream.incident.id"] == case.id
    assert whole.trace == f"{of_incident(case.id).trace:032x}"
    parts = [span for span in collector.spans if span.parent == whole.id and span.name in STEPS]
    parts.sort(key=lambda span: span.attributes["mendstream.seq"])
    assert tuple(dict.fromkeys(span.name for span in parts)) == STEPS
    ends = [span.end_ns for span in parts]
    assert ends == sorted(ends)
    assert {span.trace for span in parts} == {whole.trace}
    assert all(whole.start_ns <= span.start_ns <= span.end_ns <= whole.end_ns for span in parts)
    assert len(parts) == len(case.own)


def test_the_policy_tells_of_its_verdict_in_the_same_trace(collector, told):
    case, _ = told
    (verdict,) = [v for v in of(collector, "policy verdict") if v.attributes["mendstream.incident.id"] == case.id]
    assert verdict.trace == f"{of_incident(case.id).trace:032x}"
    assert verdict.service["service.instance.id"] == "policy-0"
    assert verdict.attributes["mendstream.verdict"] == "APPROVED"


def test_the_supervisors_log_names_the_trace(told):
    case, lines = told
    (line,) = [line for line in lines if line.get("incident") == case.id]
    assert line["trace_id"] == f"{of_incident(case.id).trace:032x}"


def test_links_join_a_decision_with_the_batch_that_came_in(collector, told):
    by_id = {(span.trace, span.id): span for span in collector.spans}
    ways = 0
    for span in of(collector, "process predictions"):
        if span.service["service.name"] != "mendstream-decision":
            continue
        way = [span]
        while way[-1].links and way[-1].links[0] in by_id:
            way.append(by_id[way[-1].links[0]])
        services = [step.service["service.name"].removeprefix("mendstream-") for step in reversed(way)]
        ways += services == list(STAGES)
    assert ways > 10


def test_only_the_share_that_was_asked_for_is_sampled(collector, told):
    """A turn of ingestion for each batch, some 500 events a second: a fifth of them is far from all and from none."""
    sent = of(collector, "send raw-events")
    turns = {int(span.attributes["mendstream.turn"].rpartition("/")[2]) for span in sent}
    assert len(turns) == len(sent)
    assert 0.05 < len(turns) / (max(turns) - min(turns) + 1) < 0.5
