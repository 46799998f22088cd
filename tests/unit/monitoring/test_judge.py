"""The judge: panes close, counts become vitals, findings become alerts."""

import numpy as np
import pytest
from tests.unit.monitoring.given import House, Shelf, card, decided, ended, judged, pulse, pulses, scored

from mendstream.agents.monitoring.judge import JudgeAgent
from mendstream.agents.monitoring.settings import JudgeSettings
from mendstream.contracts import state as states
from mendstream.contracts.agent import Agent
from mendstream.contracts.knobs import LiveConfig
from mendstream.contracts.records import PANE_US, Alert, AlertKind, AlertState, TaskState

S = 1_000_000


def kinds(house):
    return [(a.kind, a.state) for a in house.alerts]


def even(n, shift=0.0, bins=16):
    """`n` events over the bins of `card()`, `shift` of them moved to the first."""
    counts = np.full(bins + 1, n * (1 - shift) / bins)
    counts[-1] = 0
    counts[0] += n * shift
    return counts.astype(int)


def served(house, *, n=125, slow=0, labels=125, errors=10, shift=0.0, model_ms=2.0, model="v1", config=1):
    pane = house.pane
    return (
        decided(pane, n, slow=slow, model=model, config=config),
        scored(pane, n, bins=even(n, shift), ms=model_ms, model=model, config=config),
        judged(pane, labels, errors, model=model, config=config),
    )


def test_it_has_the_shape_of_an_agent():
    agent: Agent = JudgeAgent(settings=JudgeSettings(), cards=Shelf())
    assert agent.name == "judge"


def test_a_pane_closes_150_ms_after_its_end():
    house = House()
    end = (house.pane + 1) * PANE_US
    out = house.step(end, *pulses(end, 1), *served(house))
    assert not out.records
    assert out.wake_at_us == end + 150_000
    assert not house.step(end + 149_999).records
    (vitals,) = house.step(end + 150_000).records
    assert (vitals.pane, vitals.n) == (house.pane, 125)


def test_vitals_say_what_was_served_by_which_versions():
    house = House()
    for _ in range(4):
        house.live(*served(house, slow=25))
    house.live(
        *served(house, slow=0),
        scored(house.pane, 7, arm="probe", ms=450),
        scored(house.pane, 125, arm="shadow", model="v2"),
    )
    v = house.vitals[-1]
    assert (v.n, v.rate, v.mode, v.model, v.config) == (125, 500.0, "NORMAL", "v1", 1)
    assert 2 < v.p50_ms <= v.p95_ms <= 5
    assert house.vitals[-2].p95_ms > 400
    assert (v.accuracy, v.labels) == (pytest.approx(0.92), 500)
    live, shadow = v.served
    assert (live.task, live.arm, live.n, live.slow, live.labels, live.errors) == (
        "decision/0",
        "live",
        625,
        100,
        625,
        50,
    )
    assert live.latency_ms_sum == pytest.approx(525 * 3.5 + 100 * 450)
    assert (shadow.task, shadow.model, shadow.arm, shadow.n) == ("model/0", "v2", "shadow", 125)
    ((probe),) = v.probes
    assert (probe.n, probe.slow, probe.arm) == (7, 7, "probe")
    assert [(t.task, t.state, t.process) for t in v.tasks][2] == ("model/0", TaskState.OK, "model-0")


def test_labels_revise_the_row_of_the_version_that_served():
    house = House()
    house.live(*served(house, labels=0, errors=0))
    first = house.pane - 1
    house.live(*served(house, model="v1", config=2), judged(first, 100, 9, revision=2))
    rows = {r.config: (r.n, r.labels, r.errors) for r in house.vitals[-1].served}
    assert rows == {1: (125, 100, 9), 2: (125, 125, 10)}


def test_safe_mode_is_an_arm_of_its_own():
    house = House()
    house.live(decided(house.pane, 125), judged(house.pane, 50, 5))
    house.live(decided(house.pane, 125, arm="fallback", config=2), judged(house.pane, 50, 10, arm="fallback", config=2))
    v = house.vitals[-1]
    assert (v.mode, v.config, v.accuracy) == ("SAFE_MODE", 2, 0.8)
    assert {r.arm: (r.n, r.errors) for r in v.served} == {"live": (125, 5), "fallback": (125, 10)}


def test_a_stopped_pipeline_is_visible():
    house = House()
    house.live(*served(house))
    for _ in range(8):
        house.live()
    assert [v.n for v in house.vitals] == [125] + [0] * 8
    assert house.vitals[-1].rate == 0
    assert [t.state for t in House().live(silent=True).records] == [], "nothing was heard yet: nothing to say"


