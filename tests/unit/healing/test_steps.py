"""The seven steps: verdicts, waits, people, budgets, symptoms; the same whatever repeats or comes out of order."""

from __future__ import annotations

import msgspec
import pytest
from tests.unit.healing.house import SECOND, House

from mendstream.agents.healing import chain
from mendstream.agents.healing.due import ACTIVE
from mendstream.contracts import hashes
from mendstream.contracts.errors import IllegalMove
from mendstream.contracts.incident import MOVES, STATUS_OF, Phase, move
from mendstream.contracts.records import Action, ActionKind, AlertState, Status, TaskState


def firing(**params):
    """A house with a slow model and the proposal out."""
    house = House(**params).healthy()
    house.panes(2, slow=90, ms=900.0)
    house.feed(house.alert("LATENCY_SLO_BREACH"))
    return house


@pytest.mark.parametrize("now", list(Phase))
def test_the_table_of_moves_is_the_only_door(now):
    for to in Phase:
        if to in MOVES[now]:
            assert move(now, to) is to
        else:
            with pytest.raises(IllegalMove):
                move(now, to)


def test_every_phase_has_a_status_and_every_one_but_the_ends_a_way_on():
    assert set(STATUS_OF) == set(MOVES) == set(Phase)
    assert {phase for phase, to in MOVES.items() if not to} == {Phase.RESOLVED, Phase.FAILED}
    assert {Phase.LOGGED, Phase.DETECTED, Phase.ESCALATED}.isdisjoint(ACTIVE)


# --- approval ----------------------------------------------------------------------------------------------------


def test_modified_is_executed_as_modified():
    house = House().healthy()
    house.feed(house.alert("DATA_DRIFT", "data"))
    asked = house.proposals[0].action
    modified = msgspec.structs.replace(asked, params=asked.params | {"value": 0.45})
    house.approve("MODIFIED", action=modified)
    assert house.changes[0].changes == {"decision_threshold": 0.45}
    row = house.row(asked.id)
    assert (row.agl_decision, row.proposed_action, row.approved_action) == ("MODIFIED", asked, modified)


def test_what_is_approved_is_put_out_in_the_same_turn():
    house = firing()
    house.approve()
    assert house.incident.phase is Phase.EXECUTING
    assert [step.phase for step in house.steps[-2:]] == [Phase.APPROVED, Phase.EXECUTING]
    assert len(house.changes) == 1


def test_a_closing_that_comes_with_a_yes_comes_first_and_nothing_is_put_out():
    house = firing()
    house.feed(house.verdict(), house.closing(house.incident.incident_id))
    assert not house.open
    assert not house.changes
    assert house.head.status is Status.FAILED


@pytest.mark.parametrize("kind", ["DENIED", "EXPIRED"])
def test_a_no_leads_to_the_next_rung_and_does_nothing(kind):
    house = firing()
    house.approve(kind)
    assert house.proposals[1].action.kind is ActionKind.RESTART
    assert not house.changes
    row = house.row(house.proposals[0].action.id)
    assert (row.agl_decision, row.result, row.executed_at_us) == ("DENIED", "FAIL", None)
    assert house.head.status is Status.OPEN


def test_when_every_rung_is_denied_a_person_is_asked():
    house = firing()
    house.approve("DENIED")
    house.approve("DENIED")
    assert house.incident.phase == "ESCALATED"
    assert house.wake is None


@pytest.mark.parametrize(
    ("why", "changes"),
    [
        ("it answers another proposal", {"proposal_id": "other"}),
        ("it answers another proposal", {"action_id": "other"}),
        ("it is for another plan", {"plan_hash": "0" * 64}),
        ("the policy is asked first", {"actor": "anna"}),
    ],
)
def test_a_verdict_that_does_not_match_is_ignored_and_noted(why, changes):
    house = firing()
    house.approve(**changes)
    assert house.texts("approval") == [f"verdict APPROVED ignored: {why}"]
    assert house.incident.phase == "PLANNED"
    assert not house.changes
    house.approve()
    assert len(house.changes) == 1


def test_an_expired_yes_is_no_yes():
    house = firing()
    house.approve(expires_at_us=house.now)
    assert house.texts("approval") == ["verdict APPROVED ignored: it has expired"]
    assert not house.changes


