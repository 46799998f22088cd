"""The fourth restart in ten minutes is denied; the incident is a person's then, who closes it."""

from __future__ import annotations

import pytest
from tests.processes.house import Running

from mendstream.contracts.records import Verdict
from mendstream.contracts.topics import Topic
from mendstream.demo.accounting import account

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]

LIMIT = 3
"""Restarts of one target in 10 minutes: the default of `policy.restarts_per_10min`."""


@pytest.fixture(scope="module")
def stormy(tmp_path_factory):
    """(house, its cases): model-0 was killed once more than it may be restarted in 10 minutes."""
    with Running(tmp_path_factory.mktemp("stormy")) as house:
        house.warm_up(seconds=4)
        cases = []
        for _ in range(LIMIT):
            cases.append(house.ended(house.incident(house.hurt("dead-agent"), "AGENT_DOWN")))
            house.until(house.calm)
        last = house.incident(house.hurt("dead-agent"), "AGENT_DOWN")
        house.until(lambda: last.phase == "ESCALATED", why="no rung is left")
        house.recorded(last)
        yield house, [*cases, last]


@pytest.fixture(scope="module")
def closed(stormy):
    """(case, how it stood before) of the incident that a person has closed."""
    house, cases = stormy
    case = cases[-1]
    before = house.incident_row(case), house.action_rows(case)
    house.told("incidents", "close", case.id, "--reason", "known, mended by hand")
    return house.ended(case), before


def test_the_fourth_restart_in_ten_minutes_is_denied(stormy, closed):
    house, cases = stormy
    assert [case.resolved for case in cases[:-1]] == [True] * LIMIT
    decisions = [house.action_rows(case)[0]["agl_decision"] for case in cases]
    assert decisions == ["APPROVED"] * LIMIT + ["DENIED"]
    verdict = next(v for v in house.news.of(Topic.POLICY_DECISIONS, Verdict) if v.incident_id == cases[-1].id)
    assert (verdict.verdict, verdict.policies) == ("DENIED", ("restart-storm",))
    assert (verdict.facts["restarts.last_10min"], verdict.facts["restarts.limit"]) == (LIMIT, LIMIT)


def test_after_the_denial_the_incident_is_a_persons_and_is_not_called_ended(closed):
    _, (row, actions) = closed
    assert (row["status"], row["resolved_at"], row["mttr_seconds"]) == ("MITIGATING", None, None)
    assert [(a["result"], a["executed_at"]) for a in actions] == [("FAIL", None)]


def test_a_person_closes_it_without_proof_so_it_has_failed_and_says_who_and_why(stormy, closed):
    house, _ = stormy
    case, _ = closed
    row = house.incident_row(case)
    assert (row["status"], row["outcome"], row["mttr_seconds"]) == ("FAILED", "unresolved", None)
    end = next(step for step in case.steps if step.phase == "FAILED")
    assert "known, mended by hand" in end.text
    assert end.actor not in ("healing", "policy", "")
    assert house.said_by("incidents", "close", case.id, "--reason", "again").returncode == 1


def test_the_denial_cost_time_and_no_event(stormy, closed):
    house, _ = stormy
    house.until(house.calm, why="nobody is on it any more: the supervisor has brought the process back by itself")
    house.drain()
    house.stop()
    counted = account(house.root)
    assert counted.exact, counted.text
