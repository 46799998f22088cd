"""Each detector on literal panes, and what all of them must do."""

import numpy as np
import pytest
from tests.unit.monitoring.given import T0, card, ended, hist, pulse, pulses

from mendstream.agents.monitoring.detectors import BRIEF_DETECTORS, DETECTORS, detectors_for
from mendstream.agents.monitoring.detectors.accuracy import Accuracy
from mendstream.agents.monitoring.detectors.brief import AccuracyBelow, DriftAbove, NoHeartbeat, SlowInARow
from mendstream.agents.monitoring.detectors.drift import Drift
from mendstream.agents.monitoring.detectors.latency import Latency
from mendstream.agents.monitoring.distances import Bins, distances
from mendstream.agents.monitoring.settings import JudgeSettings
from mendstream.agents.monitoring.view import DriftLook, PaneView
from mendstream.agents.monitoring.watch import Watch
from mendstream.contracts import state as states
from mendstream.contracts.errors import SettingsError
from mendstream.contracts.records import PANE_US

P0 = T0 // PANE_US
ALL = DETECTORS + BRIEF_DETECTORS


def latency(*parts):
    """Sum of (ms, n)."""
    return sum((np.array(hist(ms, n)) for ms, n in parts), np.zeros(24, dtype=int))


def view(
    place=0, *, slow=0, n=0, model_ms=None, backlog=0, labels=(0, 0), model="v1", known=None, drift=None, watch=None
):
    return PaneView(
        pane=P0 + place, now=T0 + (place + 1) * PANE_US + 150_000, watch=watch or Watch(), backlog=backlog,
        latency=latency((5, n - slow), (450, slow)), labels=labels, model=model, card=known, drift=drift,
        model_ms=latency((model_ms, n)) if model_ms else latency(),
    )  # fmt: skip


def told(detector, views):
    """For each view: True firing, False resolved, None no opinion (one subject)."""
    state, said = detector.start(), []
    for v in views:
        state, findings = detector.step(state, v, v.now)
        said.append(findings[-1].firing if findings else None)
    return said


# --- latency ---------------------------------------------------------------------------------------------------------


def test_latency_fires_on_the_third_pane_when_every_event_is_slow():
    views = [view(i, n=125, slow=125 if i >= 2 else 0) for i in range(6)]
    assert told(Latency(), views) == [None, None, None, None, True, True]


def test_latency_fires_on_the_second_pane_when_the_model_is_what_is_slow():
    assert told(Latency(), [view(i, n=125, slow=125, model_ms=400) for i in range(2)]) == [None, True]


def test_latency_forgives_one_or_two_slow_panes_again_and_again():
    pattern = [125, 125, 0, 0] * 50 + [125, 0] * 50
    assert True not in told(Latency(), [view(i, n=125, slow=slow) for i, slow in enumerate(pattern)])


def test_latency_sees_a_slow_model_whose_batches_come_out_every_other_pane():
    pattern = [200, 0, 200, 0, 200]
    said = told(
        Latency(), [view(i, n=n, slow=n, model_ms=400 if n else None, backlog=300) for i, n in enumerate(pattern)]
    )
    assert said == [None, None, True, True, True]


def test_latency_wants_more_than_a_handful_of_events():
    assert True not in told(Latency(), [view(i, n=2, slow=2) for i in range(15)])
    assert True in told(Latency(), [view(i, n=2, slow=2) for i in range(40)])


def test_latency_resolves_after_two_good_seconds():
    views = [view(i, n=125, slow=125) for i in range(4)] + [view(4 + i, n=125) for i in range(9)]
    assert told(Latency(), views) == [None, None, True, True, True, *[None] * 6, False, False]


def test_latency_says_nothing_of_what_a_new_process_found_waiting():
    watch = Watch()
    watch.wake(T0, resumed=False)
    watch.hear(pulse("model-0", T0))
    watched = Latency(watched=("model",))
    assert told(watched, [view(i, n=125, slow=125, watch=watch) for i in range(4)]) == [None] * 4


def test_a_slo_must_be_an_edge_of_a_bucket():
    with pytest.raises(SettingsError, match="no edge"):
        JudgeSettings(slo_ms=310)


# --- accuracy --------------------------------------------------------------------------------------------------------