@pytest.mark.parametrize(
    "action",
    [
        {"target": "model-7"},
        {"kind": ActionKind.SAFE_MODE_OFF},
        {"id": "another"},
        {"params": {}},
    ],
)
def test_a_modification_may_change_how_but_not_what_or_whom_and_must_make_sense(action):
    house = firing()
    house.approve("MODIFIED", action=msgspec.structs.replace(house.proposals[0].action, **action))
    assert house.incident.phase == "PLANNED"
    assert not house.changes


def test_a_modified_verdict_whose_hash_is_not_of_its_action_is_ignored():
    house = firing()
    house.approve("MODIFIED", plan_hash="0" * 64)
    assert not house.changes


def test_a_modification_out_of_bounds_is_ignored():
    house = House().healthy()
    house.feed(house.alert("DATA_DRIFT", "data"))
    action = msgspec.structs.replace(house.proposals[0].action, params={"value": 7.0})
    house.approve("MODIFIED", action=action)
    assert house.texts("approval") == [
        "verdict MODIFIED ignored: decision_threshold = 7.0 is outside 0.01 to 0.99"
    ]  # fmt: skip


def test_an_escalated_proposal_waits_for_a_person():
    house = firing()
    house.approve("ESCALATED")
    assert house.incident.phase == "ASKED"
    assert house.row(house.proposals[0].action.id).agl_decision is None
    assert house.head.status is Status.MITIGATING
    house.approve()  # the policy again
    assert house.incident.phase == "ASKED"
    house.approve(actor="anna")
    assert len(house.changes) == 1
    row = house.row(house.proposals[0].action.id)
    assert (row.agl_decision, row.decided_by) == ("APPROVED", "anna")


def test_a_person_may_approve_what_the_policy_would_have_modified():
    house = House().healthy()
    house.feed(house.alert("DATA_DRIFT", "data"))
    clamped = msgspec.structs.replace(house.proposals[0].action, params={"value": 0.45})
    house.approve("ESCALATED", action=clamped)
    house.approve(action=clamped, actor="anna")
    assert house.changes[0].changes == {"decision_threshold": 0.45}


def test_an_escalated_proposal_can_be_denied_by_a_person_and_stays_mitigating():
    house = firing()
    house.approve("ESCALATED")
    house.approve("DENIED", actor="anna")
    assert house.row(house.proposals[0].action.id).agl_decision == "DENIED"
    assert house.proposals[1].action.kind is ActionKind.RESTART
    assert house.head.status is Status.MITIGATING


def test_nobody_answers_an_escalated_proposal_within_an_hour():
    house = firing()
    house.approve("ESCALATED")
    assert house.wake == house.now + 3600 * SECOND
    house.feed(at=house.wake)
    assert house.row(house.proposals[0].action.id).agl_decision == "DENIED"
    assert len(house.proposals) == 2


def test_a_silent_policy_is_asked_twice_and_then_a_person():
    house = firing()
    asked = house.now
    assert house.wake == asked + 5 * SECOND
    house.feed(at=house.wake)
    assert house.proposals[1].id != house.proposals[0].id
    assert house.proposals[1].action == house.proposals[0].action
    assert house.proposals[1].plan_hash == house.proposals[0].plan_hash
    assert house.wake == asked + 15 * SECOND
    house.feed(at=house.wake)
    assert house.incident.phase == "ESCALATED"
    assert not house.changes


@pytest.mark.parametrize("which", [0, 1])
def test_either_of_two_proposals_of_one_action_may_be_answered_and_it_is_done_once(which):
    house = firing()
    house.feed(at=house.wake)
    house.approve(proposal=house.proposals[which])
    house.approve(proposal=house.proposals[1 - which])
    assert len(house.changes) == 1
    assert house.texts("approval")[-1] == "verdict APPROVED ignored: nothing is asked"


# --- execution and undo --------------------------------------------------------------------------------


def test_a_change_that_lost_to_another_is_put_out_again_with_the_same_action_id():
    house = firing()
    house.approve()
    for n in range(2):
        house.operator(sampling=0.5 + n / 10)
        house.feed()
    assert [c.base_version for c in house.changes] == [1, 2, 3]
    assert len({c.action_id for c in house.changes}) == 1
    assert len({c.id for c in house.changes}) == 3
    house.feed()
    assert house.incident.phase == "VERIFYING"
    assert house.config.safe_mode == (house.incident.incident_id,)


