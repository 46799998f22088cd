"""A remedy that makes things worse is undone, also while a person has paused healing; then the next rung."""

from __future__ import annotations

import pytest
from tests.processes.house import Case, Running, working_in
from tests.processes.pipelines import SLUGGISH

from mendstream.contracts.records import ConfigChange, Proposal
from mendstream.contracts.topics import Topic

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def sluggish(tmp_path_factory):
    root = tmp_path_factory.mktemp("sluggish")
    with working_in(root), Running(root / "house", pipeline="tests.processes.pipelines:sluggish") as house:
        house.warm_up()
        yield house


@pytest.fixture(scope="module")
def paused(sluggish):
    """(case, proposals made) of a fault that comes while a person has paused healing."""
    house = sluggish
    house.told("pause", "--reason", "maintenance")
    SLUGGISH.touch()
    since = house.hurt("slow-model")
    case = house.incident(since, "LATENCY_SLO_BREACH")
    house.go_on(3)
    return case, list(house.news.of(Topic.POLICY_REQUESTS, Proposal))


@pytest.fixture(scope="module")
def worse(sluggish, paused):
    """The case, after SAFE_MODE was tried, made it worse, and was undone while healing was paused again."""
    house, (case, _) = sluggish, paused
    house.told("resume")
    house.until(lambda: case.phase == "VERIFYING", why="SAFE_MODE is put in place")
    house.told("pause", "--reason", "hands off")
    house.until(lambda: case.said("is undone in every task"), why="the undo is done")
    house.go_on(3)
    house.recorded(case)
    return case


@pytest.fixture(scope="module")
def cured(sluggish, worse):
    """The case, ended by the second rung."""
    house = sluggish
    house.told("resume")
    house.until(lambda: "RESTART" in worse.kinds and worse.phase in ("EXECUTING", "VERIFYING"), why="a restart is out")
    house.hurt("slow-model", on=False)
    SLUGGISH.unlink()
    return house.ended(worse)


def test_while_healing_is_paused_an_incident_is_opened_and_nothing_is_proposed(sluggish, paused):
    case, proposals = paused
    assert proposals == []
    assert (case.head.status, case.phase) == ("OPEN", "LOGGED")
    assert sluggish.incident_row(case)["status"] == "OPEN"


def test_a_remedy_that_makes_things_worse_is_noticed_before_its_time_is_up(worse):
    assert worse.said("SAFE_MODE_ON made it worse")
    tried, found = (
        next(s.at_us for s in worse.steps if text in s.text) for text in ("SAFE_MODE_ON done", "made it worse")
    )
    assert (found - tried) / 1e6 < 8


def test_the_undo_is_carried_out_although_healing_is_paused(sluggish, worse):
    pauses = [c for c in sluggish.news.of(Topic.CONFIG_UPDATES, ConfigChange) if "healing_paused" in c.changes]
    again = [c.at_us for c in pauses if c.changes["healing_paused"]][1]
    assert sluggish.config.healing_paused
    undo = worse.action("SAFE_MODE_OFF")
    assert undo.is_undo
    assert undo.executed_at_us > again
    assert _rows(sluggish, worse) == [
        ("SAFE_MODE_ON", 0, "APPROVED", "FAIL"),
        ("SAFE_MODE_OFF", 1, "APPROVED", "SUCCESS"),
    ]
    assert sluggish.config.safe_mode == ()


def test_the_next_rung_waits_until_healing_is_resumed_and_then_cures(sluggish, worse, cured):
    resumed = [c.at_us for c in sluggish.news.of(Topic.CONFIG_UPDATES, ConfigChange)
               if c.changes.get("healing_paused") is False][-1]  # fmt: skip
    assert cured.resolved
    asked = next(p for p in sluggish.news.of(Topic.POLICY_REQUESTS, Proposal) if p.action.kind == "RESTART")
    assert asked.at_us > resumed
    assert _rows(sluggish, cured)[-1] == ("RESTART", 0, "APPROVED", "SUCCESS")
    assert sluggish.until(sluggish.calm)


def test_what_a_person_did_is_in_the_config_history_with_name_and_reason(sluggish, cured):
    rows = sluggish.sql("select * from config_history where changes like '%healing_paused%' order by version")
    assert [row["forced"] for row in rows] == [1, 1, 1, 1]
    assert [row["reason"] for row in rows][::2] == ["maintenance", "hands off"]
    assert all(row["changed_by"] not in ("healing", "policy", "") for row in rows)


def _rows(house: Running, case: Case) -> list[tuple[str, int, str, str]]:
    """(kind, is_undo, decision, result) of each action in SQL."""
    return [(r["kind"], r["is_undo"], r["agl_decision"], r["result"]) for r in house.action_rows(case)]
