"""The agent as its neighbours see it: proposals in, verdicts out."""

from __future__ import annotations

import dataclasses
import hashlib

import msgspec
import pytest
from tests.unit.policy.house import (
    MINUTE,
    POLICIES,
    PROMOTE,
    RESTART,
    RETRAIN,
    ROLLBACK,
    SAFE_MODE_OFF,
    SAFE_MODE_ON,
    SET_THRESHOLD,
    SHADOW,
    T0,
    House,
    S,
    action,
    alert,
    calm,
    hold,
    proposal,
    result,
    step,
    vitals,
)

from mendstream.agents.policy import PolicyAgent, PolicySettings, PolicyState
from mendstream.contracts import state as plain
from mendstream.contracts.agent import Batch
from mendstream.contracts.errors import SettingsError
from mendstream.contracts.hashes import plan_hash
from mendstream.contracts.knobs import LiveConfig
from mendstream.contracts.records import (
    TOPIC_OF,
    ActionKind,
    AlertKind,
    AlertState,
    Outcome,
    Status,
    TaskState,
    VerdictKind,
    decode,
    encode,
)
from mendstream.contracts.topics import SPECS, Topic


def test_the_agent_reads_what_the_table_of_topics_says():
    agent = PolicyAgent(policies=POLICIES)
    assert agent.name == "policy"
    assert all("policy" in SPECS[t].readers or t is Topic.CONFIG_UPDATES for t in agent.reads)
    assert {t for t, spec in SPECS.items() if "policy" in spec.readers} <= set(agent.reads)


def test_a_tick_is_harmless():
    house = calm()
    before = plain.encode(house.state)
    assert house.feed(now=T0 + MINUTE) == []
    assert plain.encode(house.state) == before


def test_an_approval_names_policy_reason_facts_and_plan_and_ends_after_a_minute():
    house = calm()
    what = action(SAFE_MODE_ON, "model", holder="i1")
    verdict = house.ask(what)
    assert verdict.verdict is VerdictKind.APPROVED
    assert verdict.policies == ("safe-mode-on",)
    assert verdict.reason == "SAFE_MODE may be entered, with a hold of the incident's own"
    assert (verdict.action, verdict.action_id, verdict.incident_id) == (what, "a1", "i1")
    assert verdict.plan_hash == plan_hash(what)
    assert verdict.expires_at_us == T0 + 60 * S
    assert verdict.facts["house.paused"] is False
    assert verdict.facts["plan.mode"] == "auto"
    assert verdict.actor == "policy"
    assert decode(Topic.POLICY_DECISIONS, encode(verdict)) == verdict
    assert TOPIC_OF[type(verdict)] is Topic.POLICY_DECISIONS


def test_the_plan_hash_is_over_canonical_json():
    what = action(SET_THRESHOLD, "decision", value=0.45)
    text = b'{"id":"a1","kind":"SET_THRESHOLD","params":{"value":0.45},"target":"decision"}'
    assert plan_hash(what) == hashlib.sha256(text).hexdigest()


# --- restarts --------------------------------------------------------------------------------------------------------


def test_the_fourth_restart_in_ten_minutes_is_denied_and_allowed_again_after_the_window():
    house = calm()
    for n in range(3):
        at = T0 + n * MINUTE
        assert house.ask(action(RESTART, id=f"a{n}"), at).verdict is VerdictKind.APPROVED
        house.feed(result(f"a{n}", at + S), vitals(at + S), now=at + S)
    denied = house.ask(action(RESTART, id="a3"), T0 + 3 * MINUTE)
    assert denied.verdict is VerdictKind.DENIED
    assert denied.policies == ("restart-storm",)
    assert (denied.facts["restarts.last_10min"], denied.facts["restarts.limit"]) == (3, 3)
    still = house.ask(action(RESTART, id="a4"), T0 + 10 * MINUTE)
    assert still.verdict is VerdictKind.DENIED
    # The first was done at T0 + 1 s, so it leaves the window then.
    again = house.ask(action(RESTART, id="a5"), T0 + 10 * MINUTE + S)
    assert again.verdict is VerdictKind.APPROVED


