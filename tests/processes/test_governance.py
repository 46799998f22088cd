"""Policies of one's own, and a kind of action that a person is asked about: MODIFIED, ESCALATED, approved, refused."""

from __future__ import annotations

import json

import msgspec
import pytest
from tests.processes.house import Case, Running

from mendstream.agents.policy.policies import shipped
from mendstream.contracts.records import CommandResult, Verdict
from mendstream.contracts.topics import Topic
from mendstream.runtime.answers import UNANSWERED_US

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def governed(tmp_path_factory):
    """The shipped policies, but a threshold may move by 0.03 at most; and every restart is asked about."""
    folder = tmp_path_factory.mktemp("policies")
    texts, _ = shipped()
    for name, text in texts.items():
        (folder / name).write_text(text.replace("> 1000", "> 300").replace("<= 1000", "<= 300")
                                   .replace("step_bp=1000", "step_bp=300"))  # fmt: skip
    root = tmp_path_factory.mktemp("governed")
    with Running(root, policy__dir=str(folder), policy__modes={"RESTART": "ask"}) as house:
        house.warm_up()
        yield house


@pytest.fixture(scope="module")
def waiting(governed):
    """(case, what SQL said of it, what `mendstream approve` listed) while it waited for a person."""
    house = governed
    case = house.incident(house.hurt("dead-agent"), "AGENT_DOWN")
    house.until(lambda: case.phase == "ASKED", why="a person is asked")
    house.recorded(case)
    rows = house.incident_row(case), house.action_rows(case)
    listed = json.loads(house.told("approve", "--json"))
    return case, rows, listed


@pytest.fixture(scope="module")
def approved(governed, waiting):
    """The case, after a person has said yes."""
    case, _, _ = waiting
    governed.told("approve", case.id, "--reason", "go ahead")
    return governed.ended(case)


@pytest.fixture(scope="module")
def refused(governed, approved):
    """The case of another death, after a person has said no."""
    house = governed
    house.until(house.calm)
    case = house.incident(house.hurt("dead-agent"), "AGENT_DOWN")
    house.until(lambda: case.phase == "ASKED", why="a person is asked")
    house.told("deny", case.id, "--reason", "leave it")
    house.until(lambda: case.phase == "ESCALATED", why="no rung is left")
    house.recorded(case)
    return case, house.incident_row(case), house.action_rows(case)


@pytest.fixture(scope="module")
def left_alone(governed, refused):
    """Whether the process still lay dead when an end that nobody had answered would have been made good."""
    governed.go_on(UNANSWERED_US / 1e6 + 3)
    return not governed.shown("model-0")["alive"]


@pytest.fixture(scope="module")
def closed(governed, refused, left_alone):
    """The case, closed by a person."""
    case, _, _ = refused
    governed.told("incidents", "close", case.id, "--reason", "as you like")
    return governed.ended(case)


@pytest.fixture(scope="module")
def modified(governed, closed):
    house = governed
    house.until(house.calm, 90)
    return house.ended(house.incident(house.hurt("drift"), "DATA_DRIFT"), 120)


def test_an_action_that_a_person_is_asked_about_is_not_done_and_has_no_decision_yet(waiting):
    case, (row, actions), _ = waiting
    assert case.said("RESTART ESCALATED by policy")
    assert row["status"] == "MITIGATING"
    (action,) = actions
    assert (action["agl_decision"], action["executed_at"], action["result"]) == (None, None, None)
    assert "mode-ask" in action["policies"]


def test_what_waits_is_listed_with_its_reason(waiting):
    case, _, listed = waiting
    (one,) = listed
    assert one["proposal"]["incident_id"] == case.id
    assert one["proposal"]["action"]["kind"] == "RESTART"
    assert "a person decides" in one["asked"]["reason"]


def test_a_persons_yes_is_carried_out_and_verified_and_stands_under_their_name(governed, approved):
    assert approved.resolved
    assert _verdicts(governed, approved) == [("ESCALATED", "policy"), ("APPROVED", "person")]
    row = _action(governed, approved, "RESTART")
    assert (row["agl_decision"], row["result"]) == ("APPROVED", "SUCCESS")
    assert row["decided_by"] not in ("", "policy", "healing")
    assert row["policy_reason"] == "go ahead"
    assert governed.incident_row(approved)["status"] == "RESOLVED"


def test_a_persons_no_is_kept_as_denied_and_nothing_was_done(governed, refused):
    case, row, actions = refused
    assert _verdicts(governed, case) == [("ESCALATED", "policy"), ("DENIED", "person")]
    (action,) = actions
    assert (action["agl_decision"], action["result"], action["executed_at"]) == ("DENIED", "FAIL", None)
    assert action["decided_by"] not in ("", "policy", "healing")
    assert row["status"] == "MITIGATING", "it still waits for a person"
    done = [r for r in governed.news.of(Topic.COMMAND_RESULTS, CommandResult) if r.incident_id == case.id]
    assert done == []


def test_a_no_is_an_answer_that_the_supervisor_respects_too(left_alone):
    assert left_alone


def test_once_nobody_is_on_it_any_more_the_supervisor_brings_the_process_back_and_says_so(governed, refused, closed):
    assert closed.head.outcome == "unresolved"
    generation = governed.shown("model-0")["generation"]
    assert governed.until(governed.serving, why="the supervisor has started the process by itself")
    (own,) = [r for r in governed.news.of(Topic.COMMAND_RESULTS, CommandResult) if not r.action_id]
    assert (own.data["target"], own.data["generation"]) == ("model-0", generation + 1)


def test_a_threshold_that_moves_too_far_is_modified_and_the_modified_one_is_set(governed, modified):
    row = _action(governed, modified, "SET_THRESHOLD")
    assert row["agl_decision"] == "MODIFIED"
    assert "threshold-clamp" in row["policies"]
    proposed, approved = (msgspec.json.decode(row[name]) for name in ("proposed_action", "approved_action"))
    assert proposed["params"]["value"] == pytest.approx(0.4)
    assert approved["params"]["value"] == pytest.approx(0.47)
    history = governed.sql("select changes from config_history where action_id = ?", row["action_id"])
    assert [msgspec.json.decode(h["changes"]) for h in history] == [{"decision_threshold": 0.47}]


def test_a_modified_step_is_taken_back_to_what_was_there_before_it(governed, modified):
    assert modified.resolved
    assert governed.config.decision_threshold == 0.5
    assert _action(governed, modified, "SET_THRESHOLD")["result"] == "SUCCESS"


def test_the_verdict_carries_the_facts_that_it_rests_on(governed, modified):
    verdict = next(v for v in governed.news.of(Topic.POLICY_DECISIONS, Verdict) if v.verdict == "MODIFIED")
    assert verdict.facts["threshold.current_bp"] == 5000
    assert verdict.facts["threshold.proposed_bp"] == 4000
    assert verdict.facts["house.paused"] is False


def _action(house: Running, case: Case, kind: str) -> dict:
    return next(row for row in house.action_rows(case) if row["kind"] == kind)


def _verdicts(house: Running, case: Case) -> list[tuple[str, str]]:
    found = [v for v in house.news.of(Topic.POLICY_DECISIONS, Verdict) if v.incident_id == case.id]
    return [(v.verdict.value, "policy" if v.actor == "policy" else "person") for v in found]
