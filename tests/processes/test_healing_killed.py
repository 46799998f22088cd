"""Healing is killed as soon as it has written each step of an incident: it resumes the same choice and acts once."""

from __future__ import annotations

import pytest
from tests.processes.house import STEPS, Running
from tests.processes.monkey import BUDGET

from mendstream.contracts.records import ConfigChange, IncidentStep, Proposal
from mendstream.contracts.topics import Topic

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]

AFTER = ("logging", "planning", "approval", "execution")
"""Four, for at the sixth end within a minute the supervisor gives up on a control process."""


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    with Running(tmp_path_factory.mktemp("healing"), **BUDGET) as running:
        running.warm_up(seconds=4)
        yield running


@pytest.fixture(scope="module")
def case(house):
    """A slow model's incident, ended, with healing killed after each of AFTER."""
    since = house.hurt("slow-model")
    found = None
    for step in AFTER:
        house.until(lambda step=step: _written(house, since, step), why=f"{step} is written")
        generation = house.shown("healing-0")["generation"]
        house.kill("healing-0")
        house.until(lambda g=generation: house.shown("healing-0")["generation"] > g, why="healing is back")
        found = house.incident(since, "LATENCY_SLO_BREACH")
    return house.ended(found)


def _written(house, since, step):
    found = [s for s in house.news.of(Topic.INCIDENT_LOG, IncidentStep) if s.incident.detected_at_us >= since]
    return any(s.step == step for s in found)


def test_the_incident_is_resolved_all_the_same_with_its_steps_in_order(case):
    assert case.resolved
    firsts = [case.first(step) for step in STEPS]
    assert firsts == sorted(firsts)


def test_one_proposal_one_change_and_one_action_came_of_it(house, case):
    asked = [p for p in house.news.of(Topic.POLICY_REQUESTS, Proposal) if p.incident_id == case.id]
    turned = [c for c in house.news.of(Topic.CONFIG_UPDATES, ConfigChange) if c.incident_id == case.id]
    assert [p.action.kind for p in asked if p.action.kind != "SAFE_MODE_OFF"] == ["SAFE_MODE_ON"]
    assert [c.changes for c in turned if c.changes["safe_mode"]] == [{"safe_mode": [case.id]}]
    assert [(r["kind"], r["result"]) for r in house.action_rows(case)][:1] == [("SAFE_MODE_ON", "SUCCESS")]


def test_each_record_of_the_incident_log_has_an_id_of_its_own_and_the_chain_holds(house, case):
    ids = [step.id for step in house.news.of(Topic.INCIDENT_LOG, IncidentStep)]
    assert len(ids) == len(set(ids))
    assert house.chain_flaw() == ""


def test_the_way_back_survives_as_well(house, case):
    house.hurt("slow-model", on=False)
    house.until(lambda: case.way_back and case.way_back[-1].step == "memory")
    assert case.action("SAFE_MODE_OFF").result == "SUCCESS"
    house.until(house.calm)
