"""Two processes share the partitions of a stage: one dies, the other takes its tasks over, and gives them back."""

from __future__ import annotations

import pytest
from tests.processes.house import Running
from tests.processes.monkey import BUDGET

from mendstream.contracts.topics import Topic
from mendstream.demo.accounting import account

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A restart waits for a person here, so that there is time to see who serves meanwhile."""
    root = tmp_path_factory.mktemp("replicas")
    with Running(
        root, run__partitions=2, run__replicas={"model": 2}, policy__modes={"RESTART": "ask"}, **BUDGET
    ) as running:  # fmt: skip
        running.warm_up(seconds=4)
        yield running


@pytest.fixture(scope="module")
def owners(house):
    """Who owned the two tasks of the model stage at first."""
    return {name: house.task(name).process for name in ("model/0", "model/1")}


@pytest.fixture(scope="module")
def orphaned(house, owners):
    """(case, decisions of partition 1 at the death) of the process that owned partition 1."""
    decided = house.end(Topic.DECISIONS, 1)
    case = house.incident(house.kill(owners["model/1"]), "AGENT_DOWN")
    house.until(lambda: case.phase == "ASKED", why="a person is asked")
    return case, decided


@pytest.fixture(scope="module")
def taken_over(house, owners, orphaned):
    """Partition 1's task in vitals, once the other process owns it and decisions come out again."""
    _, decided = orphaned
    house.until(
        lambda: house.task("model/1").process == owners["model/0"] and house.end(Topic.DECISIONS, 1) > decided + 300,
        13,
        why="the survivor serves both partitions",
    )
    return house.task("model/1"), house.shown(owners["model/1"])


@pytest.fixture(scope="module")
def back(house, owners, orphaned, taken_over):
    """The case, after a person has allowed the restart."""
    case, _ = orphaned
    house.told("approve", case.id, "--reason", "yes")
    return house.ended(case)


@pytest.fixture(scope="module")
def overworked(house, owners, back):
    """(incident, task of partition 1 while it was taken over): the same again, but the survivor never comes to rest."""
    house.until(house.calm)
    house.told("pause", "--reason", "nobody helps")
    house.hurt("slow-model", call_ms=0.0, row_ms=8.0)
    house.until(lambda: house.task("model/0").backlog > 200, why="the model cannot keep up")
    decided, since = house.end(Topic.DECISIONS, 1), house.kill(owners["model/1"])
    house.until(
        lambda: house.task("model/1").process == owners["model/0"] and house.end(Topic.DECISIONS, 1) > decided + 100,
        13,
        why="the survivor serves both partitions although it is never done",
    )
    return house.incident(since, "AGENT_DOWN"), house.task("model/1")


@pytest.fixture(scope="module")
def unanswered(house, owners, overworked):
    """Partition 1's task, once the supervisor has started the dead process by itself, a while after the end of the
    incident in which nobody was allowed to.
    """
    case, _ = overworked
    house.hurt("slow-model", on=False)
    house.until(house.serving, why="the survivor has caught up")
    house.told("incidents", "close", case.id, "--reason", "not our affair")
    house.told("resume")
    house.until(lambda: house.task("model/1").process == owners["model/1"], why="its partition is back")
    return house.task("model/1")


def test_each_of_two_replicas_owns_one_partition(owners):
    assert sorted(owners.values()) == ["model-0", "model-1"]


def test_both_partitions_get_events_and_decisions(house, owners):
    assert min(house.end(Topic.RAW_EVENTS, p) for p in (0, 1)) > 100
    assert min(house.end(Topic.DECISIONS, p) for p in (0, 1)) > 100


def test_the_survivor_takes_over_the_partition_of_the_dead_one(taken_over):
    task, dead = taken_over
    assert not dead["alive"]
    assert task.state == "OK"
    assert task.epoch > 1, "the task was claimed anew: whoever had it before is fenced"


def test_the_restarted_one_gets_its_partition_back_and_the_incident_is_resolved(house, owners, back):
    assert back.resolved
    house.until(lambda: house.task("model/1").process == owners["model/1"], why="its partition is back")
    house.until(house.calm)
    assert house.task("model/0").process == owners["model/0"]


def test_handing_a_partition_over_is_no_fault_of_anybody(house, back):
    house.go_on(3)
    down = [alert for alert in house.news.alerts if alert.kind == "AGENT_DOWN" and alert.state == "FIRING"]
    assert [alert.subject for alert in down] == [back.head.subject]


def test_a_survivor_that_never_comes_to_rest_takes_over_all_the_same(overworked):
    _, task = overworked
    assert task.state == "OK"


def test_whoever_comes_back_unasked_gets_its_partition_and_nobody_fights_over_it(house, owners, overworked, unanswered):
    _, taken = overworked
    house.go_on(3)
    now = house.task("model/1")
    assert now.process == owners["model/1"]
    assert now.epoch == unanswered.epoch == taken.epoch + 1
    house.until(house.calm)


def test_no_event_of_either_partition_was_lost_or_decided_twice(house, unanswered):
    house.drain()
    house.stop()
    counted = account(house.root)
    assert counted.exact, counted.text
    assert counted.dead_letters == 0, "a handover is no death, and what was being worked on no poison"
