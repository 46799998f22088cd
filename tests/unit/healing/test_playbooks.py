"""Each playbook end to end, on literal records."""

from __future__ import annotations

import pytest
from tests.unit.healing.house import PANE, SECOND, House

from mendstream.agents.healing.playbooks import PLAYBOOKS, WAY_BACK
from mendstream.contracts.knobs import Mode
from mendstream.contracts.records import ActionKind, AlertKind, AlertState, Status, TaskState


def slow_model(house, **kwargs):
    """Two slow panes, then the alert."""
    house.panes(2, slow=90, ms=900.0)
    return house.feed(house.alert("LATENCY_SLO_BREACH", **kwargs))


def test_every_incident_type_of_the_brief_has_one_playbook():
    assert sorted(p.answers for p in PLAYBOOKS) == sorted(AlertKind)


@pytest.mark.parametrize("playbook", [*PLAYBOOKS, WAY_BACK], ids=lambda p: p.name)
def test_every_last_measure_of_a_rung_is_checked_and_every_measure_says_its_price(playbook):
    for rung in playbook.rungs:
        assert rung.measures[-1].check is not None
        for measure in rung.measures:
            assert measure.effect
            assert measure.cost > 0
            if measure.check:
                assert measure.check.timeout_us > measure.check.settle_us


def test_a_slow_model_is_healed_by_safe_mode_and_seven_steps_tell_of_it():
    house = House().healthy()
    slow_model(house)
    assert [p.action.kind for p in house.proposals] == [ActionKind.SAFE_MODE_ON]  # in the turn of the alert
    assert house.head.status is Status.OPEN
    assert house.proposals[0].undo.kind is ActionKind.SAFE_MODE_OFF
    assert house.incident.incident_id.startswith("inc-")

    house.approve()
    (change,) = house.changes  # in the turn of the verdict
    assert change.changes == {"safe_mode": [house.incident.incident_id]}
    assert (change.action_id, change.incident_id) == (house.proposals[0].action.id, house.incident.incident_id)
    assert change.approval.startswith("v/")
    assert house.head.status is Status.MITIGATING

    took = 0
    while house.open:
        house.pane()
        took += 1
        assert took < 20
    assert house.config.mode is Mode.SAFE_MODE
    assert took == 9  # one pane to be visible, eight of proof
    assert [s.step for s in house.steps if s.step != "execution"] == [
        "detection", "logging", "planning", "approval", "verification", "memory",
    ]  # fmt: skip
    assert house.head.status is Status.RESOLVED
    assert house.head.outcome == "mitigated"
    row = house.row(house.proposals[0].action.id)
    assert (row.result, row.agl_decision, row.executed_at_us) == ("SUCCESS", "APPROVED", change.at_us)
    memory = house.steps[-1].memory
    assert memory.action_taken == "SAFE_MODE_ON"
    assert memory.mttr_seconds == (house.head.resolved_at_us - house.head.detected_at_us) / 1e6


def test_a_backlog_that_drains_slowly_restarts_the_window_of_proof():
    house = House().healthy()
    slow_model(house)
    house.approve()
    house.panes(4, slow=50, ms=500.0)
    assert house.incident.phase == "VERIFYING"
    house.panes(7)
    assert house.incident.phase == "VERIFYING"
    house.pane()
    assert not house.open


def test_if_safe_mode_does_not_help_the_slow_process_is_restarted():
    house = House().healthy()
    slow_model(house)
    house.approve()
    while house.incident.phase == "VERIFYING" or not house.changes[1:]:
        house.pane(slow=60, ms=900.0)
    undo = house.changes[1]
    assert undo.changes == {"safe_mode": []}
    assert undo.action_id == f"{house.proposals[0].action.id}.undo"
    assert house.row(house.proposals[0].action.id).result == "FAIL"
    while len(house.proposals) == 1:
        house.pane(slow=60, ms=900.0)
    assert house.row(undo.action_id).result == "SUCCESS"
    assert house.proposals[1].action.kind is ActionKind.RESTART
    assert house.proposals[1].action.target == "model-0"
    assert house.proposals[1].action.params == {"generation": 1}
    house.approve()
    assert house.commands[-1].generation == 1
    house.feed(house.result("done"))
    assert house.proposals[2].action.target == "model-1"  # both partitions were slow
    house.approve()
    house.feed(house.result("done"))
    house.up("model-0", 2)
    house.up("model-1", 2)
    house.panes(9)
    assert not house.open
    assert house.head.outcome == "mitigated"
    assert {c.action_id for c in house.commands} == {p.action.id for p in house.proposals[1:]}
    assert house.row(house.proposals[1].action.id).result == "SUCCESS"
    assert house.row(house.proposals[2].action.id).result == "SUCCESS"
    assert "SAFE_MODE_ON did not help" in house.steps[-1].memory.incident_summary