def errors_of(dice, levels, labels=125):
    return [(labels, int(dice.binomial(labels, level))) for level in levels]


def accuracy_views(stream, known):
    return [view(i, labels=pair, known=known) for i, pair in enumerate(stream)]


def test_accuracy_finds_a_doubled_error_share_within_two_seconds_or_so():
    delays = []
    for seed in range(20):
        stream = errors_of(np.random.default_rng(seed), [0.10] * 40 + [0.20] * 40)
        said = told(Accuracy(), accuracy_views(stream, card(error_level=0.105, error_phi=2.0)))
        assert True not in said[:40]
        delays.append((said[40:].index(True) + 1) * 0.25)
    assert float(np.median(delays)) <= 2.25
    assert max(delays) <= 4.5


@pytest.mark.parametrize("seed", range(5))
def test_accuracy_stays_silent_for_ten_minutes_of_a_healthy_stream_of_good_and_bad_days(seed):
    dice = np.random.default_rng(seed)
    days = np.clip(dice.normal(0.10, 0.02, 400), 0, 1)  # a day of 900 events lasts 1.8 s
    levels = [days[int(i * 0.25 / 1.8)] for i in range(2400)]
    said = told(Accuracy(), accuracy_views(errors_of(dice, levels), card(error_level=0.105, error_phi=2.0)))
    assert True not in said


def test_accuracy_is_back_when_enough_labels_are_good_again():
    dice = np.random.default_rng(3)
    stream = errors_of(dice, [0.40] * 8 + [0.08] * 10)
    said = told(Accuracy(), accuracy_views(stream, card()))
    assert said.count(False) == 1
    assert said.index(False) - 8 in (6, 7, 8), "800 labels are 6.4 panes"


def test_accuracy_does_not_flap_while_the_model_stays_bad():
    stream = errors_of(np.random.default_rng(4), [0.20] * 600)
    said = told(Accuracy(), accuracy_views(stream, card(error_level=0.11)))
    assert False not in said
    assert said[-1] is True


def test_a_model_that_is_not_live_any_more_is_not_accused():
    detector = Accuracy()
    state = detector.start()
    for i in range(6):
        state, findings = detector.step(state, view(i, labels=(125, 60), known=card("v2"), model="v2"), T0)
    assert (findings[0].subject, findings[0].firing) == ("v2", True)
    state, findings = detector.step(state, view(6, known=card()), T0)
    assert [(f.subject, f.firing) for f in findings] == [("v2", False)]


def test_without_a_card_the_floor_is_expected():
    stream = errors_of(np.random.default_rng(1), [0.22] * 200)
    assert True not in told(Accuracy(), accuracy_views(stream, None))
    assert True in told(Accuracy(), accuracy_views(errors_of(np.random.default_rng(1), [0.35] * 40), None))


# --- liveness --------------------------------------------------------------------------------------------------------