def test_restarts_of_another_target_do_not_count():
    house = calm()
    for n in range(3):
        house.ask(action(RESTART, "decision-0", id=f"a{n}"))
    assert house.ask(action(RESTART, "decision-0", id="a3")).verdict is VerdictKind.DENIED
    assert house.ask(action(RESTART, "model-0", id="a4")).verdict is VerdictKind.APPROVED


def test_four_restarts_asked_for_at_once_get_three_approvals():
    house = calm()
    verdicts = house.feed(*(proposal(action(RESTART, id=f"a{n}"), f"p{n}") for n in range(4)))
    assert [v.verdict for v in verdicts] == [VerdictKind.APPROVED] * 3 + [VerdictKind.DENIED]


def test_an_approval_that_was_not_used_stops_counting_when_it_expires():
    house = calm()
    for n in range(3):
        house.ask(action(RESTART, id=f"a{n}"))
    assert house.ask(action(RESTART, id="a3"), T0 + 59 * S).verdict is VerdictKind.DENIED
    house.feed(vitals(T0 + 60 * S), now=T0 + 60 * S)
    assert house.ask(action(RESTART, id="a4"), T0 + 60 * S).verdict is VerdictKind.APPROVED


def test_a_refused_restart_is_none():
    house = calm()
    for n in range(3):
        house.ask(action(RESTART, id=f"a{n}"))
    house.feed(result("a0", T0 + S, Outcome.REFUSED), now=T0 + S)
    assert house.ask(action(RESTART, id="a3"), T0 + S).facts["restarts.last_10min"] == 2


def test_a_restart_that_only_the_incident_log_tells_of_counts():
    house = calm()
    for n in range(3):
        house.feed(step(action(RESTART, id=f"a{n}"), executed_at=T0 + n), now=T0 + S)
    assert house.ask(action(RESTART, id="a9"), T0 + S).policies == ("restart-storm",)


def test_a_restart_by_the_supervisor_itself_counts():
    house = calm()
    for n in range(3):
        house.feed(result(f"own{n}", T0, kind="RESTART", target="model-0"))
    assert house.ask(action(RESTART)).policies == ("restart-storm",)


def test_a_raised_restart_budget_is_one_setting():
    house = calm(restarts_per_10min=50, actions_per_hour=500)
    for n in range(50):
        assert house.ask(action(RESTART, id=f"a{n}")).verdict is VerdictKind.APPROVED
    assert house.ask(action(RESTART, id="a50")).verdict is VerdictKind.DENIED


def test_a_process_that_nobody_has_seen_is_not_restarted_unless_it_is_reported_down():
    house = calm()
    assert house.ask(action(RESTART, "../etc")).verdict is VerdictKind.DENIED
    house.feed(alert(AlertKind.AGENT_DOWN, "feature-0"))
    assert house.ask(action(RESTART, "feature-0", id="a2")).verdict is VerdictKind.APPROVED
    house.feed(alert(AlertKind.AGENT_DOWN, "feature-0", AlertState.RESOLVED))
    assert house.ask(action(RESTART, "feature-0", id="a3")).verdict is VerdictKind.DENIED


# --- the threshold ---------------------------------------------------------------------------------------------------


def test_a_large_step_is_clamped_and_the_clamped_action_was_authorised_again():
    house = calm()
    asked = action(SET_THRESHOLD, "decision", value=0.2)
    verdict = house.ask(asked)
    assert verdict.verdict is VerdictKind.MODIFIED
    assert verdict.policies == ("threshold-clamp", "threshold")  # what modified it, and what permits the result
    assert verdict.action == action(SET_THRESHOLD, "decision", value=0.4)
    assert verdict.plan_hash == plan_hash(verdict.action) != plan_hash(asked)
    assert verdict.facts["threshold.proposed_bp"] == 2000
    assert verdict.reason.endswith("clamped to 0.4")