def test_only_the_process_of_the_slow_partition_is_restarted():
    house = House().healthy()
    house.operator(safe_mode=["inc-other"])
    house.feed()
    for _ in range(2):
        house.serve(100, slow=90, ms=900.0, task="decision/1")
        house.pane(0)
        house.serve(100, task="decision/0")
    house.serve(100, slow=90, ms=900.0, task="decision/1")
    house.pane(0)
    house.feed(house.alert("LATENCY_SLO_BREACH"))
    assert [(p.action.kind, p.action.target) for p in house.proposals] == [("RESTART", "model-1")]


def test_a_bad_model_is_rolled_back_and_excluded():
    house = House().healthy(versions=("v1", "v2"))
    house.panes(8, labels=50, errors=20)
    house.feed(house.alert("PERF_DROP", "v2", value=0.4, limit=0.25))
    action = house.proposals[0].action
    assert (action.kind, action.params) == ("ROLLBACK", {"version": "v1", "digest": "d-v1", "bad_version": "v2"})
    assert house.head.cause == "deploy"
    house.approve()
    assert house.changes[0].changes == {
        "model_version": "v1", "model_digest": "d-v1", "excluded_models": ["v2"],
    }  # fmt: skip
    house.panes(8, labels=5, errors=1)
    assert house.incident.phase == "VERIFYING"  # 80 labels
    house.serve(0, labels=100, errors=50, model="v2", arm="live", config=2)  # late labels of the bad one do not count
    house.pane(labels=20, errors=4)
    assert not house.open
    assert house.head.outcome == "mitigated"
    assert house.config.model_version == "v1"


def test_rollback_skips_excluded_versions_and_without_any_safe_mode_is_next():
    house = House().healthy(5, versions=("v0", "v1", "v2"))
    house.operator(excluded_models=["v1"])
    house.feed()
    house.panes(4)
    house.feed(house.alert("PERF_DROP", "v2"))
    assert house.proposals[0].action.params["version"] == "v0"

    alone = House().healthy()
    alone.feed(alone.alert("PERF_DROP", "v1"))
    assert [(p.action.kind, p.rung) for p in alone.proposals] == [("SAFE_MODE_ON", 2)]
    assert any("does not apply" in text for text in alone.texts("planning"))


def test_a_rollback_that_makes_it_worse_is_undone_at_once_and_the_second_rung_helps():
    house = House().healthy(versions=("v1", "v2"))
    house.panes(4, labels=50, errors=20)
    house.feed(house.alert("PERF_DROP", "v2"))
    house.approve()
    done = house.now
    while len(house.changes) == 1:
        house.pane(labels=50, errors=35)
    assert house.now - done <= 1.5 * SECOND  # the guard looks after one second
    undo = house.changes[1]
    assert undo.changes == {"model_version": "v2", "model_digest": "d-v2", "excluded_models": []}
    assert any("made it worse" in text for text in house.texts("verification"))
    house.pane(labels=50, errors=20)
    assert house.row(undo.action_id).result == "SUCCESS"
    assert house.row(undo.action_id).is_undo
    assert house.proposals[-1].action.kind is ActionKind.SAFE_MODE_ON
    house.approve()
    house.panes(10, labels=20, errors=4)
    assert not house.open
    assert house.head.outcome == "mitigated"


def test_an_undo_leaves_a_newer_change_of_the_same_knob_alone():
    house = House().healthy(versions=("v1", "v2"))
    house.feed(house.alert("PERF_DROP", "v2"))
    house.approve()
    house.panes(2, labels=50, errors=10)
    house.operator(model_version="v3", model_digest="d-v3")
    while house.incident.phase == "VERIFYING":
        house.pane(labels=0)  # no labels for v1 any more: no proof
    assert len(house.changes) == 1
    assert any("needs no undo" in text for text in house.texts())
    assert house.config.model_version == "v3"


def dead_agent(house):
    house.down("decision-0")
    house.pane()
    return house.feed(house.alert("AGENT_DOWN", "decision-0", value=-9, limit=0, generation=1))