def test_totals_sent_again_by_a_restarted_task_count_once():
    house = House()
    sent = [decided(house.pane, 100)]
    house.live(*sent)
    sent.append(decided(house.pane, 100, revision=2))
    house.restart()
    house.live(*sent, *sent)
    assert house.vitals[-1].served[0].n == 200


# --- alerts ----------------------------------------------------------------------------------------------------------


def test_a_slow_model_raises_one_alert_and_resolves_it_under_the_same_id():
    house = House()
    for _ in range(12):
        house.live(*served(house))
    onset = house.pane
    for _ in range(6):
        house.live(*served(house, slow=125, model_ms=400))
    for _ in range(10):
        house.live(*served(house))
    fired, resolved = house.alerts
    assert (fired.kind, fired.subject, fired.state) == (AlertKind.LATENCY_SLO_BREACH, "model", AlertState.FIRING)
    assert (resolved.state, resolved.alert_id) == (AlertState.RESOLVED, fired.alert_id)
    assert fired.at_us - onset * PANE_US <= S
    assert fired.evidence["cause"] == "model"
    assert fired.n == 250
    assert len({a.id for a in house.alerts}) == 2


def test_a_worse_model_raises_perf_drop_until_it_is_rolled_back():
    house = House(card("v1"), card("v2"), config=LiveConfig(version=2, model_version="v2"))
    for _ in range(8):
        house.live(*served(house, errors=50, model="v2", config=2))
    house.config = LiveConfig(version=3, model_version="v1")
    for _ in range(4):
        house.live(*served(house, model="v1", config=3))
    assert [(a.subject, a.state) for a in house.alerts] == [("v2", AlertState.FIRING), ("v2", AlertState.RESOLVED)]
    assert house.alerts[0].kind == AlertKind.PERF_DROP


def test_errors_of_the_fallback_are_not_the_models():
    house = House()
    for _ in range(20):
        house.live(decided(house.pane, 125, arm="fallback"), judged(house.pane, 125, 60, arm="fallback"))
    assert not house.alerts


def test_a_death_is_judged_when_it_is_read():
    house = House()
    for _ in range(12):
        house.live(*served(house))
    at = house.now + 20_000
    (alert,) = [r for r in house.step(at, ended("model-0", at)).records if isinstance(r, Alert)]
    assert (alert.kind, alert.subject, alert.at_us) == (AlertKind.AGENT_DOWN, "model-0", at)
    assert {"reason": "exit", "code": -9, "generation": 1, "pid": 1001}.items() <= alert.evidence.items()


def test_a_second_death_is_an_alert_of_its_own_although_the_first_is_still_open():
    house = House()
    for _ in range(12):
        house.live(*served(house))
    house.step(house.now + 10, ended("model-0", house.now))
    house.step(house.now + 20, pulse("model-0", house.now + 20, generation=2, tasks=()))  # it owns nothing yet
    said = house.step(house.now + 30, ended("model-0", house.now + 30, generation=2)).records
    over, new = [r for r in said if isinstance(r, Alert)]
    first = house.alerts[0]
    assert (over.alert_id, over.state) == (first.alert_id, AlertState.RESOLVED)
    assert (new.state, new.evidence["generation"]) == (AlertState.FIRING, 2)
    assert new.alert_id != first.alert_id
    for _ in range(4):  # told again by whoever reads twice, and looked at in every pane
        house.live(ended("model-0", house.now, generation=2), without=("model-0",))
    assert [a.alert_id for a in house.alerts] == [first.alert_id, first.alert_id, new.alert_id]


def test_a_new_process_that_is_silent_while_it_starts_is_no_second_death():
    house = House()
    for _ in range(12):
        house.live(*served(house))
    house.step(house.now + 10, ended("model-0", house.now))
    house.step(house.now + 20, pulse("model-0", house.now + 20, generation=2, tasks=()))
    for _ in range(12):
        house.live(without=("model-0",))
    assert kinds(house) == [(AlertKind.AGENT_DOWN, AlertState.FIRING)]


def test_latency_that_a_death_explains_opens_no_alert_of_its_own():
    house = House()
    for _ in range(12):
        house.live(*served(house))
    house.step(house.now + 10, ended("model-0", house.now))
    for _ in range(6):
        house.live(*served(house, slow=125), without=("model-0",))
    for _ in range(7):
        house.live(
            pulse("model-0", house.now, generation=2, turns=house.turn), *served(house, slow=125), without=("model-0",)
        )
    assert kinds(house) == [(AlertKind.AGENT_DOWN, AlertState.FIRING), (AlertKind.AGENT_DOWN, AlertState.RESOLVED)]
    for _ in range(6):
        house.live(
            pulse("model-0", house.now, generation=2, turns=house.turn), *served(house, slow=125), without=("model-0",)
        )
    assert kinds(house)[-1] == (AlertKind.LATENCY_SLO_BREACH, AlertState.FIRING), "by now it explains nothing"


