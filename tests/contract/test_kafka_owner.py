"""Owning tasks on a real broker: what an owner leaves, and that of two owners at most one can finish a turn."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading

import pytest
from tests.support.log import lines, out

from mendstream.adapters.bus.kafka import topics
from mendstream.adapters.bus.kafka.client import Cluster
from mendstream.adapters.bus.kafka.follow import Lookup
from mendstream.adapters.bus.kafka.kafka_bus import KafkaBus
from mendstream.adapters.bus.kafka.owner import rivals_of, written_by
from mendstream.contracts.agent import STAGES, TaskId
from mendstream.contracts.errors import Conflict, CouldNot, Fenced, NoAnswer
from mendstream.contracts.ports import Out, TaskCommit
from mendstream.contracts.topics import Stream, Topic

pytestmark = [pytest.mark.processes, pytest.mark.timeout(120)]

ALERTS = Stream(Topic.ALERTS, 0)
RAW = Stream(Topic.RAW_EVENTS, 0)
JUDGE = TaskId("judge", 0)
MODEL = TaskId("model", 0)
_numbers = itertools.count()


@pytest.fixture
def cluster(kafka):
    found = Cluster(kafka.address, namespace=f"owner-{os.getpid()}-{next(_numbers)}")
    topics.make(found, 1)
    yield found
    topics.delete(found)


@pytest.fixture
def owner(cluster, tmp_path, clock):
    """A process's bus each time."""
    opened = []

    def open_bus(*chain):
        opened.append(KafkaBus(cluster, tmp_path / f"{len(opened)}", clock, partitions=1, chain=chain))
        return opened[-1]

    yield open_bus
    for bus in opened:
        bus.close()


def turn(claim, number, outputs=(), **left):
    return TaskCommit(
        task=claim.task, epoch=claim.epoch, turn=number, positions={}, before={}, outputs=outputs, **left
    )  # fmt: skip


def fails(bus, commit):
    """Abort a turn that has written its part already."""

    def outs():
        yield out(ALERTS, b"never")
        raise Conflict("in the midst of the turn")

    commit.outputs = outs()
    with pytest.raises(Conflict):
        bus.commit([commit])


def test_a_new_owner_gets_the_snapshot_and_all_changes_since_whatever_was_aborted_or_claimed_between(owner):
    one = owner()
    claim = one.claim(JUDGE, [RAW])
    one.commit([turn(claim, 1, changes=b"before")])
    one.commit([turn(claim, 2, snapshot=b"snapshot")])
    one.commit([turn(claim, 3, changes=b"a")])
    fails(one, turn(claim, 4, changes=b"aborted"))
    claim = one.claim(JUDGE, [RAW])
    one.commit([turn(claim, 4, changes=b"b")])
    two = owner()
    claim = two.claim(JUDGE, [RAW])
    two.commit([turn(claim, 5, changes=b"c")])
    fails(two, turn(claim, 6, snapshot=b"aborted"))
    found = owner().claim(JUDGE, [RAW])
    assert (found.turns, found.snapshot, found.changes) == (5, b"snapshot", [b"a", b"b", b"c"])


def test_what_was_left_is_found_behind_any_number_of_aborted_turns(owner):
    bus = owner()
    claim = bus.claim(JUDGE, [RAW])
    bus.commit([turn(claim, 1, snapshot=b"snapshot")])
    for _ in range(12):
        fails(bus, turn(claim, 2, changes=b"aborted"))
        claim = bus.claim(JUDGE, [RAW])
    found = owner().claim(JUDGE, [RAW])
    assert (found.turns, found.snapshot, found.changes) == (1, b"snapshot", [])


@pytest.mark.parametrize("chains", [((), ()), (STAGES, STAGES), ((), STAGES)], ids=["apart", "fused", "one of each"])
def test_of_two_that_claim_at_once_at_most_one_finishes_a_turn(owner, chains):
    buses = [owner(*chain) for chain in chains]
    finished = []
    for number in range(5):
        both = threading.Barrier(2)
        done = []

        def race(bus, name, both=both, done=done):
            both.wait(20)
            claim = None
            with contextlib.suppress(Fenced, NoAnswer):
                claim = bus.claim(MODEL, [])
            both.wait(20)
            if claim is not None:
                with contextlib.suppress(Fenced):
                    bus.commit([turn(claim, claim.turns + 1, [out(ALERTS, name)], snapshot=name)])
                    done.append(name)

        names = [b"%d-%d" % (number, n) for n in range(2)]
        racers = [threading.Thread(target=race, args=pair) for pair in zip(buses, names, strict=True)]
        for racer in racers:
            racer.start()
        for racer in racers:
            racer.join()
        assert len(done) <= 1
        written = [line for line in lines(owner(), ALERTS) if line in names]
        assert written == done
        finished += done
    if chains[0] == chains[1]:  # else each may have ended the other
        assert finished
    claim = buses[0].claim(MODEL, [])
    buses[0].commit([turn(claim, claim.turns + 1, snapshot=b"alone")])


