"""Who holds the write lock, seen without any lock; and which rows a step was on when its process died."""

from __future__ import annotations

import os

import pytest
from tests.support.log import out

from mendstream.adapters.bus.lmdb_bus import LmdbBus, create
from mendstream.adapters.bus.marks import MappedMarks
from mendstream.adapters.bus.watch import Holder, LockWatch, Tenure
from mendstream.contracts.agent import TaskId
from mendstream.contracts.ports import Mark
from mendstream.contracts.topics import Stream, Topic, Wing

DECISIONS = Stream(Topic.DECISIONS, 0)


def test_the_holder_is_seen_from_the_lock_until_its_release(tmp_path, clock):
    mine, theirs = LockWatch(tmp_path / "lock", clock), LockWatch(tmp_path / "lock", clock)
    with mine.held() as taken:
        assert theirs.holder() is None  # still waiting for the lock
        taken()
        assert theirs.holder() == Holder(os.getpid(), clock.now_us())
    assert theirs.holder() is None
    mine.close()
    theirs.close()


def test_whoever_has_the_lock_by_then_is_left_standing(tmp_path, clock, monkeypatch):
    mine, theirs = LockWatch(tmp_path / "lock", clock), LockWatch(tmp_path / "lock", clock)
    monkeypatch.setattr(theirs, "_pid", 4711)
    with mine.held() as taken:
        taken()
        with theirs.held() as also_taken:
            also_taken()
            late = mine
            assert late.holder() == Holder(4711, clock.now_us())
    mine.close()
    theirs.close()


def test_a_holder_that_was_killed_is_taken_out_and_no_other(tmp_path, clock):
    watch = LockWatch(tmp_path / "lock", clock)
    watch.held().__enter__()()
    holder = watch.holder()
    assert holder is not None
    watch.clear(Holder(holder.pid, holder.since_us + 1))
    assert watch.holder() == holder
    watch.clear(holder)
    assert watch.holder() is None
    watch.close()


TICK = 250_000


def test_a_tenure_grows_by_what_passes_between_looks_at_the_same_holder():
    tenure = Tenure(TICK)
    assert [tenure.us(Holder(7, 5), at) for at in (1_000_000, 1_250_000, 1_500_000)] == [0, TICK, 2 * TICK]


def test_a_machine_that_stood_still_is_not_held_against_the_holder():
    tenure = Tenure(TICK)
    tenure.us(Holder(7, 5), 0)
    assert tenure.us(Holder(7, 5), 60_000_000) == 2 * TICK


@pytest.mark.parametrize("other", [None, Holder(8, 5), Holder(7, 6)])
def test_another_holder_or_the_same_one_anew_starts_a_tenure_of_its_own(other):
    tenure = Tenure(TICK)
    tenure.us(Holder(7, 5), 0)
    tenure.us(Holder(7, 5), TICK)
    assert tenure.us(other, 2 * TICK) == 0
    assert tenure.us(other, 3 * TICK) == TICK


def test_a_tenure_that_is_renewed_counts_from_the_last_look():
    tenure = Tenure(TICK)
    tenure.us(Holder(7, 5), 0)
    tenure.us(Holder(7, 5), TICK)
    tenure.renew()
    assert tenure.us(Holder(7, 5), 2 * TICK) == TICK


class Spy:
    """A clock that looks at the lock whenever somebody asks for the time."""

    def __init__(self, root, clock) -> None:
        self.clock = clock
        self.watch = LockWatch(root / "run" / "lock-data", clock)
        self.seen: list[Holder | None] = []

    def now_us(self) -> int:
        self.seen.append(self.watch.holder())
        return self.clock.now_us()


def test_the_bus_writes_itself_in_while_it_writes_and_out_afterwards(tmp_path, clock):
    create(tmp_path, incarnation="x", map_bytes=1 << 24)
    spy = Spy(tmp_path, clock)
    bus = LmdbBus(tmp_path, Wing.DATA, spy, map_bytes=1 << 24)
    bus.publish([out(DECISIONS, b"0")])
    assert spy.seen[-1] == Holder(os.getpid(), clock.now_us())
    assert spy.watch.holder() is None
    bus.claim(TaskId("feature", 0), [])
    assert spy.watch.holder() is None
    bus.close()
    spy.watch.close()


def test_marks_are_there_for_whoever_comes_next(tmp_path):
    mine = MappedMarks(tmp_path / "run" / "step-feature-0")
    assert mine.left() is None
    mine.begin(position=1 << 40, rows=500, attempts=2)
    theirs = MappedMarks(tmp_path / "run" / "step-feature-0")
    assert theirs.left() == Mark(1 << 40, 500, 2)
    mine.end()
    assert theirs.left() is None
    mine.close()
    theirs.close()


def test_a_mark_at_position_0_is_a_mark(tmp_path):
    marks = MappedMarks(tmp_path / "step")
    marks.begin(position=0, rows=1, attempts=1)
    assert marks.left() == Mark(0, 1, 1)
    marks.close()
