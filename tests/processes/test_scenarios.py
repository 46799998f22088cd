"""A healthy minute, then the faults of the brief one after the other on one real house: each is healed and proven."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.processes.house import STEPS, Case, Running

from mendstream.contracts.records import AlertState, Proposal, Vitals
from mendstream.contracts.topics import Topic
from mendstream.demo.accounting import account

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]

HEALTHY_S = 60.0
STORIES = ("slow", "bad", "dead", "stuck", "drifted")


@dataclass
class Story:
    """One fault, from its onset to the proof of its cure."""

    onset_us: int
    case: Case
    before: Vitals
    after: Vitals
    row: dict[str, Any]
    actions: list[dict[str, Any]]


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    with Running(tmp_path_factory.mktemp("house")) as running:
        running.warm_up()
        yield running


@pytest.fixture(scope="module")
def control(house):
    """(when a healthy minute began, when it ended)"""
    since = house.now_us
    house.go_on(HEALTHY_S)
    return since, house.now_us


@pytest.fixture(scope="module")
def slow(house):
    return _healed(house, "LATENCY_SLO_BREACH", lambda: house.hurt("slow-model"))


@pytest.fixture(scope="module")
def still_slow(house, slow):
    """(vitals, proposals) of a while in which the model stays slow although SAFE_MODE has cured the pipeline."""
    seen, asked = len(house.news.records[Topic.VITALS]), len(house.news.records[Topic.POLICY_REQUESTS])
    house.go_on(house.settings.healing.release_after_s + 3)
    return house.news.records[Topic.VITALS][seen:], house.news.records[Topic.POLICY_REQUESTS][asked:]


@pytest.fixture(scope="module")
def fast_again(house, slow, still_slow):
    """The case, once the fault is gone and the house has found its way back."""
    house.hurt("slow-model", on=False)
    case = slow.case
    house.until(lambda: case.way_back and case.way_back[-1].step == "memory" and case.phase == "RESOLVED")
    house.until(house.calm)
    house.recorded(case)
    return case


@pytest.fixture(scope="module")
def bad(house):
    house.until(house.calm)
    return _healed(house, "PERF_DROP", lambda: house.hurt("bad-model"))


@pytest.fixture(scope="module")
def dead(house):
    house.until(house.calm)
    return _healed(house, "AGENT_DOWN", lambda: house.hurt("dead-agent"))


@pytest.fixture(scope="module")
def stuck(house):
    house.until(house.calm)
    return _healed(house, "AGENT_DOWN", lambda: house.hurt("stuck-agent"))


@pytest.fixture(scope="module")
def drifted(house):
    house.until(house.calm)
    return _healed(house, "DATA_DRIFT", lambda: house.hurt("drift"))


def _healed(house: Running, kind: str, hurt: Any) -> Story:
    before = house.vitals
    onset = hurt()
    case = house.ended(house.incident(onset, kind), 90)
    return Story(onset, case, before, house.vitals, house.incident_row(case), house.action_rows(case))


# --- nothing is wrong ------------------------------------------------------------------------------------------------


def test_a_healthy_minute_raises_no_alert_and_opens_no_incident(house, control):
    since, until = control
    assert until - since >= HEALTHY_S * 1e6
    assert [alert for alert in house.news.alerts if alert.at_us <= until] == []
    assert [case for case in house.news.cases.values() if case.head.detected_at_us <= until] == []
    assert house.sql("select * from incidents") == []
    assert house.log("monitoring.log") == []


# --- slow model ------------------------------------------------------------------------------------------------------


def test_a_slow_model_is_healed_by_safe_mode(house, slow):
    assert slow.before.p95_ms < 300
    assert slow.case.resolved
    assert slow.case.kinds == ["SAFE_MODE_ON"]
    version = house.sql("select version from config_history where incident_id = ?", slow.case.id)[0]["version"]
    rules = [row for row in slow.after.served if row.arm == "fallback" and row.config >= version]
    n, late = sum(row.n for row in rules), sum(row.slow for row in rules)
    assert n >= 200
    # What had waited for the slow model was late already when the rules took over.
    proof = slow.case.proof
    assert proof["events"] >= 200
    assert proof["slow_share"] < 0.05
    assert late < n
    assert slow.after.mode == "SAFE_MODE"


def test_the_slow_model_was_really_slow_in_the_serving_path(house, slow):
    during = [v for v in house.news.records[Topic.VITALS] if slow.onset_us < v.at_us <= slow.case.head.detected_at_us]
    assert max(v.p95_ms for v in during) > 300


def test_safe_mode_stays_as_long_as_the_model_is_slow(still_slow):
    vitals, asked = still_slow
    assert {v.mode for v in vitals} == {"SAFE_MODE"}
    assert [p.action.kind for p in asked if isinstance(p, Proposal)] == []
    assert vitals[-1].p95_ms < 300, "the rules serve in time all the while"


def test_the_probes_go_on_measuring_the_slow_model_off_the_serving_path(still_slow):
    vitals, _ = still_slow
    first, last = ({row.model: row for row in v.probes} for v in (vitals[0], vitals[-1]))
    assert last["v1"].n > first["v1"].n
    assert last["v1"].slow > first["v1"].slow


def test_the_house_leaves_safe_mode_by_itself_when_the_model_is_fast_again(house, fast_again):
    assert house.vitals.mode == "NORMAL"
    assert house.config.safe_mode == ()
    release = fast_again.action("SAFE_MODE_OFF")
    assert (release.agl_decision, release.result, release.decided_by) == ("APPROVED", "SUCCESS", "policy")
    steps = [step.step for step in fast_again.way_back]
    assert list(dict.fromkeys(steps)) == ["planning", "approval", "execution", "verification", "memory"]


def test_the_way_back_is_verified_on_what_the_model_serves_and_leaves_the_incident_as_it_ended(
    house, slow, fast_again
):  # fmt: skip
    proof = next(step for step in fast_again.way_back if step.step == "verification").data
    assert proof["events"] >= 200
    assert proof["slow_share"] < 0.05
    row = house.incident_row(fast_again)
    assert (row["status"], row["mttr_seconds"]) == ("RESOLVED", slow.row["mttr_seconds"])
    assert [r["kind"] for r in house.action_rows(fast_again)] == ["SAFE_MODE_ON", "SAFE_MODE_OFF"]


# --- bad version -----------------------------------------------------------------------------------------------------


def test_a_bad_version_is_rolled_back_and_excluded(house, bad):
    assert bad.case.resolved
    assert bad.case.kinds == ["ROLLBACK"]
    assert bad.case.head.subject == "v2"
    assert (bad.before.model, bad.after.model) == ("v1", "v1")
    assert house.config.model_version == "v1"
    assert house.config.excluded_models == ("v2",)


def test_the_bad_version_served_and_was_worse_and_the_good_one_is_as_good_as_before(bad):
    rows = {(row.model, row.config): row for row in bad.after.served if row.arm == "live" and row.labels}
    worse = [row for (model, _), row in rows.items() if model == "v2"]
    rolled = max(config for _, config in rows)
    good = rows["v1", rolled]
    before = [row for (model, config), row in rows.items() if model == "v1" and config < worse[0].config]
    share_before = sum(row.errors for row in before) / sum(row.labels for row in before)
    share_worse = sum(row.errors for row in worse) / sum(row.labels for row in worse)
    assert share_worse > share_before + 0.03
    assert good.labels >= 100
    proof = bad.case.proof
    assert proof["labels"] >= 100
    assert proof["error_share"] <= proof["error_before"] + 0.03


def test_the_config_history_tells_which_version_was_live_when(house, bad):
    rows = house.sql("select changed_by, changes, incident_id, forced from config_history order by version")
    models = [
        (row["changed_by"], row["forced"], row["incident_id"]) for row in rows if "model_version" in row["changes"]
    ]
    assert models[0] == ("init", 0, None)
    assert models[1] == ("test", 1, None), "the fault was a forced promotion, and is marked so"
    assert models[2] == ("healing", 0, bad.case.id)


# --- dead and stuck agents -------------------------------------------------------------------------------------------


def test_a_killed_agent_is_restarted_once_and_decides_again(house, dead):
    assert dead.case.resolved
    assert dead.case.kinds == ["RESTART"]
    assert dead.case.head.subject == "model-0"
    _restarted_once(house, dead)


def test_a_stopped_agent_is_killed_and_started_anew(house, stuck):
    assert stuck.case.resolved
    assert stuck.case.kinds == ["RESTART"]
    assert stuck.case.head.subject == "model-0"
    assert stuck.case.steps[0].data["evidence"]["reason"] == "silent"
    _restarted_once(house, stuck)


def _restarted_once(house: Running, story: Story) -> None:
    ended = story.case.action("RESTART").proposed_action.params["generation"]
    before, after = (next(t for t in v.tasks if t.task == "model/0") for v in (story.before, story.after))
    assert (before.generation, after.generation) == (ended, ended + 1)
    assert before.pid != after.pid
    assert after.state == "OK"
    results = [r for r in house.news.records[Topic.COMMAND_RESULTS] if r.incident_id == story.case.id]
    assert [(r.outcome, r.data["generation"]) for r in results] == [("done", ended + 1)]
    served = sum(row.n for row in story.after.served) - sum(row.n for row in story.before.served)
    assert served > 500
    assert house.until(house.serving)


# --- drift -----------------------------------------------------------------------------------------------------------


def test_drift_is_answered_by_a_model_that_was_trained_shadowed_and_promoted(house, drifted):
    assert drifted.case.resolved
    assert drifted.case.kinds == ["SET_THRESHOLD", "RETRAIN", "SHADOW", "PROMOTE"]
    assert [row["result"] for row in drifted.actions] == ["SUCCESS"] * 4
    trained = next(
        r for r in house.news.records[Topic.COMMAND_RESULTS] if r.incident_id == drifted.case.id and r.outcome == "done"
    )
    assert house.config.model_version == trained.data["version"] == "v3"
    assert house.config.model_digest == trained.data["digest"]
    assert house.config.decision_threshold == 0.5, "the interim threshold has gone with the old model"
    assert house.config.shadow_version == ""


def test_the_cured_drift_is_judged_on_what_the_new_model_serves(house, drifted):
    rows = [row for row in drifted.after.drift if row.feature != "score"]
    assert {row.model for row in rows} == {"v3"}
    assert all(row.psi < row.limit for row in rows)
    live = [row for row in drifted.after.served if row.model == "v3" and row.arm == "live"]
    labels, errors = sum(row.labels for row in live), sum(row.errors for row in live)
    proof = drifted.case.proof
    assert labels >= proof["labels"] >= 100
    assert errors / labels <= proof["error_before"] + 0.03 + 0.02, "a little more than the proof saw"
    assert proof["error_share"] <= proof["error_before"] + 0.03


# --- what all five leave behind --------------------------------------------------------------------------------------


@pytest.fixture
def story(request):
    return request.getfixturevalue(request.param)


every = pytest.mark.parametrize("story", STORIES, indirect=True)


@every
def test_the_seven_steps_of_the_incident_stand_in_the_log_in_order(story):
    firsts = [story.case.first(step) for step in STEPS]
    assert firsts == sorted(firsts)
    assert {step.step for step in story.case.steps} == set(STEPS)
    assert all(a.at_us <= b.at_us for a, b in zip(story.case.steps, story.case.steps[1:], strict=False))


@every
def test_the_row_of_the_incident_is_resolved_with_the_right_time(house, story):
    row, case = story.row, story.case
    alert = next(a for a in house.news.alerts if a.alert_id == case.steps[0].data["alert_id"])
    assert row["status"] == "RESOLVED"
    assert row["type"] == alert.kind
    assert _us(row["detected_at"]) == alert.at_us
    assert row["mttr_seconds"] == pytest.approx((_us(row["resolved_at"]) - _us(row["detected_at"])) / 1e6)
    assert 2.0 <= row["mttr_seconds"] < 60, "the proof alone takes two seconds"
    assert story.onset_us <= alert.at_us


@every
def test_every_action_was_allowed_by_the_policy_carried_out_and_proven(story):
    assert story.actions
    for row in story.actions:
        assert (row["agl_decision"], row["result"], row["decided_by"]) == ("APPROVED", "SUCCESS", "policy")
        assert row["proposed_action"] == row["approved_action"]
        assert _us(story.row["detected_at"]) <= _us(row["executed_at"]) <= _us(story.row["resolved_at"])


@every
def test_the_incident_is_remembered(house, story):
    rows = house.sql("select * from memory_chunks where incident_id = ?", story.case.id)
    assert len(rows) == 1
    assert rows[0]["incident_type"] == story.row["type"]
    assert rows[0]["outcome"] == "mitigated"
    assert rows[0]["mttr_seconds"] == story.row["mttr_seconds"]


@every
def test_the_two_logs_tell_of_alert_and_cure(house, story):
    alerts = [line for line in house.log("monitoring.log") if "ALERT" in line]
    assert any(f"ALERT {story.row['type']} {story.row['subject']}" in line for line in alerts)
    mine = [line for line in house.log("healing.log") if story.case.id in line]
    assert any("RESOLVED" in line for line in mine)


@every
def test_the_alert_is_over_as_well(house, story):
    alert_id = story.case.steps[0].data["alert_id"]
    house.until(
        lambda: any(a.alert_id == alert_id and a.state is AlertState.RESOLVED for a in house.news.alerts), why="over"
    )


# --- at the end ------------------------------------------------------------------------------------------------------


def test_the_hash_chain_of_the_incident_log_verifies(house, slow, bad, dead, stuck, drifted):
    assert house.chain_flaw() == ""


def test_no_event_was_lost_or_decided_twice_by_all_of_that(house, slow, bad, dead, stuck, drifted):
    house.drain()
    house.stop()
    counted = account(house.root)
    assert counted.exact, counted.text
    assert counted.events == counted.decisions > 10_000


def _us(text: str) -> int:
    """Microseconds since 1970 of a time in the store."""
    at = datetime.fromisoformat(text)
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at
    return round(at.timestamp() * 1e6)
