"""What every bus has to keep, whatever it is made of. A new bus is one more row of WORLDS."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tests.support.clock import START_US
from tests.support.log import blocks, lines, open_log, out, shrink
from tests.support.sim import SimBusWorld
from tests.support.writer import set_format

from mendstream.adapters.bus.kafka import topics
from mendstream.adapters.bus.kafka.client import Cluster
from mendstream.adapters.bus.kafka.kafka_bus import KafkaBus
from mendstream.adapters.bus.lmdb_bus import LmdbBus
from mendstream.contracts.agent import TaskId
from mendstream.contracts.errors import Conflict, CouldNot, DataDirError, Fenced, LogFull
from mendstream.contracts.frame import FrameMeta, make
from mendstream.contracts.ports import Bell, Bus, Out, TaskCommit
from mendstream.contracts.topics import CONFIG, HOUR_S, Stream, Topic, Wing

RAW = Stream(Topic.RAW_EVENTS, 0)
FEATURES = Stream(Topic.FEATURES, 0)
PREDICTIONS = Stream(Topic.PREDICTIONS, 0)
DECISIONS = Stream(Topic.DECISIONS, 0)
FEEDBACK = Stream(Topic.FEEDBACK, 0)
ALERTS = Stream(Topic.ALERTS, 0)
DEADLINE_S = 20.0
FEATURE = TaskId("feature", 0)
DECISION = TaskId("decision", 0)


class LmdbWorld:
    """The embedded bus. One process has a log open once, so wings are opened one after the other."""

    def __init__(self, root: Path, clock) -> None:
        self.root = root
        self.clock = clock
        self.opened: list[Bus] = []

    def open(self, wing: Wing = Wing.DATA, **options) -> Bus:
        self.close()
        bus = open_log(self.root, self.clock, wing, **options)
        self.opened.append(bus)
        return bus

    def close(self) -> None:
        for bus in self.opened:
            bus.close()
        self.opened.clear()

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """tests/support/writer.py in a process of its own, on this log."""
        command = [sys.executable, "-m", "tests.support.writer", str(self.root), *arguments]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


class KafkaWorld:
    """A real broker; each test has topics of its own there."""

    _numbers = itertools.count()

    def __init__(self, root: Path, clock, broker) -> None:
        self.root = root
        self.clock = clock
        self.cluster = Cluster(broker.address, namespace=f"bus-{os.getpid()}-{next(self._numbers)}")
        topics.make(self.cluster, 11)
        self.opened: list[Bus] = []

    def open(self, wing: Wing = Wing.DATA, *, chain: tuple[str, ...] = ()) -> Bus:
        self.close()
        bus = KafkaBus(self.cluster, self.root, self.clock, partitions=11, chain=chain)
        self.opened.append(bus)
        return bus

    def close(self) -> None:
        for bus in self.opened:
            bus.close()
        self.opened.clear()


WORLDS = [
    pytest.param("lmdb", id="lmdb"),
    pytest.param("simulated", id="simulated"),
    pytest.param("kafka", id="kafka", marks=[pytest.mark.services, pytest.mark.timeout(120)]),
]


@pytest.fixture(params=WORLDS)
def world(request, tmp_path, clock):
    match request.param:
        case "lmdb":
            world = LmdbWorld(tmp_path, clock)
        case "simulated":
            world = SimBusWorld(tmp_path, clock)
        case _:
            world = KafkaWorld(tmp_path, clock, request.getfixturevalue("kafka"))
    yield world
    world.close()


@pytest.fixture
def bus(world):
    return world.open()


@pytest.fixture
def lmdb_world(tmp_path, clock):
    """For what the simulated log has no part in: retention, files, threads and processes."""
    world = LmdbWorld(tmp_path, clock)
    yield world
    world.close()


@pytest.fixture
def lmdb_bus(lmdb_world):
    return lmdb_world.open()


def rows_in(bus, stream: Stream) -> int:
    """That a reader sees."""
    return sum(block.rows for block in blocks(bus, stream))


def listener(bus, name: str, streams: list[Stream]) -> Bell:
    """Somebody who has read all there is, and waits for more."""
    bell = bus.listen(name, streams)
    for stream in streams:
        blocks(bus, stream)
    while bell.wait(0):
        pass
    return bell


def turn_of(claim, turn: int, stream: Stream, before: int, after: int, **more) -> TaskCommit:
    return TaskCommit(claim.task, claim.epoch, turn, positions={stream: after}, before={stream: before}, **more)


# --- a turn is all or nothing ----------------------------------------------------------------------------------------


def test_a_turn_writes_outputs_positions_and_state_together(bus):
    bus.publish([out(RAW, b"1", b"2", b"3")])
    claim = bus.claim(FEATURE, [RAW])
    ends = bus.commit([turn_of(claim, 1, RAW, 0, 3, outputs=[out(FEATURES, b"a", b"b")], snapshot=b"state")])
    assert ends == {FEATURES: 2}
    assert rows_in(bus, FEATURES) == 2
    assert bus.position(FEATURE, RAW) == 3
    again = bus.claim(FEATURE, [RAW])
    assert (again.turns, again.positions, again.snapshot) == (1, {RAW: 3}, b"state")


def test_a_refused_turn_leaves_nothing_behind(bus):
    bus.publish([out(RAW, b"1")])
    old = bus.claim(FEATURE, [RAW])
    bus.claim(FEATURE, [RAW])
    with pytest.raises(Fenced):
        bus.commit([turn_of(old, 1, RAW, 0, 1, outputs=[out(FEATURES, b"a")], snapshot=b"state")])
    assert rows_in(bus, FEATURES) == 0
    assert bus.position(FEATURE, RAW) == 0
    assert bus.claim(FEATURE, [RAW]).snapshot is None


def test_several_tasks_of_one_turn_stand_or_fall_together(bus):
    bus.publish([out(RAW, b"1")])
    feature, decision = bus.claim(FEATURE, [RAW]), bus.claim(DECISION, [PREDICTIONS])
    bus.claim(DECISION, [PREDICTIONS])
    with pytest.raises(Fenced):
        bus.commit(
            [
                turn_of(feature, 1, RAW, 0, 1, outputs=[out(FEATURES, b"a")]),
                turn_of(decision, 1, PREDICTIONS, 0, 0, outputs=[out(DECISIONS, b"d")]),
            ]
        )
    assert rows_in(bus, FEATURES) == rows_in(bus, DECISIONS) == 0
    assert bus.position(FEATURE, RAW) == 0


@pytest.mark.parametrize("world", WORLDS[:2], indirect=True)
def test_where_wings_are_apart_an_output_of_the_other_one_is_refused_with_all_of_its_turn(world):
    bus = world.open()
    claim = bus.claim(FEATURE, [RAW])
    with pytest.raises(CouldNot, match="other wing"):
        bus.commit([turn_of(claim, 1, RAW, 0, 0, outputs=[out(FEATURES, b"a"), out(ALERTS, b"x")])])
    assert bus.bounds(FEATURES) == (0, 0)
    assert bus.claim(FEATURE, [RAW]).turns == 0
    with pytest.raises(CouldNot, match="other wing"):
        bus.publish([out(FEATURES, b"a"), out(ALERTS, b"x")])
    assert bus.bounds(FEATURES) == (0, 0)


# --- owners ----------------------------------------------------------------------------------------------------------


def test_a_claim_begins_a_higher_epoch_and_fences_the_owner_before(bus):
    first = bus.claim(FEATURE, [RAW])
    second = bus.claim(FEATURE, [RAW])
    assert second.epoch > first.epoch
    with pytest.raises(Fenced, match="taken over"):
        bus.commit([turn_of(first, 1, RAW, 0, 0)])
    bus.commit([turn_of(second, 1, RAW, 0, 0)])


def test_a_turn_that_was_done_cannot_be_done_twice(bus):
    bus.publish([out(RAW, b"1", b"2")])
    claim = bus.claim(FEATURE, [RAW])
    once = turn_of(claim, 1, RAW, 0, 2, outputs=[out(FEATURES, b"a")])
    bus.commit([once])
    with pytest.raises(Fenced, match="is at 2, not at 0"):
        bus.commit([once])
    assert rows_in(bus, FEATURES) == 1


def test_a_claim_gives_the_snapshot_and_the_changes_since_in_order(bus):
    claim = bus.claim(FEATURE, [RAW])
    bus.commit([turn_of(claim, 1, RAW, 0, 0, changes=b"forgotten")])
    bus.commit([turn_of(claim, 2, RAW, 0, 0, snapshot=b"snapshot")])
    for turn in range(3, 303):  # more than a byte counts: order must not be that of text
        bus.commit([turn_of(claim, turn, RAW, 0, 0, changes=str(turn).encode())])
    again = bus.claim(FEATURE, [RAW])
    assert again.snapshot == b"snapshot"
    assert again.changes == [str(turn).encode() for turn in range(3, 303)]
    assert again.turns == 302


def test_a_snapshot_replaces_the_changes_before_it(bus):
    claim = bus.claim(FEATURE, [RAW])
    bus.commit([turn_of(claim, 1, RAW, 0, 0, changes=b"a")])
    bus.commit([turn_of(claim, 2, RAW, 0, 0, snapshot=b"b")])
    again = bus.claim(FEATURE, [RAW])
    assert (again.snapshot, again.changes) == (b"b", [])


def test_tasks_with_like_names_keep_their_states_apart(bus):
    one, ten = TaskId("feature", 1), TaskId("feature", 10)
    bus.commit([TaskCommit(one, bus.claim(one, []).epoch, 1, {}, {}, changes=b"one")])
    bus.commit([TaskCommit(ten, bus.claim(ten, []).epoch, 1, {}, {}, changes=b"ten")])
    bus.commit([TaskCommit(one, bus.claim(one, []).epoch, 2, {}, {}, snapshot=b"one")])
    assert bus.claim(ten, []).changes == [b"ten"]


def test_a_new_input_starts_at_the_first_row_and_the_old_ones_where_they_were(bus):
    bus.publish([out(RAW, b"1", b"2"), out(FEEDBACK, b"f")])
    claim = bus.claim(FEATURE, [RAW])
    bus.commit([turn_of(claim, 1, RAW, 0, 2)])
    assert bus.claim(FEATURE, [RAW, FEEDBACK]).positions == {RAW: 2, FEEDBACK: 0}


def test_the_position_of_a_task_that_was_never_claimed_is_unknown(bus):
    assert bus.position(FEATURE, RAW) is None
    bus.claim(FEATURE, [RAW])
    assert bus.position(FEATURE, RAW) == 0
    assert bus.position(FEATURE, FEATURES) is None


# --- fused turns -----------------------------------------------------------------------------------------------------


def test_a_fused_turn_reads_on_behind_its_own_writes(bus):
    ingestion, feature = bus.claim(TaskId("ingestion", 0), []), bus.claim(FEATURE, [RAW])
    first = TaskCommit(ingestion.task, ingestion.epoch, 1, {}, {}, outputs=[out(RAW, b"1", b"2")])
    second = TaskCommit(FEATURE, feature.epoch, 1, {}, {RAW: 0}, outputs=[out(FEATURES, b"a")], past_own=[RAW])
    assert bus.commit([first, second]) == {RAW: 2, FEATURES: 1}
    assert bus.position(FEATURE, RAW) == 2


def test_a_fused_turn_conflicts_with_whoever_else_wrote_and_writes_nothing(bus):
    ingestion, feature = bus.claim(TaskId("ingestion", 0), []), bus.claim(FEATURE, [RAW])
    bus.publish([out(RAW, b"somebody else's")])
    first = TaskCommit(ingestion.task, ingestion.epoch, 1, {}, {}, outputs=[out(RAW, b"1", b"2")])
    second = TaskCommit(FEATURE, feature.epoch, 1, {}, {RAW: 0}, outputs=[out(FEATURES, b"a")], past_own=[RAW])
    with pytest.raises(Conflict, match="raw-events/0"):
        bus.commit([first, second])
    assert lines(bus, RAW) == [b"somebody else's"]
    assert bus.position(FEATURE, RAW) == 0


# --- reading ---------------------------------------------------------------------------------------------------------


def test_rows_are_read_across_blocks_and_cut_to_the_number_asked_for(bus):
    bus.publish([out(DECISIONS, b"0", b"1", b"2"), out(DECISIONS, b"3"), out(DECISIONS, b"4", b"5", b"6")])
    found = blocks(bus, DECISIONS, 1, max_rows=4)
    rows = [(b.position + n, line) for b in found for n, line in enumerate(bytes(b.value).split())]
    assert rows == [(1, b"1"), (2, b"2"), (3, b"3"), (4, b"4")]
    assert found[-1].next == 5


def test_a_frame_comes_whole_with_the_rows_to_skip(bus):
    meta = FrameMeta(partition=0, born_us=1, made_us=1)
    ids = [f"e{n}" for n in range(10)]
    frame = make({"event_id": ids, "key": ids, "event_time_us": list(range(10))}, {}, meta)
    bus.publish([Out(RAW, frame.encode(), 10)])
    (block,) = blocks(bus, RAW, 3, max_rows=4)
    assert (block.position, block.rows, block.skip, block.next) == (3, 4, 3, 7)
    assert bytes(block.value) == frame.encode()
    (rest,) = blocks(bus, RAW, 7)
    assert (rest.position, rest.rows, rest.skip) == (7, 3, 7)


def test_reading_is_bounded_by_bytes_but_gives_at_least_one_block(bus):
    bus.publish([out(DECISIONS, b"x" * 1000) for _ in range(5)])
    assert sum(block.rows for block in bus.read(DECISIONS, 0, max_rows=100, max_bytes=2500)) == 2
    assert sum(block.rows for block in bus.read(DECISIONS, 0, max_rows=100, max_bytes=1)) == 1


def test_reading_at_the_end_or_behind_it_gives_nothing(bus):
    bus.publish([out(DECISIONS, b"0")])
    assert blocks(bus, DECISIONS, 1) == []
    assert blocks(bus, DECISIONS, 99) == []
    assert blocks(bus, FEEDBACK, 0) == []


@pytest.mark.parametrize("at", range(-1, 8))
def test_a_time_is_found_in_a_stream(bus, clock, at):
    for rows in (1, 3, 2, 5):
        bus.publish([out(DECISIONS, *[b"{}"] * rows)])
        clock.advance(s=2)
    starts = [0, 1, 4, 6, 11]
    wanted = next((s for s, t in zip(starts, (0, 2, 4, 6), strict=False) if t >= at), 11)
    assert bus.since(DECISIONS, START_US + at * 1_000_000) == wanted
    assert bus.since(Stream(Topic.DECISIONS, 9), START_US) == 0


def test_what_waits_is_counted_from_a_position_to_the_end(bus):
    bell = listener(bus, "reader", [DECISIONS, RAW])
    assert bus.waiting(DECISIONS, 0) == bus.waiting(RAW, 0) == 0
    bus.publish([out(DECISIONS, b"0", b"1", b"2"), out(RAW, b"a", b"b")])
    assert rows_in(bus, DECISIONS) == 3
    assert rows_in(bus, RAW) == 2
    assert (bus.waiting(DECISIONS, 0), bus.waiting(DECISIONS, 2), bus.waiting(DECISIONS, 3)) == (3, 1, 0)
    assert (bus.waiting(RAW, 0), bus.waiting(RAW, 1), bus.waiting(RAW, blocks(bus, RAW)[-1].next)) == (2, 1, 0)
    bell.close()


def test_streams_that_stand_side_by_side_do_not_run_into_each_other(bus):
    streams = [Stream(topic, p) for topic in (Topic.RAW_EVENTS, Topic.FEATURES, Topic.DECISIONS) for p in range(3)]
    for stream in streams:
        bus.publish([out(stream, str(stream).encode()), out(stream, b"second")])
    for stream in streams:
        assert lines(bus, stream, 0) == [str(stream).encode(), b"second"]
        (first,) = blocks(bus, stream, max_rows=1)
        assert lines(bus, stream, first.next) == [b"second"]
        assert lines(bus, stream, blocks(bus, stream, first.next)[-1].next) == []


def test_a_block_says_when_it_was_appended(bus, clock):
    bus.publish([out(DECISIONS, b"0")])
    at = clock.now_us()
    clock.advance(s=5)
    bus.publish([out(DECISIONS, b"1")])
    assert [block.at_us for block in blocks(bus, DECISIONS)] == [at, at + 5_000_000]


# --- retention -------------------------------------------------------------------------------------------------------


def fill(bus, stream: Stream, count: int, size: int = 10_000, start: int = 0) -> None:
    for n in range(start, start + count):
        bus.publish([out(stream, b"%08d" % n + b"x" * size)])


def test_what_is_over_the_size_limit_goes_the_oldest_first(lmdb_bus, monkeypatch):
    shrink(monkeypatch, Topic.DECISIONS, retention_bytes=500_000)
    fill(lmdb_bus, DECISIONS, 1000)
    first, end = lmdb_bus.bounds(DECISIONS)
    kept = lines(lmdb_bus, DECISIONS, first)
    assert end == 1000
    assert [int(line[:8]) for line in kept] == list(range(first, 1000))
    assert 490_000 <= sum(map(len, kept)) <= 500_000 + 32 * 10_100


def test_old_data_go_in_small_steps(lmdb_bus, monkeypatch):
    fill(lmdb_bus, DECISIONS, 1000, size=10)
    shrink(monkeypatch, Topic.DECISIONS, retention_bytes=1000)
    firsts = []
    for n in range(200):
        lmdb_bus.publish([out(DECISIONS, b"%d" % n)])
        firsts.append(lmdb_bus.bounds(DECISIONS)[0])
    steps = [after - before for before, after in itertools.pairwise(firsts) if after != before]
    assert len(steps) >= 2
    assert max(steps) <= 64


def test_what_is_over_the_age_limit_goes(lmdb_bus, clock, monkeypatch):
    shrink(monkeypatch, Topic.DECISIONS, retention_s=HOUR_S, retention_bytes=0)
    fill(lmdb_bus, DECISIONS, 20, size=10)
    clock.advance(s=HOUR_S + 1)
    fill(lmdb_bus, DECISIONS, 130, size=10, start=20)
    first, _ = lmdb_bus.bounds(DECISIONS)
    assert first == 20
    assert int(lines(lmdb_bus, DECISIONS, first)[0][:8]) == 20


def test_what_a_pipeline_stage_has_not_read_is_kept_whatever_its_size(lmdb_bus, monkeypatch):
    shrink(monkeypatch, Topic.RAW_EVENTS, retention_bytes=50_000)
    claim = lmdb_bus.claim(FEATURE, [RAW])
    fill(lmdb_bus, RAW, 300)
    assert lmdb_bus.bounds(RAW) == (0, 300)
    lmdb_bus.commit([turn_of(claim, 1, RAW, 0, 100)])
    fill(lmdb_bus, RAW, 500, start=300)
    assert lmdb_bus.bounds(RAW)[0] == 100
    assert int(bytes(blocks(lmdb_bus, RAW, 100)[0].value)[:8]) == 100


def test_what_a_pipeline_stage_has_still_to_read_is_kept_before_its_first_start_too(lmdb_bus, monkeypatch):
    shrink(monkeypatch, Topic.RAW_EVENTS, retention_bytes=50_000)
    fill(lmdb_bus, RAW, 300)
    assert lmdb_bus.claim(FEATURE, [RAW]).positions == {RAW: 0}
    assert lmdb_bus.bounds(RAW) == (0, 300)


def test_who_is_no_pipeline_stage_keeps_nothing(lmdb_bus, monkeypatch):
    shrink(monkeypatch, Topic.FEEDBACK, retention_bytes=50_000)
    lmdb_bus.claim(TaskId("joiner", 0), [FEEDBACK])
    fill(lmdb_bus, FEEDBACK, 300)
    assert lmdb_bus.bounds(FEEDBACK)[0] > 200


def test_a_position_that_retention_has_passed_jumps_to_the_first_row(lmdb_bus, monkeypatch):
    shrink(monkeypatch, Topic.DECISIONS, retention_bytes=50_000)
    for neighbour in (RAW, FEEDBACK):  # neighbours on both sides of it in the log
        fill(lmdb_bus, neighbour, 3, size=10)
    fill(lmdb_bus, DECISIONS, 300)
    first, end = lmdb_bus.bounds(DECISIONS)
    found = blocks(lmdb_bus, DECISIONS, 0)
    assert first > 0
    assert (found[0].position, found[-1].next) == (first, end)


def test_a_stream_written_in_every_other_transaction_is_trimmed_too(lmdb_bus, monkeypatch):
    shrink(monkeypatch, Topic.DECISIONS, retention_bytes=50_000)
    for n in range(1, 400):
        lmdb_bus.publish([out(DECISIONS if n % 2 else FEEDBACK, b"x" * 5000)])
    assert lmdb_bus.bounds(DECISIONS)[0] > 100


@pytest.mark.parametrize("world", WORLDS[:2], indirect=True)
def test_config_updates_are_kept_for_ever(world, clock):
    bus = world.open(Wing.CONTROL)
    fill(bus, CONFIG, 200, size=10)
    clock.advance(s=10 * 365 * 24 * HOUR_S)
    fill(bus, CONFIG, 200, size=10)
    assert bus.bounds(CONFIG) == (0, 400)
    assert rows_in(bus, CONFIG) == 400


# --- writers beside each other ---------------------------------------------------------------------------------------


def test_threads_of_one_process_publish_beside_turns_and_nothing_is_lost(lmdb_bus):
    claim = lmdb_bus.claim(FEATURE, [RAW])
    metrics = Stream(Topic.AGENT_METRICS, 0)
    failures: list[Exception] = []

    def beat(name: int) -> None:
        try:
            for n in range(100):
                lmdb_bus.publish([out(metrics, b"%d/%d" % (name, n))])
        except Exception as error:  # noqa: BLE001 - shown by the assertion below
            failures.append(error)

    threads = [threading.Thread(target=beat, args=(name,)) for name in range(3)]
    for thread in threads:
        thread.start()
    for turn in range(1, 101):
        lmdb_bus.commit([turn_of(claim, turn, RAW, 0, 0, outputs=[out(FEATURES, b"%d" % turn)])])
    for thread in threads:
        thread.join()
    assert failures == []
    assert lines(lmdb_bus, FEATURES) == [b"%d" % turn for turn in range(1, 101)]
    found = lines(lmdb_bus, metrics)
    for name in range(3):
        assert [line for line in found if line.startswith(b"%d/" % name)] == [b"%d/%d" % (name, n) for n in range(100)]


@pytest.mark.processes
def test_two_processes_append_to_one_stream_and_nothing_is_lost(lmdb_world):
    bus = lmdb_world.open(Wing.CONTROL)
    writers = [lmdb_world.start("publish", Wing.CONTROL, "alerts", "0", "300", name) for name in ("a", "b")]
    for writer in writers:
        with writer:
            assert writer.wait(60) == 0
    found = lines(bus, ALERTS)
    assert len(found) == bus.bounds(ALERTS)[1] == 600
    for name in ("a", "b"):
        assert [line for line in found if line.startswith(name.encode())] == [
            f"{name}/{n}".encode() for n in range(300)
        ]


@pytest.mark.processes
def test_a_turn_of_another_process_is_seen_at_once_and_fences_ours(lmdb_world):
    bus = lmdb_world.open()
    ours = bus.claim(FEATURE, [RAW])
    with lmdb_world.start("turns", "feature", "raw-events", "features", "5") as writer:
        assert writer.wait(60) == 0
    assert bus.bounds(FEATURES)[1] == 5
    with pytest.raises(Fenced):
        bus.commit([turn_of(ours, 1, RAW, 0, 0)])


@pytest.mark.processes
@pytest.mark.slow
def test_a_writer_killed_at_any_moment_leaves_whole_turns_only(lmdb_world):
    """Each turn moves the position by one, writes one line that names it, and has its number for a state."""
    bus = lmdb_world.open()
    done = 0
    for kill in range(20):
        with lmdb_world.start("turns", "feature", "raw-events", "features", "0") as writer:
            for _ in range(3 + kill):
                writer.stdout.readline()
            os.kill(writer.pid, signal.SIGKILL)
        claim = bus.claim(FEATURE, [RAW])
        assert claim.turns > done
        done = claim.turns
        assert claim.positions[RAW] == claim.turns
        assert lines(bus, FEATURES) == [b"%d" % n for n in range(1, claim.turns + 1)]
        state = claim.changes[-1] if claim.changes else claim.snapshot
        assert state == b"%d" % claim.turns
        if claim.changes:
            assert claim.changes == [b"%d" % n for n in range(int(claim.snapshot or 0) + 1, claim.turns + 1)]


# --- who may open and write what -------------------------------------------------------------------------------------


def test_a_log_that_is_open_for_reading_only_refuses_writes(lmdb_world):
    lmdb_world.open().publish([out(DECISIONS, b"0")])
    reader = lmdb_world.open(readonly=True)
    assert lines(reader, DECISIONS) == [b"0"]
    with pytest.raises(CouldNot, match="reading only"):
        reader.publish([out(DECISIONS, b"1")])
    with pytest.raises(CouldNot, match="reading only"):
        reader.claim(FEATURE, [RAW])


def test_each_wing_reads_what_the_other_wrote(world):
    world.open(Wing.DATA).publish([out(DECISIONS, b"from data")])
    control = world.open(Wing.CONTROL)
    assert lines(control, DECISIONS) == [b"from data"]
    control.publish([out(ALERTS, b"from control")])
    joiner = control.claim(TaskId("joiner", 0), [DECISIONS])
    control.commit([turn_of(joiner, 1, DECISIONS, 0, 1)])
    data = world.open(Wing.DATA)
    assert lines(data, ALERTS) == [b"from control"]
    assert data.position(TaskId("joiner", 0), DECISIONS) == 1


def test_the_incarnation_stays_when_the_log_is_opened_again(world):
    first = world.open().incarnation
    assert first
    assert world.open(Wing.CONTROL).incarnation == first


def test_everything_is_there_when_the_log_is_opened_again(world):
    bus = world.open()
    claim = bus.claim(FEATURE, [RAW])
    bus.publish([out(RAW, b"1")])
    bus.commit([turn_of(claim, 1, RAW, 0, 1, outputs=[out(FEATURES, b"a")], snapshot=b"s")])
    again = world.open()
    assert lines(again, FEATURES) == [b"a"]
    claimed = again.claim(FEATURE, [RAW])
    assert (claimed.epoch, claimed.turns, claimed.positions, claimed.snapshot) == (claim.epoch + 1, 1, {RAW: 1}, b"s")


def test_a_full_log_says_so_and_the_turn_leaves_nothing_behind(lmdb_world):
    bus = lmdb_world.open(map_bytes=2 << 20)
    claim = bus.claim(FEATURE, [RAW])
    done = 0

    def turns() -> None:
        nonlocal done
        for turn in range(1, 1000):
            block = out(FEATURES, b"x" * 50_000)
            bus.commit([turn_of(claim, turn, RAW, 0, 0, outputs=[block], changes=b"%d" % turn)])
            done = turn

    with pytest.raises(LogFull, match="full") as failure:
        turns()
    assert done > 5
    assert "map_size_mb" in failure.value.hint
    assert bus.bounds(FEATURES) == (0, done)
    assert len(lines(bus, FEATURES)) == done
    again = lmdb_world.open(map_bytes=8 << 20).claim(FEATURE, [RAW])
    assert again.turns == done
    assert again.changes == [b"%d" % n for n in range(1, done + 1)]


def test_a_full_log_refuses_what_is_published_too(lmdb_world):
    bus = lmdb_world.open(map_bytes=2 << 20)
    with pytest.raises(LogFull):
        fill(bus, FEEDBACK, 1000, size=50_000)


def test_a_log_that_is_not_there_is_said_so(tmp_path, clock):
    with pytest.raises(CouldNot, match="holds no log"):
        LmdbBus(tmp_path / "nowhere", Wing.DATA, clock)


@pytest.mark.parametrize(("version", "age"), [(99, "a newer"), (1, "an older")])
@pytest.mark.parametrize("readonly", [False, True])
def test_a_log_of_another_format_is_refused(lmdb_world, readonly, version, age):
    lmdb_world.open()
    lmdb_world.close()
    set_format(lmdb_world.root, version)
    with pytest.raises(DataDirError, match=rf"{age} mendstream \(format {version}"):
        lmdb_world.open(readonly=readonly)
    with pytest.raises(DataDirError, match=f"{age} mendstream"):
        LmdbBus(lmdb_world.root, Wing.CONTROL, lmdb_world.clock, readonly=readonly)


# --- bells -----------------------------------------------------------------------------------------------------------


def test_a_bell_that_rang_before_the_wait_is_heard(bus):
    bell = listener(bus, "reader", [DECISIONS])
    bus.publish([out(DECISIONS, b"0")])
    assert bell.wait(DEADLINE_S)
    assert not bell.wait(0)
    bell.close()


def test_a_bell_wakes_who_waits(lmdb_bus):
    bell = listener(lmdb_bus, "reader", [DECISIONS])
    writer = threading.Timer(0.05, lmdb_bus.publish, args=([out(DECISIONS, b"0")],))
    writer.start()
    assert bell.wait(DEADLINE_S)
    writer.join()
    bell.close()


def test_a_bell_hears_only_the_streams_that_it_listens_to(bus):
    bell = listener(bus, "reader", [DECISIONS, FEEDBACK])
    bus.publish([out(RAW, b"0")])
    assert not bell.wait(0)
    claim = bus.claim(FEATURE, [RAW])
    bus.commit([turn_of(claim, 1, RAW, 0, 1, outputs=[out(FEEDBACK, b"f")])])
    assert bell.wait(DEADLINE_S)
    bell.close()


def test_whoever_begins_to_listen_right_after_another_is_heard_too(bus):
    """Both in the same tick of the file system's clock, with an append between them."""
    bells = []
    for n in range(20):
        bells.append(listener(bus, f"reader-{n}", [DECISIONS]))
        bus.publish([out(DECISIONS, b"0")])
        assert [bell.wait(DEADLINE_S) for bell in bells] == [True] * len(bells)
    for bell in bells:
        bell.close()