def test_a_clamp_never_turns_a_step_round_or_makes_it_longer():
    house = calm()
    house.change(decision_threshold=0.1)  # below the policy's bounds
    for n, wanted in enumerate((0.05, 0.11)):
        assert house.ask(action(SET_THRESHOLD, "decision", id=f"a{n}", value=wanted)).verdict is VerdictKind.DENIED
    up = house.ask(action(SET_THRESHOLD, "decision", id="a9", value=0.3))
    assert (up.verdict, up.action.params) == (VerdictKind.MODIFIED, {"value": 0.2})


def test_a_clamped_step_that_nothing_permits_is_denied():
    house = calm()
    house.change(decision_threshold=0.95)  # forced by an operator, out of the policy's bounds
    verdict = house.ask(action(SET_THRESHOLD, "decision", value=0.6))
    assert verdict.verdict is VerdictKind.DENIED
    assert verdict.action.params == {"value": 0.6}
    assert "clamped to 0.85 it is not permitted either" in verdict.reason


@pytest.mark.parametrize(
    "wanted", [None, "0.4", True, float("nan"), float("inf"), -float("inf"), 1e308, 10**400, -(10**400)]
)
def test_a_threshold_that_is_no_number_is_a_missing_fact_and_denied(wanted):
    verdict = calm().ask(action(SET_THRESHOLD, "decision", value=wanted))
    assert (verdict.verdict, verdict.policies) == (VerdictKind.DENIED, ())
    assert "proposed_bp" in verdict.reason
    assert "threshold.proposed_bp" not in verdict.facts


def test_a_proposal_without_the_value_is_denied():
    verdict = calm().ask(action(SET_THRESHOLD, "decision"))
    assert verdict.verdict is VerdictKind.DENIED
    assert "proposed_bp" in verdict.reason


# --- models ----------------------------------------------------------------------------------------------------------


def test_rollback_goes_only_to_a_version_that_was_live_and_is_not_excluded():
    house = calm()
    house.change(model_version="v2", model_digest="d2")
    assert house.ask(action(ROLLBACK, version="v1", digest="d1", id="a1")).verdict is VerdictKind.APPROVED
    assert house.ask(action(ROLLBACK, version="v9", digest="d9", id="a2")).policies[0] == "rollback-unknown"
    assert house.ask(action(ROLLBACK, version="v2", digest="d2", id="a3")).verdict is VerdictKind.DENIED  # live now
    assert house.ask(action(ROLLBACK, version="v1", digest="d2", id="a4")).policies == ("model-digest",)
    house.change(excluded_models=["v1"])
    assert house.ask(action(ROLLBACK, version="v1", digest="d1", id="a5")).policies == ("model-excluded",)


def test_a_change_that_was_stale_made_nothing_live():
    house = calm()
    stale = msgspec.json.encode(
        {"record": "config-change", "id": "x", "base_version": 7, "changes": {"model_version": "v7"}, "actor": "init",
         "reason": "", "at_us": T0}
    )  # fmt: skip
    house.feed(decode(Topic.CONFIG_UPDATES, stale))
    assert house.ask(action(ROLLBACK, version="v7")).policies[0] == "rollback-unknown"