class Alive:
    """A watch and the liveness detector over it."""

    def __init__(self, detector=DETECTORS[0]):
        self.detector = detector
        self.watch, self.state, self.now = Watch(), detector.start(), T0

    def after(self, seconds, *records, step=0.25):
        """Let time pass with steps every `step`, then read `records`: [(subject, firing, reason)] of news."""
        end = self.now + int(seconds * 1e6)
        while self.now < end:
            self.now = min(end, self.now + int(step * 1e6))
            self.watch.wake(self.now, resumed=False)
        for record in records:
            self.watch.see_exit(record) if hasattr(record, "code") else self.watch.hear(record)
        v = PaneView(pane=self.now // PANE_US, now=self.now, watch=self.watch)
        self.state, found = self.detector.step(self.state, v, self.now)
        return {f.subject: (f.firing, f.evidence["reason"]) for f in found}

    def pulses(self, turns, **kwargs):
        return pulses(self.now, turns, **kwargs)


def test_an_exit_fires_at_once_and_is_over_when_the_next_generation_moves():
    alive = Alive()
    alive.after(0.25, *alive.pulses(1, backlog=5))
    assert alive.after(0.05, ended("model-0", T0))["model-0"] == (True, "exit")
    assert alive.after(0.25, *alive.pulses(2, backlog=5))["model-0"] == (True, "exit"), "a pulse read late"
    busy = pulse("model-0", T0, generation=2, turns=2, backlog=500)
    assert "model-0" not in alive.after(0.25, busy), "it has not moved yet"
    moved = pulse("model-0", T0, generation=2, turns=3, backlog=100)
    assert alive.after(0.25, moved)["model-0"] == (False, "moves again")


def test_an_expected_exit_is_no_fault():
    alive = Alive()
    alive.after(0.25, *alive.pulses(1))
    assert "model-0" not in alive.after(3, ended("model-0", T0, expected=True))


def test_an_exit_of_an_older_generation_is_old_news():
    alive = Alive()
    alive.after(0.25, pulse("model-0", T0, generation=3))
    assert alive.after(0.1, ended("model-0", T0, generation=2))["model-0"][0] is False


def test_a_live_process_that_falls_silent_is_stuck_after_a_second_and_a_half():
    alive = Alive()
    alive.after(0.25, *alive.pulses(1))
    assert not any(firing for firing, _ in alive.after(1.25).values())
    assert alive.after(0.25)["model-0"] == (True, "silent")


def test_a_judge_that_slept_accuses_nobody():
    alive = Alive()
    alive.after(0.25, *alive.pulses(1))
    assert not any(firing for firing, _ in alive.after(20, step=20).values())
    assert alive.after(1.5)["model-0"] == (True, "silent"), "awake, it waits as long as ever"


def test_a_resumed_judge_waits_for_processes_that_may_be_gone_for_good():
    alive = Alive()
    alive.after(0.25, *alive.pulses(1))
    alive.watch.wake(alive.now + 250_000, resumed=True)
    assert not any(firing for firing, _ in alive.after(9).values())
    assert alive.after(2)["model-0"] == (True, "silent")


def test_a_task_that_does_not_move_with_rows_waiting_is_stuck():
    alive = Alive()
    alive.after(0.25, *alive.pulses(1))
    for i in range(17):
        stuck = pulse("model-0", T0, turns=7, backlog=100 + i)
        said = alive.after(0.25, *alive.pulses(2 + i, without=("model-0",)), stuck)
    assert said["model-0"] == (True, "no-progress")
    assert said["decision-0"][0] is False


def test_a_stage_that_waits_for_a_later_one_is_not_to_blame():
    alive = Alive()
    for _ in range(20):
        held_up = [pulse(f"{s}-0", T0, turns=7, backlog=3000) for s in ("ingestion", "feature", "model")]
        said = alive.after(0.25, *held_up, pulse("decision-0", T0, turns=7, backlog=10))
    assert [name for name, (firing, _) in said.items() if firing] == ["decision-0"]


def waiting(alive, **more):
    """The first three stages with rows waiting and not moving."""
    return [pulse(f"{s}-0", T0, turns=7, backlog=10, **more) for s in ("ingestion", "feature", "model")]


def test_a_stage_that_waits_for_a_dead_one_is_not_to_blame():
    """What waits for the dead one nobody counts: its last backlog was small."""
    alive = Alive()
    alive.after(0.25, *waiting(alive), pulse("decision-0", T0, turns=7, backlog=0))
    alive.after(0.05, ended("decision-0", T0))
    for _ in range(40):
        said = alive.after(0.25, *waiting(alive))
    assert [name for name, (firing, _) in said.items() if firing] == ["decision-0"]


def test_a_judge_that_has_just_begun_does_not_blame_who_waits_for_one_that_it_never_heard():
    """Nor does it call that one silent yet: it may be gone for good."""
    alive = Alive()
    alive.after(0.25, *waiting(alive), pulse("decision-0", T0, turns=7, backlog=0))
    alive.watch.wake(alive.now + 250_000, resumed=True)
    for _ in range(36):
        said = alive.after(0.25, *waiting(alive))
        assert not any(firing for firing, _ in said.values())
    for _ in range(8):
        said = alive.after(0.25, *waiting(alive))
    assert [name for name, (firing, _) in said.items() if firing] == ["decision-0"]


def test_a_stage_has_its_time_once_the_one_that_it_waited_for_is_back():
    alive = Alive()
    alive.after(0.25, *waiting(alive), pulse("decision-0", T0, turns=7, backlog=0))
    alive.after(0.05, ended("decision-0", T0))
    for _ in range(40):
        alive.after(0.25, *waiting(alive))
    back = pulse("decision-0", T0, generation=2, turns=8)
    for _ in range(12):
        said = alive.after(0.25, *waiting(alive), back)
        assert not any(firing for firing, _ in said.values())
    for _ in range(8):
        said = alive.after(0.25, *waiting(alive), back)
    assert any(firing for firing, _ in said.values()), "its time is not for ever"


def test_ingestion_waits_for_the_slowest_partition():
    alive = Alive()
    for i in range(20):
        said = alive.after(
            0.25,
            pulse("ingestion-0", T0, turns=7, backlog=10),
            pulse("feature-1", T0, turns=i, backlog=5000, tasks=["feature/1"]),
        )
    assert not any(firing for firing, _ in said.values())


def test_a_process_that_was_stopped_and_goes_on_must_be_well_for_a_second():
    alive = Alive()
    for i in range(130):
        alive.after(0.25, *alive.pulses(i))
    for i in range(6):
        said = alive.after(0.25, *alive.pulses(200 + i, without=("model-0",)))
    assert said["model-0"] == (True, "silent")
    said = [alive.after(0.25, *alive.pulses(300 + i)).get("model-0") for i in range(6)]
    assert said == [None, None, None, None, (False, "moves again"), (False, "moves again")]


def test_control_processes_are_the_supervisors_business():
    alive = Alive()
    alive.after(0.25, pulse("judge-0", T0), pulse("healing-0", T0))
    assert alive.after(60, ended("healing-0", T0)) == {}


def test_a_process_whose_tasks_others_own_leaves_the_house():
    alive = Alive()
    alive.after(0.25, *alive.pulses(1))
    fused = pulse("fused-0", T0, tasks=[f"{s}/0" for s in ("ingestion", "feature", "model", "decision")], epoch=9)
    assert not any(firing for firing, _ in alive.after(2, fused).values())
    for _ in range(120):
        said = alive.after(0.25, fused)
    assert said["model-0"] == (False, "gone")


# --- drift -----------------------------------------------------------------------------------------------------------

REFERENCES = card(features=("a", "b", "c", "d")).reference


def look(*windows, model="v1", widths=(8, 16, 32, 64)):
    """Windows as shifts: the share of events of feature `a` that moved to its first bin, at 125 events a pane."""
    rows = []
    for width, shift in zip(widths, windows, strict=False):
        n = width * 125
        even = [n // 16] * 16 + [0]
        moved = [int(v * (1 - shift)) for v in even]
        moved[0] += n // 16 * 16 - sum(moved)
        rows.append(moved + even * 3)
    d = distances(np.array(rows), Bins.of(list(REFERENCES.values())), delta=0.1, alpha=1e-7)
    return DriftLook(model, tuple(REFERENCES), widths[: len(windows)], d)


def test_drift_fires_on_the_second_pane_beyond_the_limit_and_names_what_moved():
    detector, state = Drift(), Drift().start()
    state, findings = detector.step(state, view(0, drift=look(0.5)), T0)
    assert not findings
    state, (finding,) = detector.step(state, view(1, drift=look(0.5)), T0)
    assert finding.firing
    assert (finding.subject, finding.n, finding.evidence["feature_1"]) == ("data", 992, "a")
    assert finding.value > finding.limit > 0.1
    assert {"psi_1", "ks_1", "js_1", "feature_3"} <= set(finding.evidence)


def test_drift_tolerates_a_little_for_ever_and_a_lot_for_one_pane():
    assert True not in told(Drift(), [view(i, drift=look(0.08, 0.08, 0.08, 0.08)) for i in range(50)])
    assert True not in told(Drift(), [view(i, drift=look(0.5 * (i % 2))) for i in range(50)])


def test_drift_is_over_when_every_window_is_calm():
    views = [view(i, drift=look(0.5, 0.5)) for i in range(3)]
    views += [view(3 + i, drift=look(0.0, 0.5 if i < 4 else 0.0)) for i in range(9)]
    said = told(Drift(), views)
    assert said[:7] == [None, True, True, True, True, True, True]
    assert said[-2:] == [False, False]


def test_drift_under_a_new_version_waits_for_its_own_windows():
    detector, state = Drift(), Drift().start()
    for i in range(3):
        state, findings = detector.step(state, view(i, drift=look(0.5)), T0)
    assert findings[0].firing
    state, findings = detector.step(state, view(4, drift=None), T0)
    assert not findings, "a new reference alone cures nothing"
    for i in range(4):
        state, findings = detector.step(state, view(5 + i, drift=look(0.0, model="v2")), T0)
    assert not findings[0].firing


# --- the brief's rules -----------------------------------------------------------------------------------------------


def test_brief_latency_is_a_hundred_slow_events_in_a_row():
    assert told(SlowInARow(), [view(i, n=30, slow=30) for i in range(5)]) == [None, None, None, True, True]
    assert True not in told(SlowInARow(), [view(i, n=125, slow=124) for i in range(20)])


def test_brief_accuracy_is_three_quarters_of_the_last_two_hundred():
    said = told(AccuracyBelow(), [view(i, labels=(50, 12 if i < 6 else 20)) for i in range(10)])
    assert said == [None, None, None, False, False, False, True, True, True, True]


def test_brief_heartbeat_is_thirty_seconds():
    alive = Alive(NoHeartbeat())
    alive.after(0.25, *alive.pulses(1))
    assert alive.after(29.5)["model-0"][0] is False
    assert alive.after(0.5)["model-0"] == (True, "silent")


def test_brief_drift_is_psi_or_ks_above_a_fifth():
    assert told(DriftAbove(), [view(0, drift=look(0.1)), view(1, drift=look(0.3))]) == [False, True]


# --- all of them -----------------------------------------------------------------------------------------------------


def life():
    """A hundred panes with all kinds of trouble."""
    dice = np.random.default_rng(7)
    watch = Watch()
    for i in range(100):
        now = T0 + (i + 1) * PANE_US
        watch.wake(now, resumed=False)
        for p in pulses(now, i, without=("model-0",) if 30 <= i < 50 else (), backlog=int(dice.integers(0, 5))):
            watch.hear(p)
        if i == 70:
            watch.see_exit(ended("feature-0", now))
        n = int(dice.integers(0, 200))
        trouble = 10 <= i < 25 or 60 <= i < 80
        yield view(
            i, n=n, slow=n if trouble else n // 20, labels=(n, n // 2 if trouble else n // 10), known=card(),
            model="v1" if i < 75 else "v2", drift=look(*[0.6 if trouble else 0.0] * 4), watch=watch, backlog=3,
        )  # fmt: skip


@pytest.mark.parametrize("detector", ALL, ids=lambda d: d.name)
@pytest.mark.parametrize("at", [1, 20, 65])
def test_snapshot_and_resume_agree(detector, at):
    state, resumed, fired = detector.start(), None, False
    for i, v in enumerate(life()):
        if i == at:
            resumed = states.decode(states.encode(state), detector.state_type)
        state, findings = detector.step(state, v, v.now)
        if resumed is not None:
            resumed, again = detector.step(resumed, v, v.now)
            assert again == findings
        fired = fired or any(f.firing for f in findings)
    assert states.encode(resumed) == states.encode(state)
    assert fired or detector.name == "no-heartbeat", "the trouble was seen"


@pytest.mark.parametrize("detector", ALL, ids=lambda d: d.name)
def test_a_pane_without_anything_is_harmless(detector):
    assert True not in told(detector, [view(i) for i in range(400)])


@pytest.mark.parametrize("detector", ALL, ids=lambda d: d.name)
def test_a_calm_stream_raises_nothing(detector):
    watch = Watch()

    def calm():
        dice = np.random.default_rng(11)
        for i in range(600):
            now = T0 + (i + 1) * PANE_US
            watch.wake(now, resumed=False)
            for p in pulses(now, i, backlog=3):
                watch.hear(p)
            yield view(
                i, n=125, slow=int(dice.integers(0, 4)), model_ms=3, labels=(125, int(dice.binomial(125, 0.1))),
                known=card(), drift=look(0.02, 0.02, 0.02, 0.02), watch=watch, backlog=12,
            )  # fmt: skip

    assert True not in told(detector, calm())


def test_every_row_has_its_own_name_and_the_brief_covers_the_same_kinds():
    names = [d.name for d in ALL]
    assert len(set(names)) == len(names)
    assert {d.kind for d in DETECTORS} == {d.kind for d in BRIEF_DETECTORS}
    assert [d.name for d in detectors_for(JudgeSettings(rules="brief"))] == [d.name for d in BRIEF_DETECTORS]
