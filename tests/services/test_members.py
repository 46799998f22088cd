"""How Kafka's consumer groups share the partitions of a stage among its replicas, on a real broker."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable

import pytest

from mendstream.adapters.bus.kafka import topics
from mendstream.adapters.bus.kafka.client import Cluster
from mendstream.adapters.bus.kafka.members import Members
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

    def join(name: str) -> Members:
        joined.append(Members(cluster, "feature", name, Topic.RAW_EVENTS))
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