def test_promotion_wants_the_trainers_report_for_this_incident():
    house = calm()
    unknown = house.ask(action(PROMOTE, version="v2", digest="d2", id="a0"))
    assert unknown.policies == ("promote-unknown", "model-digest")
    house.ask(action(RETRAIN, "trainer", id="t1"))
    house.feed(result("t1", T0 + S, version="v2", digest="d2"))
    assert house.ask(action(PROMOTE, version="v2", digest="d2", id="a1")).verdict is VerdictKind.APPROVED
    other = house.ask(action(PROMOTE, version="v2", digest="d2", id="a2"), incident_id="i2")
    assert other.policies == ("promote-unknown",)
    assert house.ask(action(PROMOTE, version="v2", digest="evil", id="a3")).policies == ("model-digest",)


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.REFUSED, Outcome.UNKNOWN])
def test_a_training_that_was_not_done_makes_no_version(outcome):
    house = calm()
    house.ask(action(RETRAIN, "trainer", id="t1"))
    house.feed(result("t1", T0 + S, outcome, version="v2", digest="d2"))
    assert house.ask(action(PROMOTE, version="v2")).policies[0] == "promote-unknown"


def test_only_a_retraining_reports_versions():
    house = calm()
    house.ask(action(RESTART, id="t1"))
    house.feed(result("t1", T0 + S, version="v2", digest="d2"), result("nobody", T0 + S, version="v2", digest="d2"))
    assert house.ask(action(PROMOTE, version="v2")).policies[0] == "promote-unknown"


def test_a_version_that_ran_in_the_shadow_may_be_promoted():
    house = calm()
    house.change(shadow_version="v2", shadow_digest="d2")
    assert house.ask(action(PROMOTE, version="v2", digest="d2")).policies == ("promote",)


def test_the_shadow_takes_known_versions_and_may_be_ended():
    house = calm()
    assert house.ask(action(SHADOW, version="v9", id="a1")).verdict is VerdictKind.DENIED
    assert house.ask(action(SHADOW, version="v1", digest="d1", id="a2")).verdict is VerdictKind.APPROVED
    assert house.ask(action(SHADOW, version="", digest="", id="a3")).verdict is VerdictKind.APPROVED


def test_a_model_without_a_digest_is_denied():
    house = calm()
    house.change(model_version="v2", model_digest="d2")
    for digest in (None, "", 7):
        assert house.ask(action(ROLLBACK, id=f"{digest}", version="v1", digest=digest)).policies == ("model-digest",)
    assert house.ask(action(SHADOW, version="", digest="d1", id="a2")).policies == ("model-digest",)


def test_a_rollback_excludes_the_version_that_it_replaces_and_no_other():
    house = calm()
    house.change(model_version="v2", model_digest="d2")
    back = {"version": "v1", "digest": "d1"}
    assert house.ask(action(ROLLBACK, id="a1", bad_version="v2", **back)).verdict is VerdictKind.APPROVED
    assert house.ask(action(ROLLBACK, id="a2", bad_version="v3", **back)).policies == ("model-bars-another",)


def test_a_promotion_sets_no_threshold_but_the_one_that_its_incident_had_replaced():
    house = calm()
    house.change(shadow_version="v2", shadow_digest="d2")
    house.change(decision_threshold=0.45, incident="i1", by="a0")
    new = {"version": "v2", "digest": "d2"}
    assert house.ask(action(PROMOTE, id="a1", threshold=0.5, **new)).verdict is VerdictKind.APPROVED
    assert house.ask(action(PROMOTE, id="a2", threshold=0.01, **new)).policies == ("model-moves-threshold",)
    other = house.ask(action(PROMOTE, id="a3", threshold=0.5, **new), incident_id="i2")
    assert other.policies == ("model-moves-threshold",)
    house.change(decision_threshold=0.6)  # somebody else's since
    assert house.ask(action(PROMOTE, id="a4", threshold=0.5, **new)).policies == ("model-moves-threshold",)


def test_a_hold_on_safe_mode_is_set_and_taken_back_by_its_own_incident_only():
    house = calm()
    for n, kind in enumerate((SAFE_MODE_ON, SAFE_MODE_OFF)):
        assert house.ask(action(kind, id=f"a{n}", holder="i1")).verdict is VerdictKind.APPROVED
        for holder in ("i2", "person", None):
            denied = house.ask(action(kind, id=f"b{n}{holder}", holder=holder))
            assert denied.policies == ("hold-of-another",)


