"""Reading vitals: windows, before-images and the healthy error level."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.healing.house import PANE, SECOND, START, House

from mendstream.agents.healing import served
from mendstream.agents.healing.params import HealingParams
from mendstream.agents.healing.state import Baseline, Mark, Tally, Watch


def test_the_newest_ten_seconds_do_not_count_as_healthy_yet():
    house = House().healthy(12, labels=50, errors=5)
    assert house.state.baseline.aged["v1"] == (8 * 100, 8 * 10)  # of 48 panes, those older than 10 s
    assert len(house.state.baseline.fresh) == 40


def test_nothing_is_learnt_while_an_incident_is_open():
    house = House().healthy(12, labels=50, errors=5)
    house.feed(house.alert("LATENCY_SLO_BREACH"))
    before = house.state.baseline.aged["v1"]
    house.panes(20, labels=50, errors=40)
    assert house.state.baseline.aged["v1"] == before


@pytest.mark.parametrize(
    ("good", "bad", "level"),
    [
        ("v1", "v2", 0.1),  # what the version that is to serve did
        ("v0", "v2", 0.1),  # nothing known of it: all but the bad one
        ("v1", "", 0.1),
        ("v2", "v2", 0.1),  # never the bad one's own while others are known
    ],
)
def test_the_error_level_before_the_fault_leaves_the_bad_version_out(good, bad, level):
    baseline = Baseline(aged={"v1": (1000, 100), "v2": (1000, 400)})
    assert served.error_level(baseline, good, bad, 50) == level


def test_labels_of_the_newest_seconds_count_only_where_the_bad_version_is_known():
    baseline = Baseline(fresh=[(START, "v1", 100, 20), (START, "v2", 100, 50)])
    assert served.error_level(baseline, "v1", "v2", 50) == 0.2
    assert served.error_level(baseline, "v1", "", 50) is None


def test_the_only_version_there_is_stands_for_itself():
    baseline = Baseline(aged={"v1": (1000, 100)})
    assert served.error_level(baseline, "v1", "v1", 50) == 0.1


def test_old_labels_fade():
    baseline = Baseline(aged={"v1": (8000, 800)}, fresh=[(START, "v1", 1000, 500)])
    served.learn(baseline, House().vitals_at(START + 11 * SECOND), calm=True)
    assert baseline.aged["v1"] == (4500, 650)


@given(st.lists(st.integers(0, 100), min_size=1, max_size=60), st.integers(1, 12))
def test_what_was_served_of_late_is_the_difference_of_totals(counts, panes):
    marks, total = [], 0
    for i, n in enumerate(counts):
        total += n
        marks.append(Mark(START + i * PANE, Tally(n=total)))
    assert served.recent(marks, panes * PANE).n == sum(counts[1:][-panes:])


def test_before_the_first_vitals_nothing_was_served():
    assert served.recent([], SECOND) == Tally()


def test_probes_count_from_the_hold_and_anew_for_another_model():
    house = House().healthy(1)
    house.panes(2, slow=90, ms=900.0)
    house.feed(house.alert("LATENCY_SLO_BREACH"))
    house.approve()
    house.probe = [100, 50]
    house.panes(9)
    for _ in range(4):
        house.probe[0] += 1
        house.pane()
    assert house.back.back.calls - house.back.back.calls0 == 3  # the first look is the mark to count from
    house.probe = [2, 0]  # another model: its own, smaller count
    house.pane()
    assert house.back.back.calls0 == 2
    assert house.back.back.quiet_since_us == 0


def test_a_pane_of_which_a_late_judge_tells_does_not_begin_the_proof_of_a_restart():
    house = House().healthy(1)
    watch = Watch(processes={"decision-0": 0})
    late = msgspec.structs.replace(house.vitals_at(START + 2 * SECOND), at_us=START + 4 * SECOND)
    served.observe(watch, late, HealingParams())
    assert not watch.visible_us  # the new process may have come long after that pane
    served.observe(watch, house.vitals_at(START + 5 * SECOND), HealingParams())
    assert watch.visible_us == START + 5 * SECOND