def test_a_dead_agent_is_restarted_and_known_to_be_well_by_what_it_serves():
    house = House().healthy()
    dead_agent(house)
    assert house.proposals[0].action.params == {"generation": 1}
    assert house.proposals[0].undo is None
    house.approve()
    assert (house.commands[0].addressee, house.commands[0].target) == ("supervisor", "decision-0")
    house.feed(house.result("done"))
    house.panes(12)
    assert house.incident.phase == "VERIFYING"  # decision-0 is still down: no data from every owner
    house.up("decision-0", 2)
    house.panes(8)
    assert house.open
    house.pane()
    assert not house.open
    assert house.head.outcome == "mitigated"
    assert house.head.cause == "infrastructure"


def test_what_an_owner_served_proves_nothing_of_the_one_after_it():
    house = House().healthy()
    dead_agent(house)
    house.approve()
    house.feed(house.result("done"))
    house.up("decision-0", 2)
    house.panes(8)
    house.up("decision-0", 3)  # the whole house was started again
    house.panes(8)
    assert house.open
    house.pane()
    assert house.head.outcome == "mitigated"


def test_events_that_waited_for_the_dead_agent_delay_the_proof_while_they_are_slow():
    house = House().healthy()
    dead_agent(house)
    house.approve()
    house.feed(house.result("done"))
    house.up("decision-0", 2)
    house.panes(12, slow=90, ms=3000.0)
    assert house.open
    house.pane()
    assert not house.open


def test_a_restart_that_the_supervisor_had_done_already_counts_as_recovery():
    house = House().healthy()
    dead_agent(house)
    house.approve()
    house.feed(house.result("refused", "stale: generation 1 was named, 2 is there", generation=2))
    house.up("decision-0", 2)
    house.panes(9)
    assert not house.open
    assert house.head.outcome == "recovered"
    assert house.row(house.proposals[0].action.id).result == "FAIL"


def dies_again(house, generation, *, id_):
    """The judge ends the alert about the generation before, and raises one about this."""
    before = house.incident.firing[-1]
    house.feed(
        house.alert("AGENT_DOWN", "decision-0", id_=before, state=AlertState.RESOLVED),
        house.alert("AGENT_DOWN", "decision-0", id_=id_, value=-9, limit=0, generation=generation),
    )


def restarted(house, generation):
    """Approved and done: `generation` runs, for now."""
    house.approve()
    house.feed(house.result("done", f"generation {generation} runs", generation=generation))
    house.pane()


def test_a_process_that_dies_again_while_its_restart_is_being_proven_is_restarted_at_once():
    house = House().healthy()
    dead_agent(house)
    restarted(house, 2)
    assert house.incident.phase == "VERIFYING"
    died = house.now
    dies_again(house, 2, id_="a2")  # vitals have never shown generation 2: it was dead before it owned a task
    assert house.now == died
    first, second = (p.action for p in house.proposals)
    assert (second.kind, second.target, second.params) == ("RESTART", "decision-0", {"generation": 2})
    assert second.id != first.id
    assert len(house.commands) == 1, "it has a verdict of its own"
    restarted(house, 3)
    assert house.commands[1].generation == 2
    house.up("decision-0", 3)
    house.panes(10)
    assert not house.open
    assert house.head.outcome == "mitigated"
    assert [house.row(action.id).result for action in (first, second)] == ["FAIL", "SUCCESS"]


def test_what_was_served_before_the_second_death_was_known_proves_nothing():
    house = House().healthy()
    dead_agent(house)
    restarted(house, 2)
    house.up("decision-0", 2)
    house.panes(8)
    assert house.open
    house.now += 250_000
    house.serve(100)
    house.feed(
        house.vitals_at(house.now),
        house.alert("AGENT_DOWN", "decision-0", id_="a2", value=-9, limit=0, generation=2),
    )
    assert house.head.status is Status.MITIGATING
    assert house.proposals[-1].action.params == {"generation": 2}


def test_a_repeat_of_a_death_that_was_answered_starts_nothing_new():
    house = House().healthy()
    dead_agent(house)
    restarted(house, 2)
    house.feed(house.alert("AGENT_DOWN", "decision-0", id_="a2", generation=1))
    house.feed(house.alert("AGENT_DOWN", "decision-0", id_="a2", generation=1, state=AlertState.RESOLVED))
    assert house.incident.phase == "VERIFYING"
    assert len(house.proposals) == 1


