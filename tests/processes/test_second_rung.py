"""A slowness that SAFE_MODE does not cure: the first rung is undone, and the second one helps."""

from __future__ import annotations

import pytest
from tests.processes.house import Case, Running, working_in
from tests.processes.pipelines import TIRED

from mendstream.demo.accounting import account

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def tired(tmp_path_factory):
    """(house, case): features are slow until the process is a new one, which SAFE_MODE cannot cure."""
    root = tmp_path_factory.mktemp("tired")
    with working_in(root), Running(root / "house", pipeline="tests.processes.pipelines:tired", run__fuse=True) as house:
        house.warm_up()
        since = house.now_us
        TIRED.touch()
        case = house.ended(house.incident(since, "LATENCY_SLO_BREACH"), 90)
        yield house, case


def test_a_first_rung_that_does_not_help_is_undone_and_the_second_one_cures(tired):
    house, case = tired
    assert case.resolved
    assert _rows(house, case) == [
        ("SAFE_MODE_ON", 0, "APPROVED", "FAIL"),
        ("SAFE_MODE_OFF", 1, "APPROVED", "SUCCESS"),
        ("RESTART", 0, "APPROVED", "SUCCESS"),
    ]
    assert case.action("RESTART").rung == 2
    assert house.incident_row(case)["status"] == "RESOLVED"


def test_what_did_not_help_is_said_with_the_reason_and_remembered(tired):
    house, case = tired
    assert case.said("SAFE_MODE_ON did not help") or case.said("SAFE_MODE_ON made it worse")
    memory = house.sql("select * from memory_chunks where incident_id = ?", case.id)[0]
    assert memory["action_taken"] == "RESTART"
    assert "Tried before: SAFE_MODE_ON" in memory["incident_summary"]


def test_the_second_rung_waited_until_the_first_was_undone_in_every_task(tired):
    _, case = tired
    undone = next(n for n, step in enumerate(case.steps) if "is undone in every task" in step.text)
    restart = next(n for n, step in enumerate(case.steps) if "restart of fused-0" in step.text)
    assert undone < restart


def test_the_pipeline_serves_by_its_model_in_time_after_the_second_rung(tired):
    house, case = tired
    house.until(house.calm)
    assert house.config.safe_mode == ()
    assert house.vitals.mode == "NORMAL"
    assert house.vitals.p95_ms < 300
    assert case.proof["events"] >= 200
    assert case.proof["slow_share"] < 0.05


def test_no_event_was_lost_on_the_way(tired):
    house, _ = tired
    house.drain()
    house.stop()
    counted = account(house.root)
    assert counted.exact, counted.text


def _rows(house: Running, case: Case) -> list[tuple[str, int, str, str]]:
    """(kind, is_undo, decision, result) of each action in SQL."""
    return [(r["kind"], r["is_undo"], r["agl_decision"], r["result"]) for r in house.action_rows(case)]