def test_a_change_that_keeps_losing_is_given_up_after_five_tries():
    house = firing()
    house.approve()
    for n in range(5):
        house.operator(sampling=0.5 + n / 10)
        house.feed()
    assert len(house.changes) == 5
    assert house.proposals[-1].action.kind is ActionKind.RESTART
    assert house.row(house.proposals[0].action.id).result == "FAIL"


def test_a_put_out_again_hold_keeps_the_hold_that_won():
    house = firing()
    house.approve()
    house.operator(safe_mode=["inc-other"])
    house.feed()
    assert house.changes[-1].changes == {"safe_mode": ["inc-other", house.incident.incident_id]}


def test_an_undo_removes_our_hold_only():
    house = firing()
    house.approve()
    house.feed()
    house.operator(safe_mode=[house.incident.incident_id, "inc-other"])
    house.feed()
    house.feed(house.closing(house.incident.incident_id))
    assert house.changes[-1].changes == {"safe_mode": ["inc-other"]}


def test_an_undo_is_known_by_the_config_of_every_task_and_else_a_person_is_asked():
    house = firing()
    house.approve()
    while len(house.changes) < 2:
        house.pane(0)
    house.feed()
    assert house.incident.phase == "UNDOING"
    house.feed(at=house.now + 10 * SECOND)
    assert house.incident.phase == "ESCALATED"
    assert house.row(house.changes[1].action_id).result == "FAIL"


def test_two_changes_of_one_turn_do_not_race_each_other():
    house = House().healthy(versions=("v1", "v2"))
    house.feed(house.alert("LATENCY_SLO_BREACH", id_="a1"), house.alert("DATA_DRIFT", "data", id_="a2"))
    first, second = house.proposals
    house.feed(house.verdict(proposal=first), house.verdict(proposal=second))
    assert [c.base_version for c in house.changes] == [2, 3]
    house.feed()
    assert len(house.changes) == 2
    assert house.config.safe_mode
    assert house.config.decision_threshold == 0.4


# --- pause, budget, locks --------------------------------------------------------------------------------


def test_a_pause_blocks_a_remedy_but_not_an_undo():
    house = firing()
    house.approve()
    house.feed()
    house.operator(healing_paused=True)
    while len(house.changes) == 1:
        house.pane(slow=60, ms=900.0)
    house.panes(8, slow=60, ms=900.0)
    assert house.row(house.changes[1].action_id).result == "SUCCESS"
    assert house.incident.phase == "LOGGED"
    assert len(house.proposals) == 1
    house.operator(healing_paused=False)
    house.feed()
    assert house.proposals[1].action.kind is ActionKind.RESTART


def test_a_yes_that_comes_during_a_pause_waits_for_its_end():
    house = firing()
    house.operator(healing_paused=True)
    house.feed()
    house.approve()
    assert not house.changes
    assert house.wake is None
    house.operator(healing_paused=False)
    house.feed()
    assert len(house.changes) == 1


def test_a_no_that_only_means_paused_does_not_use_up_the_rung():
    house = firing()
    house.operator(healing_paused=True)
    house.feed()
    house.approve("DENIED")
    assert house.incident.phase == "PLANNED"
    house.operator(healing_paused=False)
    house.feed()
    assert [p.action.id for p in house.proposals] == [house.proposals[0].action.id] * 2
    house.approve()
    assert len(house.changes) == 1


def test_nothing_is_proposed_while_paused():
    house = House().healthy()
    house.operator(healing_paused=True)
    house.feed()
    house.feed(house.alert("LATENCY_SLO_BREACH"))
    assert house.incident.phase == "LOGGED"
    assert not house.proposals


def test_the_budget_of_an_hour_ends_in_an_escalation():
    house = firing(actions_per_hour=1)
    house.approve()
    house.panes(9)
    house.feed(house.alert("AGENT_DOWN", "model-0", id_="a9", generation=1))
    assert house.incident.phase == "ESCALATED"
    assert len(house.proposals) == 1
    assert "budget" in house.texts("planning")[-1]


def test_one_remedy_at_a_time_for_one_target():
    house = House().healthy(versions=("v1", "v2"))
    house.feed(house.alert("PERF_DROP", "v2", id_="a1"))
    house.feed(house.alert("LATENCY_SLO_BREACH", id_="a2"))
    assert [i.phase for i in house.open] == ["PLANNED", "LOGGED"]
    house.feed(house.alert("AGENT_DOWN", "model-0", id_="a3", generation=1))  # but a dead process is restarted
    assert [p.action.kind for p in house.proposals] == ["ROLLBACK", "RESTART"]
    house.approve(proposal=house.proposals[0])
    house.panes(12, labels=20, errors=4)
    assert "SAFE_MODE_ON" in [p.action.kind for p in house.proposals]


