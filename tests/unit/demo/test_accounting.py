"""The independent reader on logs that the real bus has written, and on copies in which something was planted."""

import shutil
import struct

import lmdb
import pytest

from mendstream.adapters.bus.lmdb_bus import LmdbBus, create
from mendstream.contracts import frame as frames
from mendstream.contracts.frame import FrameMeta
from mendstream.contracts.ports import Out
from mendstream.contracts.records import Counts, DeadLetter, DeadReason, Decision, encode_block
from mendstream.contracts.topics import Stream, Topic, Wing
from mendstream.demo.accounting import account

NOW = 1_700_000_000_000_000
BLOCK = 10
KEY = struct.Struct(">BHQIIQQ")
PLACE = struct.Struct(">BHQ")


class FixedClock:
    def now_us(self):
        return NOW


def frame_of(numbers):
    head = {
        "event_id": [f"f{n}" for n in numbers],
        "key": ["N1"] * len(numbers),
        "event_time_us": [NOW] * len(numbers),
    }
    return bytes(frames.make(head, {}, FrameMeta(partition=0, born_us=NOW, made_us=NOW)).encode())


def raw(numbers):
    return Out(Stream(Topic.RAW_EVENTS, 0), frame_of(numbers), len(numbers))


def decided(numbers):
    records = [
        Decision(event_id=f"f{n}", key="N1", outcome="late", score=0.7, model="v1", mode="NORMAL", config=1,
                 reason="model", at_us=NOW)
        for n in numbers
    ]  # fmt: skip
    return Out(Stream(Topic.DECISIONS, 0), encode_block(records), len(records))


def letter(value, *, topic="source", stage="ingestion", position=-1):
    record = DeadLetter(
        id=f"i/{stage}/1/1", topic=topic, partition=0, position=position, stage=stage, code_version="0",
        reason=DeadReason.INVALID, detail="", attempts=1, value=value, at_us=NOW,
    )  # fmt: skip
    return Out(Stream(Topic.DEAD_LETTERS, 0), encode_block([record]), 1)


def write(root, outs):
    create(root, incarnation="abc", map_bytes=16 << 20)
    bus = LmdbBus(root, Wing.DATA, FixedClock(), map_bytes=16 << 20)
    bus.publish(outs)
    bus.close()


def healthy():
    return [out for n in range(0, 100, BLOCK) for out in (raw(range(n, n + BLOCK)), decided(range(n, n + BLOCK)))]


@pytest.fixture
def log(tmp_path):
    write(tmp_path / "log", healthy())
    return tmp_path / "log"


@pytest.fixture
def copy(log, tmp_path):
    shutil.copytree(log, tmp_path / "copy")
    return tmp_path / "copy"


def edit(root, change):
    """Change the stored blocks behind the house's back."""
    with lmdb.open(str(root / "data"), max_dbs=8) as env, env.begin(write=True) as txn:
        change(txn, env.open_db(b"log", txn=txn))


def at(txn, db, topic, position):
    """Key and payload of the block that begins there."""
    cursor = txn.cursor(db=db)
    assert cursor.set_range(PLACE.pack(topic, 0, position))
    assert cursor.key().startswith(PLACE.pack(topic, 0, position))
    return cursor.item()


def delete(topic, position):
    def change(txn, db):
        assert txn.delete(at(txn, db, topic, position)[0], db=db)

    return change


def test_a_log_in_which_nothing_was_lost_is_exact(log):
    found = account(log)
    assert (found.events, found.decisions, found.missing, found.duplicated) == (100, 100, 0, 0)
    assert found.exact
    assert (found.first, found.last) == (0, 99)


def test_a_lost_decision_is_noticed(copy):
    edit(copy, delete(3, 40))
    found = account(copy)
    assert found.missing == BLOCK
    assert found.missing_examples == tuple(f"f{n}" for n in range(40, 50))


def test_one_lost_decision_line_is_noticed(copy):
    def cut(txn, db):
        key, value = at(txn, db, 3, 40)
        lines = value.rstrip(b"\n").split(b"\n")
        txn.put(key, b"\n".join(lines[:3] + lines[4:]) + b"\n", db=db)

    edit(copy, cut)
    found = account(copy)
    assert (found.missing, found.missing_examples) == (1, ("f43",))


@pytest.mark.parametrize("position", [0, 40, 90])
def test_a_lost_accepted_block_is_noticed_wherever_it_was(copy, position):
    edit(copy, delete(0, position))
    found = account(copy)
    assert found.missing == BLOCK
    assert found.missing_examples[0] == f"f{position}"


