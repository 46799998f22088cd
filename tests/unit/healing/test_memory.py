"""Memory: similar cases by their features, and the cause that change history suggests."""

from __future__ import annotations

from tests.unit.healing.house import SECOND, House

from mendstream.agents.healing.memory import similar, told
from mendstream.agents.healing.state import Case


def case(name, kind="LATENCY_SLO_BREACH", action="SAFE_MODE_ON", **features):
    return Case(name, kind, "infrastructure", action, "mitigated", 3.1, features)


def test_of_two_cases_of_one_type_the_one_with_the_same_cause_ranks_first():
    model_slow = case("inc-model", slow_share=0.9, backlog_log=0.0, minutes_since_change=40.0)
    overload = case("inc-load", action="RESTART", slow_share=0.5, backlog_log=9.0, minutes_since_change=45.0)
    for memories in ([model_slow, overload], [overload, model_slow]):
        asked = {"slow_share": 0.85, "backlog_log": 0.5, "minutes_since_change": 43.0}
        assert similar(memories, "LATENCY_SLO_BREACH", asked)[0].case is model_slow
        asked = {"slow_share": 0.55, "backlog_log": 8.0, "minutes_since_change": 41.0}
        assert similar(memories, "LATENCY_SLO_BREACH", asked)[0].case is overload


def test_the_feature_that_moved_tells_two_drifts_apart():
    delay, weather = (
        case("inc-1", psi_max=0.4, **{"is:feature/3": 1.0}),
        case("inc-2", psi_max=0.41, **{"is:feature/9": 1.0}),
    )
    assert similar([delay, weather], "LATENCY_SLO_BREACH", {"psi_max": 0.41, "is:feature/3": 1.0})[0].case is delay


def test_a_case_of_another_type_is_no_help_however_alike():
    other, same = case("inc-1", kind="PERF_DROP", slow_share=0.9), case("inc-2", slow_share=0.1)
    found = similar([other, same], "LATENCY_SLO_BREACH", {"slow_share": 0.9}, 2)
    assert [held.case.incident_id for held in found] == ["inc-2"]


def test_among_equals_the_newest_comes_first_and_none_are_no_error():
    old, new = case("inc-1", slow_share=0.9), case("inc-2", slow_share=0.9)
    assert similar([old, new], "LATENCY_SLO_BREACH", {"slow_share": 0.9})[0].case is new
    assert similar([], "LATENCY_SLO_BREACH", {"slow_share": 0.9}) == []
    assert similar([case("inc-3")], "LATENCY_SLO_BREACH", {"slow_share": 0.9})[0].case.incident_id == "inc-3"


def test_a_case_is_told_in_a_few_words():
    found = similar([case("inc-1", slow_share=0.9)], "LATENCY_SLO_BREACH", {"slow_share": 0.9})[0]
    assert told(found) == "like inc-1: SAFE_MODE_ON worked in 3.1 s"


def test_the_plan_shows_the_most_similar_case():
    house = House().healthy()
    house.panes(2, slow=90, ms=900.0)
    house.feed(house.alert("LATENCY_SLO_BREACH"))
    house.approve()
    house.panes(9)
    first = house.head.incident_id
    house.operator(safe_mode=[])
    house.panes(8)
    house.panes(2, slow=90, ms=900.0)
    house.feed(house.alert("LATENCY_SLO_BREACH", id_="a2"))
    planning = [step for step in house.steps if step.step == "planning"][-1]
    assert f"like {first}: SAFE_MODE_ON worked in 2." in planning.text
    assert planning.data["similar"]["incident_id"] == first


def test_a_case_of_another_type_is_not_shown():
    house = House().healthy()
    house.state.cases.append(case("inc-0", kind="PERF_DROP", slow_share=0.9))
    house.feed(house.alert("LATENCY_SLO_BREACH"))
    assert "like inc-0" not in house.texts("planning")[-1]


def test_memory_keeps_the_newest_cases_only():
    house = House(memories=3, actions_per_hour=0).healthy()
    for n in range(5):
        house.feed(house.alert("LATENCY_SLO_BREACH", id_=f"a{n}"))
        house.feed(house.closing(house.incident.incident_id))
    assert len(house.state.cases) == 3


def test_a_model_changed_within_a_minute_before_is_the_probable_cause():
    house = House().healthy(5, versions=("v1", "v2"))
    house.feed(house.alert("PERF_DROP", "v2"))
    assert house.head.cause == "deploy"

    later = House().healthy(5, versions=("v1", "v2"))
    later.now += 61 * SECOND
    later.feed(later.alert("PERF_DROP", "v2"))
    assert later.head.cause == "data"


def test_the_first_model_ever_is_no_deployment():
    house = House().healthy(5)
    house.feed(house.alert("LATENCY_SLO_BREACH"))
    assert house.head.cause == "infrastructure"