def test_where_two_want_the_same_in_one_turn_the_first_playbook_gets_it():
    house = House().healthy(versions=("v1", "v2"))
    house.feed(house.alert("PERF_DROP", "v2", id_="a1"), house.alert("LATENCY_SLO_BREACH", id_="a2"))
    assert [p.action.kind for p in house.proposals] == ["SAFE_MODE_ON"]


# --- alerts ----------------------------------------------------------------------------------------------------


def test_duplicates_and_reordered_alerts_give_one_incident():
    one = firing()
    many = House().healthy()
    many.panes(2, slow=90, ms=900.0)
    alert = many.alert("LATENCY_SLO_BREACH")
    many.feed(alert, alert)
    many.feed(alert)
    assert len(many.open) == 1
    assert [p.action for p in many.proposals] == [p.action for p in one.proposals]


def test_another_alert_of_the_same_kind_and_subject_attaches():
    house = firing()
    house.feed(house.alert("LATENCY_SLO_BREACH", id_="a2"))
    assert len(house.open) == 1
    assert "another alert attached" in house.texts()[-1]


def test_a_resolved_alert_never_starts_anything_even_if_it_overtakes_its_firing():
    house = House().healthy()
    house.feed(house.alert("LATENCY_SLO_BREACH", state=AlertState.RESOLVED))
    house.feed(house.alert("LATENCY_SLO_BREACH"))
    assert not house.open
    assert not house.proposals


def test_a_repeat_after_the_end_opens_nothing():
    house = firing()
    house.approve()
    house.panes(9)
    house.feed(house.alert("LATENCY_SLO_BREACH"))
    assert not house.open


def test_an_incident_that_recovers_before_anybody_acts_is_resolved_only_with_proof():
    house = firing()
    house.feed(house.alert("LATENCY_SLO_BREACH", state=AlertState.RESOLVED))
    assert house.open
    house.panes(4)
    assert house.open
    house.panes(6)
    assert not house.open
    assert house.head.outcome == "recovered"
    assert house.row(house.proposals[0].action.id).result == "FAIL"
    assert not house.changes
    house.approve()  # too late
    assert not house.changes


def test_no_rung_is_begun_while_the_alerts_are_resolved_until_recovery_had_its_chance():
    house = firing()
    house.feed(house.alert("LATENCY_SLO_BREACH", state=AlertState.RESOLVED))
    house.approve("DENIED")
    assert house.incident.phase == "LOGGED"
    assert len(house.proposals) == 1
    assert house.wake == house.now + 10 * SECOND
    house.feed(at=house.wake)
    assert len(house.proposals) == 2


def test_an_alert_that_fires_and_resolves_in_one_batch_starts_nothing():
    house = House().healthy()
    house.feed(house.alert("LATENCY_SLO_BREACH"), house.alert("LATENCY_SLO_BREACH", state=AlertState.RESOLVED))
    assert house.incident.phase == "LOGGED"
    house.panes(10)
    assert not house.open
    assert not house.proposals


def test_an_alert_that_resolves_and_fires_again_has_not_recovered():
    house = firing()
    house.feed(house.alert("LATENCY_SLO_BREACH", state=AlertState.RESOLVED))
    house.panes(4)
    house.feed(house.alert("LATENCY_SLO_BREACH", id_="a2"))
    house.panes(9)
    assert house.open


def test_latency_that_a_dead_agent_explains_is_its_symptom():
    house = House().healthy()
    house.down("decision-0")
    house.pane()
    house.feed(house.alert("AGENT_DOWN", "decision-0", generation=1))
    house.feed(house.alert("LATENCY_SLO_BREACH", id_="a2"))
    assert len(house.open) == 1
    assert house.steps[-1].data["alert_id"] == "a2"
    house.approve()
    house.feed(house.result("done"))
    house.up("decision-0", 2)
    house.panes(9)
    assert not house.open
    house.feed(house.alert("LATENCY_SLO_BREACH", id_="a3"))  # 3 s have not passed
    assert not house.open
    assert "is a symptom of this" in house.texts()[-1]
    house.feed(house.alert("LATENCY_SLO_BREACH", id_="a2", state=AlertState.RESOLVED))
    house.feed(house.alert("LATENCY_SLO_BREACH", id_="a3", state=AlertState.RESOLVED))
    house.panes(30)
    assert not house.open


