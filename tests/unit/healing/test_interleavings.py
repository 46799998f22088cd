"""Two incidents at a time, and random interleavings of alerts, verdicts, vitals, answers, people and time: what must
never happen does not.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.healing.house import SECOND, House

from mendstream.agents.healing.due import ACTIVE, held
from mendstream.agents.healing.turn import Turn
from mendstream.contracts.agent import Outputs
from mendstream.contracts.incident import MOVES, Phase
from mendstream.contracts.records import AlertState

SUBJECTS = {"LATENCY_SLO_BREACH": "model", "PERF_DROP": "v2", "AGENT_DOWN": "decision-0", "DATA_DRIFT": "data"}

alerts = st.tuples(
    st.just("alert"),
    st.sampled_from(sorted(SUBJECTS)),
    st.integers(0, 2),
    st.sampled_from(list(AlertState)),
    st.sampled_from([1, 1, 1, 2, 3]),
)
verdicts = st.tuples(
    st.just("verdict"),
    st.sampled_from(["APPROVED"] * 8 + ["MODIFIED", "DENIED", "ESCALATED", "EXPIRED"]),
    st.sampled_from(["policy"] * 4 + ["anna"]),
    st.sampled_from([1, 1, 1, 1, 2, 3]),
    st.sampled_from([False] * 5 + [True]),
)
results = st.tuples(
    st.just("result"), st.sampled_from(["done"] * 5 + ["failed", "refused", "unknown"]), st.booleans(), st.booleans()
)
panes = st.tuples(
    st.just("panes"), st.integers(1, 12), st.sampled_from([0, 0, 60]), st.sampled_from([0, 10, 30]), st.booleans()
)
people = st.tuples(st.just("people"), st.sampled_from(["close", "pause", "resume", "resume", "model", "holds"]))
world = st.tuples(st.just("world"), st.sampled_from(["down", "up"]), st.integers(1, 40))
moves = st.lists(
    st.one_of(alerts, verdicts, verdicts, verdicts, results, panes, panes, people, world), min_size=5, max_size=40
)


def obey(house: House, verdicts: dict, op: tuple) -> None:
    match op:
        case ("alert", kind, n, state, generation):
            house.feed(house.alert(kind, SUBJECTS[kind], id_=f"{kind}{n}", state=state, generation=generation))
        case ("verdict", kind, actor, back, late):
            if len(house.proposals) >= back:
                asked = house.proposals[-back]
                expires = house.now if late else house.now + 30 * SECOND
                verdict = house.verdict(kind, proposal=asked, actor=actor, expires_at_us=expires)
                if kind in ("APPROVED", "MODIFIED") and not late:
                    verdicts[verdict.id] = verdict
                house.feed(verdict, *([verdict] if late else []))
        case ("result", outcome, good, stale):
            if house.commands:
                data = {"version": "v9", "digest": "d-v9", "schema_ok": good}
                house.feed(house.result(outcome, "stale" if stale else "", **data))
        case ("panes", count, slow, errors, shadow):
            for _ in range(count):
                if shadow and house.config.shadow_version:
                    house.serve(50, labels=50, errors=errors, arm="shadow", model="v9", task="model/0")
                house.probe[0] += 1
                house.pane(100, slow=slow, ms=900.0 if slow else 10.0, labels=50, errors=errors)
        case ("people", "close"):
            if house.open:
                house.feed(house.closing(house.open[0].incident_id))
        case ("people", "pause" | "resume" as word):
            house.operator(healing_paused=word == "pause")
            house.feed()
        case ("people", "model"):
            house.operator(model_version="v3", model_digest="d-v3")
            house.feed()
        case ("people", "holds"):
            house.operator(safe_mode=[])
            house.feed()
        case ("world", "down", _):
            house.down("decision-0")
            house.pane()
        case ("world", "up", seconds):
            house.up("decision-0", 2)
            house.feed(at=house.now + seconds * SECOND)


def check(house: House, verdicts: dict) -> None:
    for change in house.changes:
        verdict = verdicts[change.approval]
        assert change.action_id.removesuffix(".undo") == verdict.action_id
    for command in house.commands:
        assert any(v.action_id == command.action_id and v.incident_id == command.incident_id for v in verdicts.values())
    assert max(Counter(command.action_id for command in house.commands).values(), default=0) <= 1
    assert max(Counter(change.action_id for change in house.changes).values(), default=0) <= 5
    one_remedy_a_target(house)
    assert len({(i.kind, i.subject) for i in house.open}) == len(house.open)


def one_remedy_a_target(house: House) -> None:
    turn = Turn(house.now, house.config, house.agent.params, house.state, Outputs("t"), house.config.version)
    acting = [held(incident, turn) for incident in house.state.incidents.values() if incident.phase in ACTIVE]
    assert sum(len(keys) for keys in acting) == len(frozenset().union(*acting))


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(moves)
def test_nothing_illegal_nothing_unapproved_nothing_twice_and_everything_ends(ops):
    house = House().healthy(3, versions=("v1", "v2"), labels=20, errors=4)
    verdicts: dict = {}
    for op in ops:
        obey(house, verdicts, op)
        check(house, verdicts)
    house.operator(healing_paused=False)
    house.feed()
    for _ in range(12):  # a person ends whatever is open
        for incident in house.open:
            house.feed(house.closing(incident.incident_id))
        house.pane()
        house.feed(at=house.now + 11 * SECOND)
    assert not house.open
    steps_of: dict = {}
    for step in house.steps:
        steps_of.setdefault(step.incident.incident_id, []).append(step)
    for steps in steps_of.values():
        ends = [s for s in steps if s.memory]
        assert len(ends) == 1
        phases = [Phase(s.phase) for s in steps if not s.data.get("way_back")]
        for now, to in pairwise(phases):
            assert now is to or _reachable(now, to)


def _reachable(now: Phase, to: Phase) -> bool:
    """Some moves are made in one turn without a step between them."""
    return to in MOVES[now] or any(to in MOVES[between] for between in MOVES[now])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(sorted(SUBJECTS)), st.integers(0, 3)), max_size=12), st.booleans())
def test_resolved_alerts_and_ticks_start_nothing(found, tick):
    house = House().healthy(2)
    for kind, n in found:
        house.feed(house.alert(kind, SUBJECTS[kind], id_=f"{kind}{n}", state=AlertState.RESOLVED))
        if tick:
            house.feed(at=house.now + SECOND)
    assert not house.steps
    assert not house.proposals


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=8))
def test_any_number_and_order_of_alerts_of_one_illness_gives_one_incident_and_the_same_plan(ids):
    house = House().healthy(2)
    alerts = [house.alert("LATENCY_SLO_BREACH", id_=f"a{n}") for n in ids]
    house.feed(*alerts)
    for alert in reversed(alerts):
        house.feed(alert)
    assert len(house.open) == 1
    assert [p.action.kind for p in house.proposals] == ["SAFE_MODE_ON"]


# --- two incidents whose remedies hide one another ---------------------------------------------------------------


def of(house, kind):
    (found,) = [incident for incident in house.open if incident.kind == kind]
    return found


def held_against_a_slow_model():
    """v2 is live and slow; a hold of SAFE_MODE has cured that, and its way back waits for fast probes."""
    house = House().healthy(versions=("v1", "v2"))
    house.panes(2, slow=90, ms=900.0)
    house.feed(house.alert("LATENCY_SLO_BREACH", id_="slow"))
    house.approve()
    house.panes(9)
    house.feed(house.alert("LATENCY_SLO_BREACH", id_="slow", state=AlertState.RESOLVED))
    assert not house.open
    assert house.config.safe_mode == (house.back.incident_id,)
    return house


def rolled_back_behind_it():
    """v2 is bad too: rolled back while rules decide, so that nothing shows whether that has helped."""
    house = held_against_a_slow_model()
    house.feed(house.alert("PERF_DROP", "v2", id_="bad"))
    house.approve()
    house.panes(4)
    assert house.config.model_version == "v1"
    assert house.incident.phase == "VERIFYING"
    return house


def test_a_rollback_waits_for_its_proof_while_another_incident_holds_safe_mode():
    house = rolled_back_behind_it()
    assert f"waits: SAFE_MODE is held by {house.back.incident_id}" in house.texts("verification")[-1]
    house.panes(100)  # 25 s, with a time-out of 20 s
    assert house.incident.phase == "VERIFYING"
    assert len(house.changes) == 2
    while len(house.proposals) == 2:  # the version that is live now is fast
        house.probe[0] += 1
        house.pane()
    assert house.proposals[2].action.kind == "SAFE_MODE_OFF"
    house.approve()
    for _ in range(12):
        one_remedy_a_target(house)
        house.pane(labels=20, errors=4)
    assert not house.state.incidents
    assert house.config.model_version == "v1"
    assert {head.incident_id: head.outcome for head in (s.incident for s in house.steps)} == {
        house.proposals[0].incident_id: "mitigated; released",
        house.proposals[1].incident_id: "mitigated",
    }


def test_a_proof_that_stays_hidden_ends_all_the_same():
    house = rolled_back_behind_it()
    done = house.now
    limit = house.agent.params.hidden_us_max + 20 * SECOND
    while house.now - done < limit - 3 * SECOND:
        house.probe = [house.probe[0] + 1, house.probe[1] + 1]  # it never becomes fast
        house.pane()
    assert house.incident.phase == "VERIFYING"
    assert done < house.wake <= done + limit
    while house.incident.phase == "VERIFYING":
        house.probe = [house.probe[0] + 1, house.probe[1] + 1]
        house.pane()
    assert house.now - done <= limit
    assert house.changes[2].changes["model_version"] == "v2"
    assert any("60.0 s more it was hidden" in text for text in house.texts("verification"))


def test_a_time_out_goes_on_where_it_stood_when_the_hold_is_gone():
    house = rolled_back_behind_it()
    house.panes(100)
    house.operator(safe_mode=[])
    house.pane(0)
    assert "ROLLBACK can be proven again" in house.texts("verification")
    seen = house.now
    while house.incident.phase == "VERIFYING":
        house.pane(labels=0)  # visible, but without labels: no proof
    assert 15 * SECOND < house.now - seen <= 20 * SECOND


def test_what_was_served_before_a_proof_was_hidden_does_not_lengthen_its_window():
    house = House().healthy(versions=("v1", "v2"))
    house.feed(house.alert("PERF_DROP", "v2", id_="bad"))
    house.approve()
    house.panes(4, labels=40, errors=8)  # one second, and labels enough
    house.operator(safe_mode=["anna"])
    house.panes(8)
    house.operator(safe_mode=[])
    house.panes(2, labels=20, errors=4)
    assert house.incident.phase == "VERIFYING"  # and two seconds of it, from then on
    house.panes(9, labels=20, errors=4)
    assert not house.open


def test_a_way_back_and_a_remedy_that_is_not_hidden_by_it_wait_for_each_other():
    house = held_against_a_slow_model()
    while len(house.proposals) == 1:
        house.probe[0] += 1
        house.pane()
    house.approve()
    house.feed(house.alert("PERF_DROP", "v2", id_="bad"))
    house.panes(4, labels=20, errors=4)
    assert house.back.phase == "VERIFYING"
    assert house.incident.phase == "LOGGED"
    house.panes(6, labels=20, errors=4)
    assert house.proposals[-1].action.kind == "ROLLBACK"


def test_a_bad_model_is_held_off_although_another_hold_of_safe_mode_is_on_and_will_go():
    house = held_against_a_slow_model()
    slow = house.back.incident_id
    house.operator(excluded_models=["v1"])
    house.feed()
    house.feed(house.alert("PERF_DROP", "v2", id_="bad"))
    bad = house.incident.incident_id
    assert house.proposals[-1].action.params == {"holder": bad}
    house.approve()
    house.panes(12, labels=20, errors=4)
    assert not house.open
    assert house.config.safe_mode == (slow, bad)
    while house.proposals[-1].action.kind != "SAFE_MODE_OFF":  # it is fast again, and as bad as before
        house.probe[0] += 1
        house.pane(labels=20, errors=4)
    house.approve()
    house.panes(12, labels=20, errors=4)
    assert house.config.safe_mode == (bad,)


def test_a_restarted_process_that_dies_is_restarted_though_the_first_restart_is_still_being_proven():
    house = House().healthy()
    house.panes(2, slow=90, ms=900.0)
    house.feed(house.alert("LATENCY_SLO_BREACH", id_="slow"))
    house.approve("DENIED")  # no SAFE_MODE: the next rung restarts the processes of the model
    for _ in range(2):
        house.approve()
        house.feed(house.result("done"))
    slow = of(house, "LATENCY_SLO_BREACH")
    assert slow.phase == "VERIFYING"
    house.up("model-0", 2)
    house.up("model-1", 2)
    house.pane(slow=90, ms=900.0)
    house.down("model-0")
    house.feed(house.alert("AGENT_DOWN", "model-0", id_="dead", generation=2))
    assert house.proposals[-1].action.params == {"generation": 2}
    house.approve()
    house.feed(house.result("done"))
    house.up("model-0", 3)
    house.panes(30)
    assert not house.open
    assert len(house.ended()) == 2


def slow_and_then_dead(**evidence):
    """SAFE_MODE is being proven when a process of the pipeline dies."""
    house = House().healthy()
    house.panes(2, slow=90, ms=900.0)
    house.feed(house.alert("LATENCY_SLO_BREACH", id_="slow"))
    house.approve()
    house.panes(2)
    house.down("decision-0")
    house.backlog = 500
    house.feed(house.alert("AGENT_DOWN", "decision-0", id_="dead", generation=1, **evidence))
    assert of(house, "LATENCY_SLO_BREACH").phase == "VERIFYING"
    return house


def test_a_death_does_not_make_safe_mode_look_worse_or_useless():
    house = slow_and_then_dead(reason="exit")
    house.approve()
    house.feed(house.result("done"))
    house.panes(40, slow=90, ms=5000.0)  # 10 s, with a time-out of 8 s; what waited is far slower than the fault was
    assert of(house, "LATENCY_SLO_BREACH").phase == "VERIFYING"
    assert "waits: decision-0 is dead" in "".join(house.texts("verification"))
    house.up("decision-0", 2)
    house.backlog = 0
    house.panes(24)
    assert not house.open
    assert len(house.changes) == 1
    assert len(house.ended()) == 2


def test_a_process_that_only_seems_stuck_does_not_hide_that_the_remedy_made_it_worse():
    house = slow_and_then_dead(reason="no-progress")
    house.panes(12, slow=100, ms=5000.0)
    assert any("SAFE_MODE_ON made it worse" in text for text in house.texts("verification"))


def test_a_death_that_nobody_answers_hides_nothing():
    house = House().healthy()
    house.panes(2, slow=90, ms=900.0)
    house.feed(house.alert("LATENCY_SLO_BREACH", id_="slow"))
    house.approve()
    house.panes(2)
    house.operator(healing_paused=True)
    house.feed()
    house.down("decision-0")
    house.feed(house.alert("AGENT_DOWN", "decision-0", id_="dead", generation=1, reason="exit"))
    house.panes(32, 0)  # 8 s
    assert any("SAFE_MODE_ON did not help" in text for text in house.texts("verification"))


def test_two_deaths_do_not_wait_for_one_another():
    house = House().healthy()
    for process in ("decision-0", "decision-1"):
        house.down(process)
        house.feed(house.alert("AGENT_DOWN", process, id_=process, generation=1, reason="exit"))
        house.approve()
        house.feed(house.result("done"))
    house.panes(62, 0)  # neither comes back in 15 s
    assert [incident.phase for incident in house.open] == ["ESCALATED", "ESCALATED"]


def test_what_waited_for_a_dead_process_does_not_make_safe_mode_look_worse_when_it_is_back():
    house = slow_and_then_dead(reason="exit")
    house.approve()
    house.feed(house.result("done"))
    house.panes(4, slow=90, ms=5000.0)
    house.up("decision-0", 2)
    house.panes(10, slow=10, ms=500.0)
    house.pane()
    assert house.incident.kind == "LATENCY_SLO_BREACH", "the restart is proven, SAFE_MODE is not"
    house.panes(8, slow=100, ms=5000.0)
    assert house.incident.phase == "VERIFYING"
    house.backlog = 0
    house.panes(16)
    assert not house.open
    assert len(house.changes) == 1


def test_a_remedy_that_shows_in_what_the_rules_decide_too_is_not_hidden_by_a_hold():
    house = House().healthy()
    house.operator(safe_mode=["anna"])
    house.feed()
    house.panes(2, slow=90, ms=900.0)
    house.feed(house.alert("LATENCY_SLO_BREACH", id_="slow"))
    for _ in range(2):
        house.approve()
        house.feed(house.result("done"))
    house.up("model-0", 2)
    house.up("model-1", 2)
    house.panes(82, slow=90, ms=900.0)  # 20 s
    assert house.incident.phase == "ESCALATED"


def test_a_death_that_a_person_is_asked_about_hides_nothing_for_longer():
    house = slow_and_then_dead(reason="exit")
    house.approve("DENIED")
    assert of(house, "AGENT_DOWN").phase == "ESCALATED"
    house.panes(36, 0)
    assert house.proposals[-1].action.kind == "RESTART"
    assert of(house, "LATENCY_SLO_BREACH").rung == 2


def test_a_promotion_waits_for_a_rollback_of_the_same_knob_and_its_undo_leads_to_what_that_put_in_place():
    house = House().healthy(versions=("v1", "v2"))
    house.drift = {"v2": (0.4, 500), "v1": (0.02, 500), "v3": (0.02, 500)}
    house.feed(house.alert("PERF_DROP", "v2", id_="bad"))
    house.feed(house.alert("DATA_DRIFT", "data", id_="drift", feature_1="dep_delay"))
    rollback = house.proposals[0]
    house.feed(house.verdict("DENIED", proposal=house.proposals[1]))  # no other threshold meanwhile
    house.approve()
    house.feed(house.result("done", version="v3", digest="d-v3", schema_ok=True))
    house.approve()
    for _ in range(6):
        house.serve(100, labels=50, errors=10, arm="shadow", model="v3", task="model/0")
        house.pane(labels=50, errors=20)
    drift = of(house, "DATA_DRIFT")
    assert (drift.n, drift.act_done) == (3, True), "it has passed the gate and waits for the model"
    assert house.proposals[-1].action.kind == "SHADOW"
    house.approve(proposal=rollback)
    house.panes(12, labels=20, errors=4)
    assert [i.kind for i in house.open] == ["DATA_DRIFT"]
    promotion = house.proposals[-1]
    assert promotion.action.params["version"] == "v3"
    assert promotion.undo.params["version"] == "v1"
    house.approve()
    house.panes(8, labels=50, errors=40)  # worse: taken back
    assert house.config.model_version == "v1"
    assert house.config.excluded_models == ("v2",)