def test_who_is_fenced_in_the_midst_of_a_turn_is_told_so_and_leaves_nothing(owner):
    older, newer = owner(), owner()
    claim = older.claim(JUDGE, [])

    def outs():
        yield out(ALERTS, b"of the older")
        newer.claim(JUDGE, [])
        yield out(ALERTS, b"of the older, once more")

    with pytest.raises(Fenced):
        older.commit([turn(claim, 1, outs(), snapshot=b"of the older")])
    found = newer.claim(JUDGE, [])
    assert (found.turns, found.snapshot) == (0, None)
    newer.commit([turn(found, 1, [out(ALERTS, b"of the newer")], snapshot=b"x")])
    assert lines(owner(), ALERTS) == [b"of the newer"]


def test_a_message_that_the_topic_does_not_take_stops_the_owner_with_the_way_to_mend_it(cluster, owner):
    bus = owner()
    claim = bus.claim(JUDGE, [])
    with pytest.raises(CouldNot, match="no message of this size") as told:
        bus.commit([turn(claim, 1, [Out(ALERTS, b"x" * (17 << 20) + b"\n", 1)], snapshot=b"x")])
    assert "max.message.bytes" in told.value.hint
    bus.commit([turn(bus.claim(JUDGE, []), 1, [out(ALERTS, b"small")], snapshot=b"x")])
    assert lines(owner(), ALERTS) == [b"small"]


def test_without_topics_the_command_that_makes_them_is_named(kafka, tmp_path, clock):
    with pytest.raises(CouldNot, match="has no topic none") as told:
        KafkaBus(Cluster(kafka.address, namespace="none"), tmp_path, clock, partitions=1)
    assert "mendstream topics create" in told.value.hint


# --- what a broker left open -----------------------------------------------------------------------------------------


def written_to(cluster, stream):
    """Values of all messages, also of transactions that have not ended, or came to nothing."""
    look = Lookup(cluster, cluster.group("look"), **{"isolation.level": "read_uncommitted"})
    try:
        return [message.value for message in look.read(cluster.topic(stream.topic), stream.partition, 0)]
    finally:
        look.close()


def test_a_new_owner_leaves_partitions_alone_in_which_nothing_is_open(owner, cluster):
    owner().claim(JUDGE, [RAW])
    assert written_to(cluster, ALERTS) == []


def test_a_new_owner_ends_with_an_abort_what_is_open_where_it_writes_and_nobody_ever_reads_that(owner, cluster):
    # The rest that a broker can leave cannot be made at will: another one's open transaction looks the same.
    other = cluster.producer(**{"transactional.id": f"{cluster.namespace}.other"})
    other.init_transactions(10)
    other.begin_transaction()
    other.produce(cluster.topic(Topic.ALERTS), b"open", partition=0)
    assert other.flush(10) == 0
    bus = owner()
    bus.commit([turn(bus.claim(JUDGE, [RAW]), 1, [out(ALERTS, b"mine")])])
    other.abort_transaction(10)
    assert written_to(cluster, ALERTS) == [b"open", b"", b"mine"]
    assert lines(owner(), ALERTS) == [b"mine"]


def test_ingestion_ends_no_chain_that_it_cannot_be_part_of():
    ingestion = TaskId("ingestion", 0)
    assert rivals_of(ingestion, frozenset(), 1) == ("fused/0",)
    assert rivals_of(ingestion, frozenset(), 2) == ()
    assert rivals_of(TaskId("feature", 1), frozenset(), 2) == ("fused/1",)
    assert rivals_of(TaskId("feature", 1), frozenset(STAGES), 2) == ("feature/1",)


def test_an_identity_may_write_what_its_agents_do_and_only_there_it_looks():
    assert set(written_by("model/1", 3)) == {("model", 1), (Topic.PREDICTIONS, 1), (Topic.DEAD_LETTERS, 0)}
    assert set(written_by("fused/1", 2)) == {
        *((stage, 1) for stage in STAGES), (Topic.RAW_EVENTS, 0), (Topic.RAW_EVENTS, 1), (Topic.FEEDBACK, 0),
        (Topic.FEEDBACK, 1), (Topic.FEATURES, 1), (Topic.PREDICTIONS, 1), (Topic.DECISIONS, 1), (Topic.DEAD_LETTERS, 0),
    }  # fmt: skip
    assert set(written_by("policy/0", 2)) == {("policy", 0), (Topic.POLICY_DECISIONS, 0), (Topic.DEAD_LETTERS, 1)}