def test_a_model_action_without_a_version_is_denied():
    for kind in (ROLLBACK, SHADOW, PROMOTE):
        verdict = calm().ask(action(kind, version=None))
        assert (verdict.verdict, verdict.policies) == (VerdictKind.DENIED, ())


def test_no_retraining_while_an_open_alert_marks_the_data_corrupt():
    house = calm()
    house.feed(alert(AlertKind.DATA_DRIFT, "data", corrupt=True))
    denied = house.ask(action(RETRAIN, "trainer"))
    assert (denied.verdict, denied.policies) == (VerdictKind.DENIED, ("retrain-on-bad-data",))
    house.feed(alert(AlertKind.DATA_DRIFT, "data", AlertState.RESOLVED, corrupt=True))
    assert house.ask(action(RETRAIN, "trainer", id="a2")).verdict is VerdictKind.APPROVED


def test_drift_alone_does_not_mark_the_data_corrupt():
    house = calm()
    house.feed(alert(AlertKind.DATA_DRIFT, "data", feature="distance"), alert(AlertKind.PERF_DROP, "v1", corrupt=False))
    assert house.ask(action(RETRAIN, "trainer")).verdict is VerdictKind.APPROVED


# --- pause, undo, people ---------------------------------------------------------------------------------------------


def test_while_paused_nothing_new_runs_and_an_undo_does():
    house = calm()
    house.change(safe_mode=["i1"], incident="i1", by="a1")
    house.change(healing_paused=True)
    new = house.ask(action(SAFE_MODE_ON, "model", id="a2", holder="i2"), incident_id="i2")
    assert (new.verdict, new.policies) == (VerdictKind.DENIED, ("paused",))
    undo = house.ask(hold(SAFE_MODE_OFF, "model", id="u1"), is_undo=True)
    assert undo.verdict is VerdictKind.APPROVED
    assert "undo" in undo.policies


def test_calling_it_an_undo_is_not_enough():
    house = calm()
    house.change(decision_threshold=0.4, incident="i1", by="a1")
    house.change(healing_paused=True)
    lies = {
        "another incident": (action(SET_THRESHOLD, "decision", value=0.5, id="u1"), "i2"),
        "another value": (action(SET_THRESHOLD, "decision", value=0.9, id="u2"), "i1"),
        "another kind": (action(RETRAIN, "trainer", id="u3"), "i1"),
        "a restart": (action(RESTART, "model-0", id="u4"), "i1"),
    }
    for what, incident in lies.values():
        verdict = house.ask(what, is_undo=True, incident_id=incident)
        assert (verdict.verdict, verdict.facts["plan.is_undo"]) == (VerdictKind.DENIED, False)
    true = house.ask(action(SET_THRESHOLD, "decision", value=0.5, id="u5"), is_undo=True)
    assert true.verdict is VerdictKind.APPROVED


def test_a_late_undo_does_not_revert_a_newer_change():
    house = calm()
    house.change(model_version="v2", model_digest="d2", incident="i1", by="a1")
    house.change(model_version="v3", model_digest="d3", incident="i2", by="a2")
    late = house.ask(action(ROLLBACK, version="v1", digest="d1", id="u1"), is_undo=True)
    assert late.facts["plan.is_undo"] is False


def test_a_rollback_that_made_it_worse_is_undone_although_it_excluded_the_version():
    house = calm()
    house.change(model_version="v2", model_digest="d2")
    house.change(model_version="v1", model_digest="d1", excluded_models=["v2"], incident="i1", by="a1")
    undo = house.ask(action(ROLLBACK, version="v2", digest="d2", id="u1"), is_undo=True)
    assert undo.verdict is VerdictKind.APPROVED
    assert house.ask(action(ROLLBACK, version="v2", digest="d2", id="a2")).policies == ("model-excluded",)