def test_a_second_death_that_is_over_already_starts_nothing_new():
    house = House().healthy()
    dead_agent(house)
    restarted(house, 2)
    house.feed(
        house.alert("AGENT_DOWN", "decision-0", id_="a2", generation=2),
        house.alert("AGENT_DOWN", "decision-0", id_="a2", generation=2, state=AlertState.RESOLVED),
    )
    assert house.incident.phase == "VERIFYING"
    assert len(house.proposals) == 1


def test_a_process_that_dies_after_every_restart_is_left_to_a_person_after_four():
    house = House().healthy()
    dead_agent(house)
    for generation in (2, 3, 4, 5):
        restarted(house, generation)
        dies_again(house, generation, id_=f"a{generation}")
    assert [command.generation for command in house.commands] == [1, 2, 3, 4]
    assert house.incident.phase == "ESCALATED"
    assert house.steps[-1].data["tried"][-1] == "RESTART 4 times in vain"
    assert {house.row(p.action.id).result for p in house.proposals} == {"FAIL"}


def test_a_denied_restart_after_a_second_death_ends_the_rung():
    house = House().healthy()
    dead_agent(house)
    restarted(house, 2)
    dies_again(house, 2, id_="a2")
    house.approve("DENIED")
    assert house.incident.phase == "ESCALATED"
    assert len(house.commands) == 1


def test_a_second_death_is_restarted_only_after_a_pause():
    house = House().healthy()
    dead_agent(house)
    restarted(house, 2)
    house.operator(healing_paused=True)
    house.feed()
    dies_again(house, 2, id_="a2")
    assert house.incident.phase == "LOGGED"
    assert len(house.proposals) == 1
    house.operator(healing_paused=False)
    house.feed()
    assert house.proposals[1].action.params == {"generation": 2}


@pytest.mark.parametrize(("outcome", "detail"), [("failed", "no memory"), ("refused", "no such process")])
def test_a_restart_that_fails_is_escalated_to_a_person(outcome, detail):
    house = House().healthy()
    dead_agent(house)
    house.approve()
    house.feed(house.result(outcome, detail))
    assert house.incident.phase == "ESCALATED"
    assert house.head.status is Status.MITIGATING
    house.feed(house.closing(house.incident.incident_id))
    assert house.head.status is Status.FAILED
    assert house.head.outcome == "unresolved"


def test_a_restart_without_any_answer_times_out():
    house = House().healthy()
    dead_agent(house)
    house.approve()
    assert house.wake == house.now + 10 * SECOND
    house.feed(at=house.wake)
    assert house.incident.phase == "ESCALATED"


def drifted(house):
    house.drift = {"v1": (0.4, 500)}
    house.panes(4, labels=50, errors=14)
    return house.feed(house.alert("DATA_DRIFT", "data", value=0.4, limit=0.1, feature_1="dep_delay"))


def through_training(house):
    drifted(house)
    house.approve()
    house.pane(labels=50, errors=14)
    house.approve()
    house.pane(labels=50, errors=14)
    house.feed(house.result("done", version="v2", digest="d-v2", schema_ok=True, rows=1500))


def test_drift_is_healed_by_retraining_through_gate_and_shadow():
    house = House().healthy()
    before = drifted(house)[-1].at_us
    assert house.proposals[0].action.params == {"value": 0.4, "before": 0.5}
    house.approve()
    assert house.changes[0].changes == {"decision_threshold": 0.4}
    house.feed()  # the change is folded: the next measure follows at once
    retrain = house.proposals[1].action
    assert (retrain.kind, retrain.target) == ("RETRAIN", "trainer")
    assert retrain.params["since_us"] == before - SECOND
    assert retrain.params["min_rows"] == 1500
    assert retrain.params["incident_id"] == house.incident.incident_id
    house.approve()
    assert house.commands[0].addressee == "trainer"
    house.panes(4, labels=50, errors=14)
    house.feed(house.result("done", version="v2", digest="d-v2", schema_ok=True))
    assert house.proposals[2].action.params == {"version": "v2", "digest": "d-v2"}
    house.approve()
    assert house.changes[1].changes == {"shadow_version": "v2", "shadow_digest": "d-v2"}
    for _ in range(3):
        house.serve(100, labels=50, errors=10, arm="shadow", model="v2", task="model/0")
        house.pane(labels=50, errors=14)
    assert len(house.proposals) == 3  # 150 labels on the shadow
    for _ in range(2):
        house.serve(100, labels=50, errors=10, arm="shadow", model="v2", task="model/0")
        house.pane(labels=50, errors=14)
    assert house.row(house.proposals[2].action.id).result == "SUCCESS"
    assert house.proposals[3].action.params == {"version": "v2", "digest": "d-v2", "threshold": 0.5}
    house.approve()
    assert house.changes[2].changes == {
        "model_version": "v2", "model_digest": "d-v2", "shadow_version": "", "shadow_digest": "",
        "decision_threshold": 0.5,
    }  # fmt: skip
    house.drift["v2"] = (0.02, 100)
    house.panes(12, labels=50, errors=10)
    assert house.open  # too few events against the new reference
    house.drift["v2"] = (0.02, 256)
    house.pane(labels=50, errors=10)
    assert not house.open
    assert house.config.model_version == "v2"
    assert house.config.decision_threshold == 0.5
    assert house.steps[-1].memory.action_taken == "SET_THRESHOLD+RETRAIN+SHADOW+PROMOTE"
    assert all(house.row(p.action.id).result == "SUCCESS" for p in house.proposals)


