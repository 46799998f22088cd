"""For random facts: the conditions of the shipped policies, written again in Python, against what the engine says."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.policy.house import POLICIES, T0, S, action, calm, proposal, result

from mendstream.agents.policy import rule
from mendstream.contracts.records import VerdictKind

MODELS = ("ROLLBACK", "SHADOW", "PROMOTE")
CONFIG = ("SAFE_MODE_ON", "SAFE_MODE_OFF", "SET_THRESHOLD", *MODELS)
KINDS = ("RESTART", "RETRAIN", *CONFIG)
RESTARTS = st.fixed_dictionaries({"known": st.booleans(), "last_10min": st.integers(0, 5), "limit": st.integers(0, 4)})
THRESHOLD = st.tuples(
    st.integers(0, 10_000) | st.sampled_from([2000, 2500, 5000, 7500, 8000]),
    st.integers(-5000, 20_000) | st.sampled_from([1999, 2000, 4000, 6000, 8000, 8001]),
).map(lambda pair: {"current_bp": pair[0], "proposed_bp": pair[1], "step_bp": abs(pair[0] - pair[1])})
FLAGS = ("is_live", "was_live", "shadowed", "trained", "excluded", "digest_ok", "excludes_other", "threshold_ok")
MODEL = st.fixed_dictionaries({"version": st.sampled_from(["", "v1"])} | {name: st.booleans() for name in FLAGS})
HOUSE = st.fixed_dictionaries(
    {
        "paused": st.booleans(), "data_quality_bad": st.booleans(), "blind": st.booleans(),
        "sick_bp": st.sampled_from([0, 5000, 5001, 10_000]), "open_incidents": st.integers(0, 3),
        "actions_1h": st.integers(0, 3), "actions_1h_limit": st.integers(0, 3),
    }
)  # fmt: skip
PLAN = st.fixed_dictionaries(
    {
        "is_undo": st.booleans(), "impact": st.sampled_from(["low", "medium", "high"]),
        "mode": st.sampled_from(["observe", "ask", "auto"]), "rung": st.integers(0, 4),
    }
)  # fmt: skip


@st.composite
def asked(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    kind = draw(st.sampled_from(KINDS))
    facts = {"house": draw(HOUSE), "plan": draw(PLAN)}
    if kind.startswith("SAFE_MODE"):
        facts["hold"] = {"own": draw(st.booleans())}
    elif kind == "RESTART":
        facts["restarts"] = draw(RESTARTS)
    elif kind == "SET_THRESHOLD":
        facts["threshold"] = draw(THRESHOLD)
    elif kind in MODELS:
        facts["model"] = draw(MODEL)
    return kind, facts


def forbidden(kind: str, facts: dict[str, Any]) -> bool:
    """Whether any forbid's condition holds; shares nothing with the Cedar texts."""
    house, undo = facts["house"], facts["plan"]["is_undo"]
    if not undo and (house["paused"] or facts["plan"]["mode"] == "observe"):
        return True
    match kind:
        case "RESTART":
            return facts["restarts"]["last_10min"] >= facts["restarts"]["limit"]
        case "RETRAIN":
            return house["data_quality_bad"]
        case "ROLLBACK" | "SHADOW" | "PROMOTE":
            model = facts["model"]
            unknown = (kind == "ROLLBACK" and not model["was_live"]) or (
                kind == "PROMOTE" and not (model["trained"] or model["shadowed"] or undo)
            )
            odd = not model["digest_ok"] or model["excludes_other"] or not model["threshold_ok"]
            return unknown or odd or (model["excluded"] and not undo)
        case "SAFE_MODE_ON" | "SAFE_MODE_OFF":
            return not facts["hold"]["own"]
        case _:
            return False


def needs_a_person(kind: str, facts: dict[str, Any]) -> bool:
    house, plan = facts["house"], facts["plan"]
    crowd = kind != "RESTART" and (house["sick_bp"] > 5000 or house["blind"])
    spent = house["actions_1h"] >= house["actions_1h_limit"]
    return not plan["is_undo"] and (plan["mode"] == "ask" or plan["impact"] == "high" or crowd or spent)


def in_bounds(current: int, proposed: int) -> bool:
    return 0 < abs(proposed - current) <= 1000 and 2000 <= proposed <= 8000


@settings(max_examples=600, deadline=None)
@given(asked())
def test_what_a_forbid_covers_is_never_allowed_and_what_needs_a_person_never_approved(case):
    kind, facts = case
    ruling = rule(POLICIES, kind, "model-0", facts)
    if forbidden(kind, facts):
        assert ruling.verdict is VerdictKind.DENIED
    if needs_a_person(kind, facts):
        assert ruling.verdict in (VerdictKind.ESCALATED, VerdictKind.DENIED)
    if kind == "RETRAIN" and not forbidden(kind, facts) and not needs_a_person(kind, facts):
        assert ruling.verdict is VerdictKind.APPROVED
    if kind in CONFIG and facts["plan"]["is_undo"] and not forbidden(kind, facts):
        assert ruling.verdict is VerdictKind.APPROVED
    if ruling.verdict is not VerdictKind.DENIED:
        assert ruling.policies
    assert ruling.reason


@settings(max_examples=400, deadline=None)
@given(HOUSE, PLAN, THRESHOLD)
def test_an_allowed_threshold_is_in_bounds_and_within_a_step(house, plan, threshold):
    ruling = rule(POLICIES, "SET_THRESHOLD", "decision", {"house": house, "plan": plan, "threshold": threshold})
    current, proposed = threshold["current_bp"], threshold["proposed_bp"]
    if ruling.verdict is VerdictKind.DENIED or plan["is_undo"]:
        assert ruling.threshold_bp is None
        return
    allowed = proposed if ruling.threshold_bp is None else ruling.threshold_bp
    assert in_bounds(current, allowed)
    assert (ruling.threshold_bp is None) == in_bounds(current, proposed)
    if ruling.threshold_bp is not None:
        assert (allowed - current) * (proposed - current) > 0  # same direction, and not beyond what was asked
        assert abs(allowed - current) <= abs(proposed - current)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["model-0", "decision-0"]), st.integers(1, 400)), max_size=20))
def test_no_window_of_ten_minutes_ever_sees_a_fourth_restart_of_a_target(asks):
    house, now, granted = calm(vitals_max_age_s=1e6), T0, []
    for n, (target, wait_s) in enumerate(asks):
        now += wait_s * S
        (verdict,) = house.feed(proposal(action("RESTART", target, id=f"a{n}"), f"p{n}", now), now=now)
        if verdict.verdict is VerdictKind.APPROVED:
            granted.append((target, now))
            house.feed(result(f"a{n}", now), now=now)
    for target, at in granted:
        assert sum(other == target and at <= when < at + 600 * S for other, when in granted) <= 3
