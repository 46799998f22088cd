"""After an unclean boot every byte of the log is compared with a digest that is stored apart from it."""

from __future__ import annotations

import struct

import lmdb
import pytest
from tests.support.log import open_log, out, shrink

from mendstream.adapters.bus import boot
from mendstream.adapters.bus.digest import digest
from mendstream.contracts.agent import TaskId
from mendstream.contracts.errors import DataDirError
from mendstream.contracts.ports import TaskCommit
from mendstream.contracts.topics import Stream, Topic

MAP_BYTES = 16 << 20
TASK = TaskId("decision", 0)
SOURCE, DECISIONS = Stream(Topic.SOURCE, 0), Stream(Topic.DECISIONS, 0)
KEY = struct.Struct(">BHQIIQQ")
TURNS, SNAPSHOT_AT = 100, 90
SNAPSHOT, CHANGES = b"decision/0\0\0", b"decision/0\0\1"


def turn(claim, number):
    return TaskCommit(
        task=TASK, epoch=claim.epoch, turn=number, positions={SOURCE: number}, before={SOURCE: number - 1},
        outputs=[out(DECISIONS, b"%05d" % number * 600)],
        snapshot=b"s" * 9000 if number == SNAPSHOT_AT else None,
        changes=b"changed in %d" % number if number % 2 else None,
    )  # fmt: skip


@pytest.fixture
def log(tmp_path, clock, monkeypatch):
    """Trimmed, with a snapshot and changes since."""
    shrink(monkeypatch, Topic.DECISIONS, retention_bytes=100_000)
    bus = open_log(tmp_path, clock, map_bytes=MAP_BYTES)
    claim = bus.claim(TASK, [SOURCE])
    for number in range(1, TURNS + 1):
        bus.commit([turn(claim, number)])
    assert bus.bounds(DECISIONS)[0] > 0
    bus.close()
    return tmp_path


def edit(root, database, change):
    """Change what is stored behind the house's back."""
    with lmdb.open(str(root / "data"), max_dbs=8) as env, env.begin(write=True) as txn:
        change(txn.cursor(db=env.open_db(database, txn=txn)))


def refused(root):
    with pytest.raises(DataDirError, match="its log is torn") as raised:
        boot.recover(root)
    return str(raised.value)


def test_a_whole_log_has_no_problems_and_goes_on(log, clock):
    boot.recover(log)
    bus = open_log(log, clock, map_bytes=MAP_BYTES)
    bus.commit([turn(bus.claim(TASK, [SOURCE]), TURNS + 1)])
    assert bus.incarnation.endswith(".1")
    bus.close()
    assert boot.verify(log) == []


@pytest.mark.parametrize("at", [0, 1500, 2999])
def test_a_byte_that_is_another_one_in_a_block_is_noticed(log, at):
    def change(cursor):
        assert cursor.last()
        key, value = cursor.item()
        cursor.put(key, value[:at] + b"?" + value[at + 1 :])

    edit(log, b"log", change)
    assert refused(log).count(f"decisions/0 is torn at {TURNS - 1}") == 1


def test_a_time_that_is_another_one_is_noticed(log):
    def change(cursor):
        assert cursor.last()
        key, value = cursor.item()
        number, partition, position, rows, size, at_us, stored = KEY.unpack(key)
        cursor.delete()
        cursor.put(KEY.pack(number, partition, position, rows, size, at_us + 1, stored), value)

    edit(log, b"log", change)
    assert f"is torn at {TURNS - 1}" in refused(log)


def test_a_block_that_fits_in_but_is_not_the_one_that_was_committed_is_noticed(log):
    def change(cursor):
        assert cursor.last()
        key, value = cursor.item()
        *head, at_us, _ = KEY.unpack(key)
        other = bytes(len(value))
        cursor.delete()
        cursor.put(KEY.pack(*head, at_us, digest(other, at_us)), other)

    edit(log, b"log", change)
    assert "decisions/0 does not hold" in refused(log)


def test_the_oldest_block_is_missed(log):
    edit(log, b"log", lambda cursor: cursor.first() and cursor.delete())
    assert "decisions/0 does not hold" in refused(log)


def older_snapshot(cursor):
    assert cursor.put(SNAPSHOT, b"s" * 4500 + b"o" * 4500)


def no_snapshot(cursor):
    assert cursor.set_key(SNAPSHOT)
    assert cursor.delete()


def a_change_is_missing(cursor):
    assert cursor.set_range(CHANGES)
    assert cursor.delete()


def a_change_stands_at_another_turn(cursor):
    assert cursor.set_range(CHANGES)
    value = cursor.value()
    cursor.delete()
    cursor.put(CHANGES + (TURNS - 2).to_bytes(8, "big"), value)


@pytest.mark.parametrize("change", [older_snapshot, no_snapshot, a_change_is_missing, a_change_stands_at_another_turn])
def test_a_state_that_is_not_the_one_of_the_last_turn_is_noticed(log, change):
    edit(log, b"state", change)
    assert f"the state of decision/0 is not the one of its turn {TURNS}" in refused(log)


def test_a_state_without_its_task_is_noticed(log):
    edit(log, b"tasks", lambda cursor: cursor.first() and cursor.delete())
    assert "the state of decision/0 has no task" in refused(log)


def test_a_stream_without_its_end_is_noticed(log):
    edit(log, b"ends", lambda cursor: cursor.first() and cursor.delete())
    assert "decisions/0 has no end" in refused(log)


def test_positions_of_an_earlier_turn_are_noticed_though_the_state_has_not_changed_since(log, clock):
    older = {}

    def keep(cursor):
        assert cursor.first()
        older["row"] = cursor.item()

    edit(log, b"tasks", keep)
    bus = open_log(log, clock, map_bytes=MAP_BYTES)
    claim = bus.claim(TASK, [SOURCE])
    bus.commit([TaskCommit(task=TASK, epoch=claim.epoch, turn=TURNS + 1, positions={SOURCE: TURNS + 1},
                           before={SOURCE: TURNS}, outputs=[out(DECISIONS, b"decided")])])  # fmt: skip
    bus.close()
    assert boot.verify(log) == []
    edit(log, b"tasks", lambda cursor: cursor.put(*older["row"]))
    assert refused(log).count("ends and positions are not all of one moment") == 1


# LMDB's file: pages; a page begins with a head of 16 bytes, on which the places of its nodes follow, 2 bytes each. The
# first two pages say where everything is, each transaction writes the other one: the root of the list of free pages
# stands at 80, the number of the transaction at 144. A node is a head of 8 bytes, a key of 8 and its list of pages,
# which begins with how many they are.
ROOT_AT, TRANSACTION_AT, NODE_AT, LIST_AT = 80, 144, 16, 16


def test_a_list_of_free_pages_that_does_not_fit_is_noticed(log):
    path = log / "data" / "data.mdb"
    with lmdb.open(str(path.parent)) as env:
        size = env.stat()["psize"]
    data = bytearray(path.read_bytes())

    def number(at):
        return struct.unpack_from("<Q", data, at)[0]

    head = max((0, size), key=lambda page: number(page + TRANSACTION_AT))
    page = number(head + ROOT_AT) * size
    count = page + struct.unpack_from("<H", data, page + NODE_AT)[0] + LIST_AT
    assert 1 < number(count) < 500
    struct.pack_into("<Q", data, count, number(count) - 1)
    path.write_bytes(data)
    assert "data: cannot be read" in refused(log)