def test_drift_is_found_within_three_seconds_and_its_rows_name_the_feature():
    house = House(card(features=("a",)))
    for _ in range(24):
        house.live(*served(house))
    onset = house.now
    for _ in range(10):
        house.live(*served(house, shift=0.5))
    (alert,) = house.alerts
    assert (alert.kind, alert.subject) == (AlertKind.DATA_DRIFT, "data")
    assert alert.at_us - onset <= 2 * S
    row = house.vitals[-1].drift[0]
    assert (row.feature, row.model) == ("a", "v1")
    assert row.n == 32 * sum(even(125)) - sum(even(125)) * 10 + sum(even(125, 0.5)) * 10
    assert row.psi > 0
    assert 0 < row.js < row.ks < 1


def test_after_a_promotion_drift_is_judged_on_the_new_versions_panes_only():
    house = House(card("v1"), card("v2"))
    for _ in range(16):
        house.live(*served(house, shift=0.5))
    assert kinds(house) == [(AlertKind.DATA_DRIFT, AlertState.FIRING)]
    house.config = LiveConfig(version=2, model_version="v2")
    for place in range(12):
        house.live(*served(house, model="v2", config=2))
        assert all(row.model == "v2" for row in house.vitals[-1].drift)
        assert bool(house.vitals[-1].drift) == (place >= 7)
    assert kinds(house)[-1] == (AlertKind.DATA_DRIFT, AlertState.RESOLVED)


def test_an_alert_about_old_data_is_never_raised():
    house = House()
    for _ in range(12):
        house.live(*served(house))
    house.step(house.now + 60 * S, ended("model-0", house.now))
    assert not house.alerts


def test_a_death_that_is_old_when_a_late_judge_reads_of_it_is_told_while_nobody_is_back():
    house = House()
    for _ in range(12):
        house.live(*served(house))
    died, late = house.now, house.now + 20 * S
    house.step(late, ended("model-0", died))
    assert not house.alerts, "there may be more to read"
    house.pane = late // PANE_US
    for _ in range(2):
        house.live(without=("model-0",))
    (alert,) = house.alerts
    assert (alert.kind, alert.subject, alert.evidence["reason"]) == (AlertKind.AGENT_DOWN, "model-0", "exit")
    assert alert.window_us[1] > died, "it was still dead then"


def test_a_late_judge_drains_first_and_accuses_nobody():
    house = House()
    for _ in range(12):
        house.live(*served(house))
    start, first = house.now, house.pane
    late = start + 20 * S
    out = house.step(late, *pulses(start + S, 90), *(decided(first + i, 125) for i in range(4)))
    assert out.wake_at_us == late + 50_000
    house.step(late + 50_000, *pulses(late, 99), *(decided(first + i, 125) for i in range(4, 80)))
    house.pane = (late + 50_000) // PANE_US
    house.live(*served(house))
    assert not house.alerts
    assert house.vitals[-1].served[0].n == 12 * 125 + 81 * 125, "what was served while it slept is in the totals"


def test_the_briefs_rules_judge_instead_when_chosen():
    house = House(rules="brief")
    for _ in range(4):
        house.live(*served(house, slow=125))
    assert [a.detector for a in house.alerts] == ["slow-in-a-row"]


# --- state -----------------------------------------------------------------------------------------------------------


def troubled(house, i):
    """A pane of a life with all kinds of trouble."""
    slow = 125 if 20 <= i < 28 else i % 3
    errors = 50 if 40 <= i < 50 else 10
    house.live(
        *served(house, slow=slow, errors=errors, shift=0.6 if 60 <= i < 75 else 0.0),
        without=("model-0",) if 85 <= i < 95 else (),
    )
    if i == 100:
        house.step(house.now + 1, ended("feature-0", house.now))


@pytest.mark.parametrize("at", [1, 24, 48, 70, 92])
def test_snapshot_and_resume_agree(at):
    one, other = House(), House()
    for i in range(110):
        if i == at:
            other.restart()
        troubled(one, i)
        troubled(other, i)
    assert other.records == one.records
    assert states.encode(other.state) == states.encode(one.state)
    assert {a.kind for a in one.alerts} == set(AlertKind), "all that can happen has happened"


def test_a_tick_is_harmless():
    house = House()
    for _ in range(20):
        house.live(*served(house))
    before = states.encode(house.state.ledger)
    out = house.step(house.now + 150_000)
    assert not out.records
    assert states.encode(house.state.ledger) == before


def test_its_state_stays_small():
    house = House(card(features=[f"f{i}" for i in range(12)]))
    for _ in range(700):
        house.live(*served(house))
    assert len(states.encode(house.state)) < 200_000
