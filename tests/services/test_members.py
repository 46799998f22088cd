"""How Kafka's consumer groups share the partitions of a stage among its replicas, on a real broker."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable

import pytest
from confluent_kafka import ConsumerGroupState

from mendstream.adapters.bus.kafka import topics
from mendstream.adapters.bus.kafka.client import Cluster
from mendstream.adapters.bus.kafka.members import Members
from mendstream.contracts.errors import Fenced
from mendstream.contracts.topics import Topic

pytestmark = [pytest.mark.services, pytest.mark.timeout(120)]
PARTITIONS = 4
DEADLINE_S = 60.0
_numbers = itertools.count()


@pytest.fixture
def cluster(kafka) -> Cluster:
    cluster = Cluster(kafka.address, namespace=f"members-{os.getpid()}-{next(_numbers)}")
    topics.make(cluster, PARTITIONS)
    return cluster


@pytest.fixture
def join(cluster):
    joined = []

    def join(name: str, lead: Topic = Topic.RAW_EVENTS) -> Members:
        joined.append(Members(cluster, name.partition("-")[0], name, lead))
        return joined[-1]

    yield join
    for member in joined:
        member.close()


def until(true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + DEADLINE_S
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)  # between two looks; the deadline is what counts
    return True


def shared(*members: Members) -> list[int]:
    """How many partitions each has, if together they have all, each once."""
    mine = [member.partitions for member in members]
    return [len(m) for m in mine] if sorted(itertools.chain(*mine)) == list(range(PARTITIONS)) else []


def test_a_replica_alone_has_all_partitions_and_shares_them_with_who_joins(join):
    first = join("feature-0")
    assert until(lambda: shared(first) == [4])
    second = join("feature-1")
    assert until(lambda: shared(first, second) == [2, 2])


def test_who_is_started_again_under_its_name_has_its_partitions_back_and_the_others_keep_theirs(join):
    first, second = join("feature-0"), join("feature-1")
    assert until(lambda: shared(first, second) == [2, 2])
    kept, mine = first.partitions, second.partitions
    second.close()
    again = join("feature-1")
    assert until(lambda: again.partitions == mine)
    assert first.partitions == kept


def test_the_partitions_of_who_is_gone_for_good_go_to_the_others(join):
    first, second = join("feature-0"), join("feature-1")
    assert until(lambda: shared(first, second) == [2, 2])
    second.close()
    assert until(lambda: shared(first) == [4])


def test_of_a_role_with_one_task_one_works_and_the_other_stands_by_until_it_is_gone(join):
    first = join("healing-0", Topic.ALERTS)
    assert until(lambda: first.partitions == (0,))
    second, witness = join("healing-1", Topic.ALERTS), join("healing-2", Topic.ALERTS)
    first.close()
    assert until(lambda: {second.partitions, witness.partitions} == {(0,), ()})


def test_who_works_goes_on_when_another_comes_to_stand_by(join, cluster):
    first = join("healing-0", Topic.ALERTS)
    assert until(lambda: first.partitions == (0,))
    second = join("healing-1", Topic.ALERTS)
    assert until(lambda: met(cluster, "healing") == 2)
    assert (first.partitions, second.partitions) == ((0,), ())


def test_of_two_under_one_name_the_first_is_told_that_it_is_that_no_more(join):
    first = join("feature-0")
    assert until(lambda: shared(first) == [4])
    second = join("feature-0")
    assert until(lambda: shared(second) == [4])
    assert until(lambda: fenced(first))


def met(cluster: Cluster, role: str) -> int:
    """How many members a group has that has settled who has what."""
    admin, group = cluster.admin(), cluster.group(f"{role}-members")
    told = admin.describe_consumer_groups([group])[group].result()
    return len(told.members) if told.state is ConsumerGroupState.STABLE else 0


def fenced(member: Members) -> bool:
    try:
        return member.partitions == ()
    except Fenced as error:
        return "feature-0" in str(error)