def test_a_promotion_and_a_shadow_are_undone():
    house = calm()
    house.change(shadow_version="v2", shadow_digest="d2", incident="i1", by="a1")
    house.change(model_version="v2", model_digest="d2", incident="i1", by="a2")
    house.change(healing_paused=True)
    assert house.ask(action(SHADOW, version="", digest="", id="u1"), is_undo=True).verdict is VerdictKind.APPROVED
    assert house.ask(action(PROMOTE, version="v1", digest="d1", id="u2"), is_undo=True).verdict is VerdictKind.APPROVED


def test_leaving_safe_mode_is_undone_by_entering_it():
    house = calm()
    house.change(safe_mode=["i1"], incident="i1", by="a1")
    house.change(safe_mode=[], incident="i1", by="a2")
    house.change(healing_paused=True)
    assert house.ask(hold(SAFE_MODE_ON, "model", id="u1"), is_undo=True).verdict is VerdictKind.APPROVED


def test_high_impact_is_escalated():
    verdict = calm().ask(action(RETRAIN, "trainer"), impact="high")
    assert (verdict.verdict, verdict.policies) == (VerdictKind.ESCALATED, ("ask-high-impact",))


def test_modes_ask_and_observe():
    ask = calm(modes={"RETRAIN": "ask"}).ask(action(RETRAIN, "trainer"))
    assert (ask.verdict, ask.policies) == (VerdictKind.ESCALATED, ("mode-ask",))
    observe = calm(modes={"RETRAIN": "observe"}).ask(action(RETRAIN, "trainer"))
    assert (observe.verdict, observe.policies) == (VerdictKind.DENIED, ("mode-observe",))
    assert "observe" in observe.reason


def test_a_mode_for_an_unknown_kind_is_refused_with_the_nearest_one():
    with pytest.raises(SettingsError, match="'restrt'") as wrong:
        PolicySettings(modes={"restrt": "ask"})
    assert wrong.value.hint == "did you mean RESTART?"
    with pytest.raises(SettingsError, match="no mode"):
        PolicySettings(modes={"RESTART": "never"})  # type: ignore[dict-item]


def test_when_more_than_half_is_ill_only_a_restart_goes_unasked():
    house = calm()
    house.feed(vitals(T0 + 1, model_0=TaskState.DOWN, decision_0=TaskState.STUCK, feature_0=TaskState.OK))
    assert house.ask(hold(SAFE_MODE_ON, "model", id="a1")).policies == ("ask-half-sick",)
    assert house.ask(action(RESTART, "model-0", id="a2")).verdict is VerdictKind.APPROVED
    house.feed(vitals(T0 + 2, model_0=TaskState.DOWN, decision_0=TaskState.OK))
    assert house.ask(hold(SAFE_MODE_ON, "model", id="a3")).verdict is VerdictKind.APPROVED


def test_vitals_that_arrive_late_do_not_replace_newer_ones():
    house = calm()
    house.feed(vitals(T0 + 2 * S, model_0=TaskState.OK), vitals(T0 + S, model_0=TaskState.DOWN))
    assert house.state.sick_bp == 0


def test_without_fresh_vitals_a_person_is_asked():
    blind = House().ask(hold(SAFE_MODE_ON, "model"))
    assert (blind.verdict, blind.policies) == (VerdictKind.ESCALATED, ("ask-blind",))
    house = calm()
    assert house.ask(hold(SAFE_MODE_ON, "model", id="a1"), T0 + 30 * S).verdict is VerdictKind.APPROVED
    assert house.ask(hold(SAFE_MODE_ON, "model", id="a2"), T0 + 30 * S + 1).policies == ("ask-blind",)