def test_a_second_decision_is_noticed(copy):
    def repeat(txn, db):
        _, value = at(txn, db, 3, 70)
        txn.put(KEY.pack(3, 0, 100, BLOCK, len(value), NOW, 0), value, db=db)

    edit(copy, repeat)
    found = account(copy)
    assert (found.missing, found.duplicated, found.decisions) == (0, BLOCK, 110)
    assert found.duplicated_examples[0] == "f70"


def test_an_event_that_was_accepted_twice_is_noticed(tmp_path):
    write(tmp_path, [*healthy(), raw([5])])
    assert account(tmp_path).duplicated_examples == ("f5",)


def test_an_event_that_never_came_in_is_noticed(tmp_path):
    write(tmp_path, [raw([0, 1, 3]), decided([0, 1, 3])])
    found = account(tmp_path)
    assert (found.missing, found.missing_examples) == (1, ("f2",))


def test_an_event_set_aside_at_the_door_is_not_missing(tmp_path):
    value = b'{"id":"f2","tailnum":3}'
    write(tmp_path, [raw([0, 1, 3]), decided([0, 1, 3]), letter(value)])
    found = account(tmp_path)
    assert found.exact
    assert (found.events, found.dead_letters) == (3, 1)


def test_bytes_without_an_id_count_by_their_position(tmp_path):
    write(tmp_path, [raw([0, 1, 3]), decided([0, 1, 3]), letter(b"{", position=2)])
    assert account(tmp_path).exact


def test_a_refused_label_does_not_hide_a_missing_event(tmp_path):
    value = b'{"event_id":"f1","key":"","label":7}'
    write(tmp_path, [raw([0, 1, 3]), decided([0, 1, 3]), letter(value, position=2)])
    found = account(tmp_path)
    assert (found.missing, found.dead_letters) == (1, 0)


def test_an_event_given_up_by_a_later_stage_is_not_missing(tmp_path):
    write(tmp_path, [raw([0, 1, 2]), decided([0, 2]), letter(frame_of([1]), topic="features", stage="model")])
    found = account(tmp_path)
    assert found.exact
    assert (found.events, found.decisions, found.dead_letters) == (3, 2, 1)


def test_an_event_both_given_up_and_decided_is_noticed(tmp_path):
    write(tmp_path, [raw([0, 1, 2]), decided([0, 1, 2]), letter(frame_of([1]), topic="features", stage="model")])
    assert account(tmp_path).duplicated_examples == ("f1",)


def test_a_decision_on_an_event_that_never_came_in_is_noticed(tmp_path):
    write(tmp_path, [raw([0, 1]), decided([0, 1, 2])])
    assert account(tmp_path).missing_examples == ("f2",)


def test_what_retention_took_is_left_out_on_both_sides(tmp_path):
    write(tmp_path, healthy())
    edit(tmp_path, delete(0, 0))
    with lmdb.open(str(tmp_path / "data"), max_dbs=8) as env, env.begin(write=True) as txn:
        ends = env.open_db(b"ends", txn=txn)
        first, *rest = struct.unpack("<qqqQ", txn.get(struct.pack(">BH", 0, 0), db=ends))
        assert first == 0
        txn.put(struct.pack(">BH", 0, 0), struct.pack("<qqqQ", BLOCK, *rest), db=ends)
    found = account(tmp_path)
    assert found.exact
    assert (found.first, found.events, found.decisions) == (10, 90, 90)
    assert "from f10 on" in found.text


def test_of_repeated_counts_only_the_newest_revision_counts(tmp_path):
    def counts(pane, revision, repeats):
        return Counts(task="ingestion/0", pane=pane, model="", config=1, arm="live", revision=revision, n=9,
                      losses={"repeat": (9, repeats)})  # fmt: skip

    sent = [counts(1, 5, 1), counts(1, 7, 3), counts(1, 6, 2), counts(2, 8, 4)]
    write(tmp_path, [*healthy(), Out(Stream(Topic.AGENT_METRICS, 0), encode_block(sent), len(sent))])
    assert account(tmp_path).repeats_dropped == 7


def test_an_empty_log_has_nothing_to_miss(tmp_path):
    write(tmp_path, [])
    found = account(tmp_path)
    assert found.exact
    assert (found.events, found.last) == (0, -1)


def test_the_reader_imports_nothing_of_the_house():
    import mendstream.demo.accounting as reader

    with open(reader.__file__) as file:
        assert "mendstream" not in file.read()