def test_a_symptom_that_outlives_its_cause_becomes_an_incident():
    house = House().healthy()
    house.down("decision-0")
    house.pane()
    house.feed(house.alert("AGENT_DOWN", "decision-0", generation=1))
    house.feed(house.alert("LATENCY_SLO_BREACH", id_="a2"))
    house.approve()
    house.feed(house.result("done"))
    house.up("decision-0", 2)
    house.panes(9)
    assert not house.open
    assert house.wake == house.now + 5 * SECOND
    house.feed(at=house.wake)
    assert house.incident.kind == "LATENCY_SLO_BREACH"


def test_a_drop_of_accuracy_during_drift_is_its_symptom():
    house = House().healthy()
    house.feed(house.alert("DATA_DRIFT", "data", id_="a1"))
    house.feed(house.alert("PERF_DROP", "v1", id_="a2"))
    assert [i.kind for i in house.open] == ["DATA_DRIFT"]


def test_late_labels_of_a_version_that_is_not_live_any_more_open_nothing():
    house = House().healthy(versions=("v1", "v2"))
    house.feed(house.alert("PERF_DROP", "v1"))
    assert not house.open


def test_a_dead_process_that_runs_again_is_not_restarted():
    house = House().healthy()
    house.up("decision-0", 2)
    house.pane()
    house.feed(house.alert("AGENT_DOWN", "decision-0", generation=1))
    assert house.incident.phase == "LOGGED"
    house.feed(house.alert("AGENT_DOWN", "decision-0", generation=1, state=AlertState.RESOLVED))
    house.panes(10)
    assert not house.open
    assert house.head.outcome == "recovered"


def test_a_dead_process_of_which_nothing_is_known_is_escalated():
    house = House().healthy()
    house.feed(house.alert("AGENT_DOWN", "decision-9"))
    assert house.incident.phase == "ESCALATED"


# --- people ----------------------------------------------------------------------------------------------------


def test_an_escalated_incident_is_ended_by_a_person():
    house = firing()
    house.approve("DENIED")
    house.approve("DENIED")
    house.feed(house.closing(house.incident.incident_id, "bought a faster machine"))
    assert not house.open
    assert (house.head.status, house.head.outcome) == (Status.FAILED, "unresolved")
    assert house.steps[-1].memory.mttr_seconds is None
    assert any("bought a faster machine" in text for text in house.texts())


def test_what_a_person_has_mended_is_resolved_by_the_person():
    house = firing()
    house.approve("DENIED")
    house.approve("DENIED")
    house.panes(10)  # well again, though the alert has not said so
    house.feed(house.closing(house.incident.incident_id))
    assert (house.head.status, house.head.outcome) == (Status.RESOLVED, "person")


@pytest.mark.parametrize("phase", ["PLANNED", "ASKED", "EXECUTING", "VERIFYING"])
def test_a_person_may_end_an_incident_in_any_phase_and_what_was_done_is_undone(phase):
    house = firing()
    if phase == "ASKED":
        house.approve("ESCALATED")
    if phase in ("EXECUTING", "VERIFYING"):
        house.approve()
    if phase == "VERIFYING":
        house.feed()
    assert house.incident.phase == phase
    house.feed(house.closing(house.incident.incident_id))
    house.panes(4)
    assert not house.open
    assert (house.head.status, house.head.outcome) == (Status.FAILED, "unresolved")
    assert house.config.safe_mode == ()
    assert not house.state.incidents


def test_an_escalated_incident_whose_alert_resolves_recovers_with_proof():
    house = firing()
    house.approve("DENIED")
    house.approve("DENIED")
    house.feed(house.alert("LATENCY_SLO_BREACH", state=AlertState.RESOLVED))
    house.panes(10)
    assert (house.head.status, house.head.outcome) == (Status.RESOLVED, "recovered")


# --- proof ----------------------------------------------------------------------------------------------------


def test_missing_data_is_no_cure():
    house = firing()
    house.approve()
    house.panes(3)
    house.panes(12, 0)
    assert house.open
    assert house.incident.phase == "VERIFYING"


def test_events_of_the_old_config_prove_nothing():
    house = firing()
    house.approve()
    house.feed()
    before = house.config.version - 1
    for _ in range(12):
        house.serve(200, arm="live", config=before)
        house.pane(0)
    assert house.open