def test_a_spent_hourly_budget_asks_a_person_and_undos_are_not_counted():
    house = calm(actions_per_hour=2)
    house.change(safe_mode=["i1"], incident="i1", by="x")
    assert house.ask(hold(SAFE_MODE_OFF, "model", id="u1"), is_undo=True).verdict is VerdictKind.APPROVED
    house.change(safe_mode=[], incident="i1", by="u1")
    for n in range(2):
        assert house.ask(hold(SAFE_MODE_ON, "model", id=f"a{n}")).verdict is VerdictKind.APPROVED
        house.feed(step(hold(SAFE_MODE_ON, "model", id=f"a{n}"), executed_at=T0))
    asked = house.ask(hold(SAFE_MODE_ON, "model", id="a2"))
    assert (asked.verdict, asked.policies) == (VerdictKind.ESCALATED, ("ask-hourly-budget",))
    house.feed(vitals(T0 + 60 * MINUTE), now=T0 + 60 * MINUTE)
    later = house.ask(hold(SAFE_MODE_ON, "model", id="a3"), T0 + 60 * MINUTE)
    assert (later.verdict, later.facts["house.actions_1h"]) == (VerdictKind.APPROVED, 0)


def test_undos_that_the_incident_log_tells_of_are_not_counted_but_restarts_always_are():
    house = calm()
    house.feed(step(hold(SAFE_MODE_OFF, id="a1.undo"), executed_at=T0, is_undo=True))
    house.feed(step(action(RESTART, id="a2"), executed_at=T0, is_undo=True))
    facts = house.ask(action(RESTART, id="a3")).facts
    assert (facts["house.actions_1h"], facts["restarts.last_10min"]) == (1, 1)


def test_open_incidents_are_counted_until_they_end():
    house = calm()
    house.feed(step(), step(incident_id="i2", status=Status.MITIGATING), step(incident_id="i3", status=Status.FAILED))
    assert house.ask(hold(SAFE_MODE_ON)).facts["house.open_incidents"] == 2
    house.feed(step(status=Status.RESOLVED))
    assert house.ask(hold(SAFE_MODE_ON, id="a2")).facts["house.open_incidents"] == 1


# --- fail closed -----------------------------------------------------------------------------------------------------


def test_facts_are_not_taken_from_the_proposer():
    house = calm()
    for n in range(3):
        house.ask(action(RESTART, id=f"a{n}"))
    lie = action(RESTART, id="a3", last_10min=0, **{"restarts.last_10min": 0, "house.paused": False})
    verdict = house.ask(lie, expected_effect="restarts.last_10min = 0")
    assert verdict.verdict is VerdictKind.DENIED
    assert verdict.facts["restarts.last_10min"] == 3
    lie = action(ROLLBACK, version="v9", was_live=True, id="a4")
    assert house.ask(lie).facts["model.was_live"] is False


def test_a_proposal_whose_hash_is_not_that_of_its_action_is_denied():
    verdict = calm().ask(hold(SAFE_MODE_ON), plan_hash=plan_hash(action(RETRAIN)))
    assert (verdict.verdict, verdict.policies) == (VerdictKind.DENIED, ())
    assert verdict.reason == "the plan hash is not that of the action"


def test_an_expired_proposal_gets_expired():
    verdict = calm().ask(hold(SAFE_MODE_ON), T0 + S, expires_at_us=T0 + S)
    assert verdict.verdict is VerdictKind.EXPIRED
    assert calm().ask(hold(SAFE_MODE_ON), T0 + S, expires_at_us=T0 + S + 1).verdict is VerdictKind.APPROVED


def test_an_unknown_kind_of_action_is_denied():
    verdict = calm().ask(action("FORMAT_DISK"))
    assert (verdict.verdict, verdict.policies) == (VerdictKind.DENIED, ())
    assert "FORMAT_DISK" in verdict.reason


def test_a_repeated_proposal_gets_the_same_verdict_and_is_counted_once():
    house = calm()
    first = house.ask(action(RESTART), id="p1")
    again = house.feed(proposal(action(RESTART), "p1"), proposal(action(RESTART), "p1"), now=T0 + 5 * S)
    assert again == [first, first]
    assert house.ask(action(RESTART, id="a2"), T0 + 6 * S).facts["restarts.last_10min"] == 1


