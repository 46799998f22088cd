"""Random interleavings of alerts, verdicts, vitals, answers, people and time: what must never happen does not."""

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
    turn = Turn(house.now, house.config, house.agent.params, house.state, Outputs("t"), house.config.version)
    acting = [held(incident, turn) for incident in house.state.incidents.values() if incident.phase in ACTIVE]
    assert sum(len(keys) for keys in acting) == len(frozenset().union(*acting))
    assert len({(i.kind, i.subject) for i in house.open}) == len(house.open)


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