def test_a_bell_can_be_rung_from_within(bus):
    bell = listener(bus, "reader", [DECISIONS])
    bell.ring()
    assert bell.wait(DEADLINE_S)
    bell.close()


def test_a_bell_that_rang_very_often_is_still_one_bell(bus):
    bell = listener(bus, "reader", [DECISIONS])
    for _ in range(70_000):
        bell.ring()
    while bell.wait(0):
        pass
    bus.publish([out(DECISIONS, b"0")])
    assert bell.wait(DEADLINE_S)
    bell.close()


def test_who_has_closed_its_bell_disturbs_nobody(bus):
    gone, here = listener(bus, "gone", [DECISIONS]), listener(bus, "here", [DECISIONS])
    bus.publish([out(DECISIONS, b"0")])
    gone.close()
    bus.publish([out(DECISIONS, b"1")])
    assert here.wait(DEADLINE_S)
    here.close()


@pytest.mark.processes
def test_a_bell_rings_for_what_another_process_writes(lmdb_world):
    bus = lmdb_world.open()
    bell = bus.listen("reader", [DECISIONS])
    with lmdb_world.start("publish", Wing.DATA, "decisions", "0", "1", "x") as writer:
        assert bell.wait(30)
        assert writer.wait(30) == 0
    assert lines(bus, DECISIONS) == [b"x/0"]
    bell.close()


@pytest.mark.processes
def test_a_listener_that_died_is_forgotten(lmdb_world):
    bus = lmdb_world.open()
    bells = lmdb_world.root / "bells"
    with lmdb_world.start("listen", "decisions") as listener:
        assert listener.stdout.readline() == "listening\n"
        assert len(list((bells / "decisions.0").iterdir())) == 1
        bus.publish([out(DECISIONS, b"0")])
        listener.kill()
    bus.publish([out(DECISIONS, b"1")])
    assert list((bells / "decisions.0").iterdir()) == []
    assert [path for path in bells.iterdir() if path.is_fifo()] == []
    bus.publish([out(DECISIONS, b"2")])
