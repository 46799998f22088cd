"""What the verdict of a kill run hangs on, and whom the monkey leaves alive."""

from collections import Counter
from dataclasses import replace

import pytest

from mendstream.contracts.agent import STAGES
from mendstream.demo.accounting import Accounting
from mendstream.simulation import crash
from mendstream.simulation.audit import Compared, Incidents
from mendstream.simulation.crash import Monkey, Report, house_settings

SOUND = Report(
    seed=0, fuse=False, wanted=3, killed={"model-0": 2, "supervisor": 1}, starts=2, gave_up=(), spoiled=0, orphans=(),
    counted=Accounting(
        events=9, decisions=9, dead_letters=0, missing=0, duplicated=0, repeats_dropped=1, first=0, last=8
    ),
    compared=Compared(9, 0), incidents=Incidents(1, 0, 1), seconds={},
)  # fmt: skip


def test_a_run_in_which_nothing_went_wrong_is_exact():
    assert SOUND.exact
    assert (SOUND.kills, SOUND.interrupted) == (3, False)


@pytest.mark.parametrize(
    "flaw",
    [
        {"counted": replace(SOUND.counted, missing=1)},
        {"counted": replace(SOUND.counted, duplicated=1)},
        {"compared": Compared(9, 1)},
        {"compared": Compared(0, 0)},
        {"incidents": Incidents(1, 0, 1, ("a flaw",))},
        {"orphans": ("pid 7",)},
    ],
    ids=["lost", "duplicated", "different", "nothing was compared", "incident", "orphan"],
)
def test_each_thing_that_goes_wrong_is_a_verdict(flaw):
    assert not replace(SOUND, **flaw).exact


def test_a_run_that_ended_early_says_so():
    assert replace(SOUND, wanted=4).interrupted


@pytest.fixture
def monkey(tmp_path):
    return Monkey(house_settings(tmp_path / "killed", fuse=False, seed=1), seed=1)


def test_everybody_dies_the_supervisor_seldom_and_the_stages_most(monkey):
    victims = [(name, 1) for name in ("supervisor", *(f"{stage}-0" for stage in STAGES), "judge-0", "healing-0")]
    killed = Counter(monkey._chosen(victims)[0] for _ in range(4000))
    assert set(killed) == {name for name, _ in victims}
    assert killed["supervisor"] == pytest.approx(200, abs=60)
    assert killed["model-0"] == pytest.approx(2 * killed["judge-0"], rel=0.25)


def test_a_control_process_that_died_often_is_left_alive_until_a_minute_has_passed(monkey, monkeypatch):
    now = 100.0
    monkeypatch.setattr(crash.time, "monotonic", lambda: now)
    for _ in range(4):
        assert monkey._may_die("judge-0")
        monkey._recent["judge-0"].append(now)
    assert not monkey._may_die("judge-0")
    assert monkey._may_die("healing-0")
    assert monkey._may_die("model-0")
    now += 61
    assert monkey._may_die("judge-0")