def test_a_used_id_with_another_plan_is_denied():
    house = calm()
    first = house.ask(hold(SAFE_MODE_ON), id="p1")
    assert house.ask(action(RETRAIN), id="p1").reason == "the proposal's id was used before, for another plan"
    assert house.ask(action(RETRAIN), id="p2").reason == "the action's id was used before, for SAFE_MODE_ON of model"
    assert house.feed(proposal(hold(SAFE_MODE_ON), "p1")) == [first]


def test_a_denied_proposal_is_not_counted():
    house = calm()
    house.change(healing_paused=True)
    house.ask(action(RESTART, id="a1"))
    house.change(healing_paused=False)
    assert house.ask(action(RESTART, id="a2")).facts["restarts.last_10min"] == 0


def test_facts_of_the_same_batch_come_before_its_proposals():
    house = calm()
    (verdict,) = house.feed(
        proposal(action(RESTART, id="a9")), *(step(action(RESTART, id=f"a{n}"), executed_at=T0) for n in range(3))
    )
    assert verdict.policies == ("restart-storm",)


# --- state -----------------------------------------------------------------------------------------------------------


def test_snapshot_and_resume_agree():
    records = [
        vitals(), step(), alert(AlertKind.AGENT_DOWN, "feature-0"), alert(AlertKind.DATA_DRIFT, "data", corrupt=True),
        proposal(action(RESTART, id="a1"), "p1"), result("a1", T0 + S),
        proposal(action(RETRAIN, "trainer", id="t1"), "p2", impact="high"),
        proposal(action(SET_THRESHOLD, "decision", id="a2", value=0.1), "p3"),
        result("t1", T0 + S, version="v2", digest="d2"),
        proposal(action(PROMOTE, id="a3", version="v2", digest="d2"), "p4"),
        proposal(action(RESTART, id="a1"), "p1"),
    ]  # fmt: skip
    straight, resumed = calm(), calm()
    for record in records:
        resumed.state = plain.decode(plain.encode(resumed.state), PolicyState)
        assert straight.feed(record, now=T0 + 2 * S) == resumed.feed(record, now=T0 + 2 * S)
    assert straight.state == resumed.state
    assert plain.encode(straight.state) == plain.encode(resumed.state)


def test_nothing_grows_without_a_limit():
    house = calm(actions_per_hour=10**9, restarts_per_10min=10**9)
    for n in range(600):
        house.ask(action(RESTART, id=f"a{n}"), T0 + n * MINUTE)
        house.feed(alert(AlertKind.AGENT_DOWN, f"x{n}", corrupt=True), step(incident_id=f"i{n}"))
        house.change(safe_mode=[f"i{n}"], incident=f"i{n}", by=f"a{n}")
    assert len(house.state.verdicts) == 11  # of the last ten minutes
    assert len(house.state.changes) == 64
    assert len(house.state.deeds) <= 121  # two hours of them
    for n in range(100):
        house.ask(action(RETRAIN, "trainer", id=f"r{n}"), T0 + 600 * MINUTE)
    assert len(house.state.verdicts) == 64
    assert len(house.state.down) == len(house.state.corrupt) == len(house.state.incidents) == 600 <= 1024


def test_two_agents_share_no_state():
    agent = PolicyAgent(policies=POLICIES)
    one, two = agent.start(0), agent.start(0)
    agent.step(one, Batch(turn="t", partition=0, config=LiveConfig(), records=[vitals(), step()]), T0)
    assert two == PolicyState()


def test_the_agent_is_a_frozen_value():
    with pytest.raises(dataclasses.FrozenInstanceError):
        PolicyAgent(policies=POLICIES).name = "x"  # type: ignore[misc]


def test_every_kind_of_action_has_facts_that_fit_the_schema():
    for kind in ActionKind:
        verdict = calm().ask(action(kind, version="v1", digest="d1", value=0.45, holder="i1"))
        assert "no decision" not in verdict.reason