def test_a_new_reference_alone_cures_no_drift():
    house = House().healthy()
    through_training(house)
    house.approve()
    for _ in range(5):
        house.serve(100, labels=50, errors=14, arm="shadow", model="v2", task="model/0")
        house.pane(labels=50, errors=14)
    house.approve()
    house.drift = {"v2": (0.01, 500)}
    house.pane(labels=50, errors=14)
    while house.open and house.incident.phase == "VERIFYING":
        house.pane(labels=50, errors=14)  # 28 % errors, 20 % before the drift
    assert house.changes[-1].changes["model_version"] == "v1"
    house.panes(6, labels=50, errors=14)
    assert house.incident.phase == "ESCALATED"
    assert (house.config.model_version, house.config.shadow_version) == ("v1", "")
    assert house.config.decision_threshold == 0.5


def test_a_shadow_that_is_worse_than_the_live_model_is_never_promoted():
    house = House().healthy()
    through_training(house)
    house.approve()
    while house.open and house.incident.phase != "ESCALATED":
        house.serve(100, labels=20, errors=10, arm="shadow", model="v2", task="model/0")
        house.pane(labels=20, errors=6)
    assert {p.action.kind for p in house.proposals} == {"SET_THRESHOLD", "RETRAIN", "SHADOW"}
    assert house.config.shadow_version == ""
    assert house.config.decision_threshold == 0.5


@pytest.mark.parametrize("data", [{"schema_ok": False}, {}, {"schema_ok": True, "digest": ""}])
def test_a_model_of_another_schema_or_without_a_digest_is_not_even_tried(data):
    house = House().healthy()
    drifted(house)
    house.approve()
    house.feed()
    house.approve()
    house.feed(house.result("done", **({"version": "v2", "digest": "d-v2"} | data)))
    assert len(house.proposals) == 2
    house.panes(2)
    assert house.incident.phase == "ESCALATED"
    assert house.config.decision_threshold == 0.5


def test_too_few_labels_for_training_end_the_rung():
    house = House().healthy()
    drifted(house)
    house.approve()
    house.feed()
    house.approve()
    house.feed(house.result("failed", "too few labels: 40 of 1500"))
    house.panes(2)
    assert house.incident.phase == "ESCALATED"
    assert any("too few labels" in text for text in house.texts("execution"))


def test_a_denied_threshold_does_not_keep_the_house_from_retraining():
    house = House().healthy()
    drifted(house)
    house.approve("DENIED")
    assert [p.action.kind for p in house.proposals] == ["SET_THRESHOLD", "RETRAIN"]
    assert house.row(house.proposals[0].action.id).agl_decision == "DENIED"


def resolved_by_safe_mode(**params):
    house = House(**params).healthy()
    slow_model(house)
    house.approve()
    house.panes(9)
    assert not house.open
    house.feed(house.alert("LATENCY_SLO_BREACH", state=AlertState.RESOLVED))
    return house