def test_fewer_than_200_events_are_no_proof():
    house = firing()
    house.approve()
    house.panes(12, 5)
    assert house.open
    house.panes(10, 5)
    assert not house.open


def bad_version_without_labels_before(**alert):
    house = House()
    house.operator(model_version="v1", model_digest="d-v1")
    house.feed()
    house.operator(model_version="v2", model_digest="d-v2")
    house.feed()
    house.panes(2, labels=10, errors=5)
    fired = house.alert("PERF_DROP", "v2", limit=alert["limit"])
    house.feed(msgspec.structs.replace(fired, statistic=alert["statistic"]))
    house.approve()
    return house


def test_without_a_known_error_level_accuracy_is_never_proven():
    house = bad_version_without_labels_before(statistic="accuracy", limit=0.75)
    house.panes(20, labels=50, errors=1)
    assert house.open


@pytest.mark.parametrize(("errors", "proven"), [(5, True), (15, False)])
def test_the_detectors_limit_stands_in_for_an_error_level_that_nobody_knows(errors, proven):
    house = bad_version_without_labels_before(statistic="error_share", limit=0.2)
    house.panes(20, labels=50, errors=errors)
    assert house.open != proven


def test_a_window_of_proof_grows_only_while_its_versions_serve():
    house = House().healthy(versions=("v1", "v2"))
    house.feed(house.alert("PERF_DROP", "v2"))
    house.approve()
    house.panes(2, labels=100, errors=20)
    house.operator(model_version="v3", model_digest="d-v3")
    house.panes(12, labels=100, errors=20)
    assert house.open


def test_a_house_without_traffic_has_no_owner_that_could_prove_anything():
    house = House()
    house.tasks = {}
    house.feed(house.alert("LATENCY_SLO_BREACH"))
    house.approve()
    house.panes(4, 0)
    assert house.open


def test_the_chain_shows_any_change_of_any_step():
    house = firing()
    house.approve()
    assert chain.broken(house.steps) is None
    for i in range(len(house.steps)):
        forged = list(house.steps)
        forged[i] = msgspec.structs.replace(forged[i], text="nothing happened")
        assert chain.broken(forged) == i
        assert chain.broken(house.steps[:i] + house.steps[i + 1 :]) == (i if i + 1 < len(house.steps) else None)


def test_the_plan_hash_is_of_the_canonical_json():
    a = Action(id="x", kind=ActionKind.RESTART, target="model-0", params={"b": 1, "a": 2})
    b = Action(id="x", kind=ActionKind.RESTART, target="model-0", params={"a": 2, "b": 1})
    assert hashes.plan_hash(a) == hashes.plan_hash(b)
    assert hashes.canonical(a) == b'{"id":"x","kind":"RESTART","params":{"a":2,"b":1},"target":"model-0"}'


def test_a_tick_is_harmless():
    house = firing()
    steps = len(house.steps)
    for _ in range(3):
        assert house.feed() == []
    assert len(house.steps) == steps


def test_the_state_stays_small():
    house = firing()
    house.approve()
    house.panes(9)
    house.panes(200)
    from mendstream.contracts import state as plain

    assert len(plain.encode(house.state)) < 10_000
    assert house.tasks["decision/0"].state is TaskState.OK


def test_an_owner_that_still_runs_the_old_config_proves_nothing():
    house = firing()
    house.approve()
    house.panes(8)
    house.now += 250_000
    house.serve(100)
    vitals = house.vitals()
    behind = tuple(
        msgspec.structs.replace(task, config=1 if task.task == "decision/1" else task.config) for task in vitals.tasks
    )
    house.feed(msgspec.structs.replace(vitals, tasks=behind))
    assert house.open
    house.pane()
    assert not house.open


def test_vitals_that_come_twice_or_late_change_nothing():
    house = firing()
    house.approve()
    house.pane()
    old = house.vitals()
    house.panes(3)
    before = [held.until_us for held in house.state.marks]
    assert house.feed(old, house.state.vitals) == []
    assert [held.until_us for held in house.state.marks] == before
    assert house.state.vitals.pane > old.pane


def test_a_change_that_the_knobs_refuse_fails_with_its_reason():
    house = firing()
    house.approve()
    house.coming = [msgspec.structs.replace(house.coming[0], changes={"safe_mode": 7})]
    house.feed()
    assert house.proposals[-1].action.kind is ActionKind.RESTART
    assert "safe_mode must be a list of strings" in house.texts("execution")[-1]
