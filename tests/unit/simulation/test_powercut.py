"""The power goes: at full durability nothing acknowledged is missing, and who acknowledges too early is noticed."""

import random

import pytest

from mendstream.simulation import traced
from mendstream.simulation.powercut import HOW, SECTOR, TURNS, Disk, cut_power
from mendstream.simulation.traced import Room, Write

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def cut(cuts, durability, *, seed=0, prelude=""):
    return cut_power(
        cuts, durability, seed=seed, progress=lambda *told: None, stop=lambda: False, prelude=prelude
    )  # fmt: skip


# --- the log ---------------------------------------------------------------------------------------------------------


def test_with_durability_power_nothing_that_was_acknowledged_is_missing():
    found = cut(120, "power")
    assert (found.whole, found.lost, found.wrong, found.refused) == (120, 0, 0, 0), found.examples
    assert found.acknowledged == TURNS
    assert found.dirty > 60  # the power really went while something was under way
    assert found.sound


OPENED_WITH = """
import lmdb
opened = lmdb.open
lmdb.open = lambda *args, **options: opened(*args, **{{**options, {changed}}})
"""
COMMITTED_LATER = """
from mendstream.adapters.bus.lmdb_bus import LmdbBus
commit, waiting = LmdbBus.commit, []
def later(bus, commits):
    waiting.append(commits)
    if len(waiting) > 2:
        commit(bus, waiting.pop(0))
LmdbBus.commit = later
"""


@pytest.mark.parametrize(
    "planted",
    [
        OPENED_WITH.format(changed="'metasync': False"),
        OPENED_WITH.format(changed="'sync': False, 'metasync': False"),
        COMMITTED_LATER,
    ],
    ids=["the head is not synced", "nothing is synced", "acknowledged before it is written"],
)
def test_a_log_that_acknowledges_too_early_is_noticed(planted):
    found = cut(60, "power", prelude=planted)
    assert found.lost > 5
    assert not found.sound


def test_a_write_that_the_record_does_not_see_is_no_silent_gap():
    planted = OPENED_WITH.format(changed="'writemap': True")
    with pytest.raises(traced.CouldNot, match="does not explain the file"):
        cut(1, "power", prelude=planted)


@pytest.mark.parametrize("seed", [1, 2])
def test_with_durability_process_the_unclean_boot_is_recognised_and_no_torn_log_is_taken_for_whole(seed):
    found = cut(60, "process", seed=seed)
    assert (found.whole + found.refused, found.wrong, found.lost) == (60, 0, 0), found.examples
    assert found.whole > 5
    assert found.refused > 5
    assert found.sound


def test_a_run_that_is_stopped_says_how_far_it_came():
    told = []
    found = cut_power(
        50, "power", seed=0, progress=lambda *at: told.append(at), stop=lambda: len(told) > 3
    )  # fmt: skip
    assert found.cuts == 3
    assert told[-1][1:] == (3, 50)


# --- the model -------------------------------------------------------------------------------------------------------

OLD, NEW = b"o" * 3 * SECTOR, b"n" * 3 * SECTOR


def disk_with(*events):
    disk = Disk(bytearray(OLD), bytearray(OLD))
    for event in events:
        disk.put(event)
    return disk


def test_what_was_synced_is_there_however_the_rest_came():
    disk = disk_with(Write("log", 0, NEW, False))
    disk.settle(list(disk.may))
    assert {disk.after(how, random.Random(1)) for how in HOW} == {NEW}


def test_of_what_was_not_synced_any_sectors_may_be_there_or_not():
    disk = disk_with(Write("log", 0, NEW, False))
    dice = random.Random(1)
    found = {disk.after("any sectors", dice) for _ in range(200)}
    assert len(found) == 8
    assert {OLD, NEW} <= found


def test_a_sector_that_was_written_twice_may_have_either():
    disk = disk_with(Write("log", 0, b"1" * SECTOR, False), Write("log", 0, b"2" * SECTOR, False))
    dice = random.Random(1)
    assert {disk.after("any sectors", dice)[:1] for _ in range(50)} == {b"o", b"1", b"2"}


def test_a_small_write_takes_its_sector_with_it():
    disk = disk_with(Write("log", SECTOR + 5, b"x", True))
    disk.settle([1])
    assert disk.sure == OLD[: SECTOR + 5] + b"x" + OLD[SECTOR + 6 :]


def test_a_file_may_end_where_it_did_or_with_the_room_that_was_taken():
    disk = disk_with(Room("log", 4 * SECTOR))
    dice = random.Random(1)
    assert {len(disk.after("nothing more", dice)) for _ in range(50)} == {3 * SECTOR, 4 * SECTOR}


def test_a_system_that_cannot_be_watched_is_said_so(tmp_path, monkeypatch):
    monkeypatch.setattr(traced.sys, "platform", "darwin")
    with pytest.raises(traced.CouldNot, match="no power can be cut on darwin"):
        traced.record(["never"], tmp_path)