def test_safe_mode_ends_when_the_probes_have_been_healthy_long_enough():
    house = resolved_by_safe_mode()
    holder = house.back.incident_id
    for _ in range(8):  # the model is still slow: every probe says so
        house.probe = [house.probe[0] + 1, house.probe[1] + 1]
        house.pane()
    assert len(house.proposals) == 1
    healthy = house.now
    while len(house.proposals) == 1:
        house.probe[0] += 1
        house.pane()
    assert 5 * SECOND <= house.now - healthy <= 5.5 * SECOND
    assert (house.proposals[1].action.kind, house.proposals[1].rung) == ("SAFE_MODE_OFF", 0)
    assert house.proposals[1].action.params == {"holder": holder}
    house.approve()
    assert house.changes[-1].changes == {"safe_mode": []}
    house.panes(9)
    assert not house.state.incidents
    assert house.config.mode is Mode.NORMAL
    assert house.head.status is Status.RESOLVED
    assert house.head.outcome == "mitigated; released"
    assert house.row(house.proposals[1].action.id).result == "SUCCESS"
    assert {s.incident.status for s in house.steps if s.data.get("way_back")} == {Status.RESOLVED}
    assert len([s for s in house.steps if s.memory]) == 1


def test_a_way_back_that_makes_it_slow_again_is_undone_and_backs_off():
    house = resolved_by_safe_mode()
    while len(house.proposals) == 1:
        house.probe[0] += 1
        house.pane()
    house.approve()
    house.pane(slow=50, ms=900.0)
    assert house.changes[-1].changes == {"safe_mode": [house.back.incident_id]}
    house.feed(house.alert("LATENCY_SLO_BREACH", id_="a2"))  # its consequence opens nothing
    assert not house.open
    house.pane()
    assert house.back.phase == "LOGGED"
    held = house.now
    house.feed(house.alert("LATENCY_SLO_BREACH", id_="a2", state=AlertState.RESOLVED))
    while len(house.proposals) == 2:
        house.probe[0] += 1
        house.pane()
    assert 10 * SECOND <= house.now - held <= 11 * SECOND
    assert house.proposals[2].action.id != house.proposals[1].action.id
    assert house.head.status is Status.RESOLVED


def test_an_alert_during_the_way_back_puts_the_hold_back_at_once():
    house = resolved_by_safe_mode()
    while len(house.proposals) == 1:
        house.probe[0] += 1
        house.pane()
    house.approve()
    house.pane()
    house.feed(house.alert("LATENCY_SLO_BREACH", id_="a2"))
    assert house.changes[-1].changes == {"safe_mode": [house.back.incident_id]}
    assert not house.open


def test_a_hold_that_somebody_else_lifts_ends_the_way_back():
    house = resolved_by_safe_mode()
    house.operator(safe_mode=[])
    house.pane()
    assert not house.state.incidents
    assert len(house.proposals) == 1


def test_a_hold_against_a_bad_model_is_released_once_another_version_is_live():
    house = House().healthy()
    house.feed(house.alert("PERF_DROP", "v1"))
    house.approve()
    house.panes(10, labels=20, errors=4)
    assert not house.open
    house.panes(40, labels=20, errors=4)
    assert len(house.proposals) == 1
    house.operator(model_version="v2", model_digest="d-v2")
    house.pane()
    assert house.proposals[-1].action.kind is ActionKind.SAFE_MODE_OFF


def test_the_proof_needs_every_current_owner_of_a_decision_task():
    house = House(partitions=2).healthy()
    slow_model(house)
    house.approve()
    for _ in range(16):
        house.serve(200, task="decision/0")
        house.pane(0)
    assert house.incident.phase == "VERIFYING"
    house.panes(9)
    assert not house.open


@pytest.mark.parametrize("resumed", [True, False])
def test_what_was_served_before_healing_began_again_proves_nothing_alone(resumed):
    """The whole house may have been started again with it, and serve quite otherwise now."""
    house = House().healthy()
    slow_model(house)
    house.approve()
    house.panes(8)
    assert house.incident.phase == "VERIFYING"
    house.serve(100)
    house.now += PANE
    house.feed(house.vitals(), at=house.now + 3 * SECOND, resumed=resumed)
    assert bool(house.open) is resumed
    house.panes(2)
    assert not house.open


def test_a_partition_that_never_had_a_key_owes_no_proof():
    house = House(partitions=1).healthy()
    house.own("decision/1", "decision-1", 1)
    slow_model_on = [house.serve(100, slow=90, ms=900.0, task="decision/0") for _ in range(2)]
    assert slow_model_on
    house.pane(0)
    house.feed(house.alert("LATENCY_SLO_BREACH"))
    house.approve()
    for _ in range(10):
        house.serve(100, task="decision/0")
        house.pane(0)
    assert not house.open


def test_an_owner_that_is_not_well_proves_nothing():
    house = House().healthy()
    slow_model(house)
    house.approve()
    house.panes(4)
    house.own("decision/1", "decision-1", 1, state=TaskState.STUCK)
    house.panes(10)
    assert house.open
