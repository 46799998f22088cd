"""One clock for a house, whatever is done to the machine's."""

import time

import pytest

from mendstream.runtime import clock
from mendstream.runtime.clock import HouseClock, WallClock, set_clock

HOUR_NS = 3_600_000_000_000


@pytest.fixture
def root(tmp_path):
    (tmp_path / "run").mkdir()
    return tmp_path


def set_back(monkeypatch, ns: int) -> None:
    """An operator sets the machine's clock."""
    real = time.time_ns
    monkeypatch.setattr(clock.time, "time_ns", lambda: real() - ns)


def test_whoever_starts_after_the_machines_clock_was_set_lives_in_the_time_of_the_others(root, monkeypatch):
    set_clock(root, 0)
    early = HouseClock(root)
    set_back(monkeypatch, HOUR_NS)
    late = HouseClock(root)
    assert abs(late.now_us() - early.now_us()) < 1_000_000
    assert early.now_us() - WallClock().now_us() > 3_500_000_000


def test_a_house_never_starts_before_what_its_log_holds(root, monkeypatch):
    newest = WallClock().now_us()
    set_back(monkeypatch, HOUR_NS)
    set_clock(root, newest)
    assert HouseClock(root).now_us() > newest


def test_a_setting_of_an_earlier_boot_counts_no_more(root, monkeypatch):
    set_clock(root, WallClock().now_us() + 3_600_000_000)
    monkeypatch.setattr(clock, "boot_id", lambda: "another boot")
    assert abs(HouseClock(root).now_us() - WallClock().now_us()) < 1_000_000


def test_where_no_house_has_run_yet_the_machines_clock_counts(root):
    assert abs(HouseClock(root).now_us() - WallClock().now_us()) < 1_000_000


def test_processes_that_set_the_clock_together_do_not_take_each_others_file(root, monkeypatch):
    wrote = type(root).write_bytes

    def interrupted(path, content):
        """Another process does the same between the writing and the renaming of this one."""
        wrote(path, content)
        monkeypatch.setattr(type(root), "write_bytes", wrote)
        monkeypatch.setattr(clock.os, "getpid", lambda: 1)
        set_clock(root, 0)
        return len(content)

    monkeypatch.setattr(type(root), "write_bytes", interrupted)
    set_clock(root, 0)
    assert [path.name for path in (root / "run").iterdir()] == ["clock.json"]
