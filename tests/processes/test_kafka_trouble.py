"""A house on a real broker whose topics or groups turn against it: each event once, or told and counted."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess

import pytest
from tests.processes.house import MENDSTREAM, Running, Spawned, house_settings, working_in
from tests.processes.monkey import BUDGET
from tests.support.brokers import Operator

from mendstream.adapters.bus.kafka import topics
from mendstream.adapters.bus.kafka.client import Cluster
from mendstream.contracts.topics import Topic
from mendstream.demo.accounting import Broker, account
from mendstream.settings import to_environment

pytestmark = [pytest.mark.processes, pytest.mark.services, pytest.mark.timeout(240)]

_numbers = itertools.count()
FRAMES = (Topic.RAW_EVENTS, Topic.FEATURES, Topic.PREDICTIONS)


@pytest.fixture
def site(kafka, tmp_path):
    return Site(kafka.address, f"turned-{os.getpid()}-{next(_numbers)}", tmp_path / "house")


class Site:
    def __init__(self, address, namespace, root):
        self.address, self.namespace, self.root = address, namespace, root
        self.operator = Operator(address)
        self.cluster = Cluster(address, namespace)
        self.given = {
            "bus__kind": "kafka", "bus__bootstrap_servers": address, "run__namespace": namespace, **BUDGET,
        }  # fmt: skip

    def narrow(self, size):
        """Topics of frames that take no message of more than `size` bytes."""
        topics.make(self.cluster, 1)
        for topic in FRAMES:
            self.operator.set(self.cluster.topic(topic), max_message_bytes=size)

    def counted(self):
        return account(Broker(self.address, self.namespace))


def exact(counted, least):
    assert (counted.missing, counted.duplicated, counted.dead_letters) == (0, 0, 0), counted.text
    assert counted.events == counted.decisions > least


# --- sizes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fuse", [False, True], ids=["apart", "fused"])
def test_where_a_broker_takes_small_messages_turns_become_smaller_and_no_event_is_lost(site, fuse):
    site.narrow(6000)
    with Running(site.root, **site.given, run__fuse=fuse, ingestion__rate=1500.0) as house:
        first = "fused-0" if fuse else "ingestion-0"
        house.until(lambda: "fewer rows a turn" in house.process_log(first), why="a turn was too large")
        house.until(lambda: house.news.vitals is not None and house.served() > 50, 90, why="it goes on")
        house.go_on(3)
        house.drain()
    exact(site.counted(), 300)


def test_a_broker_that_takes_not_even_one_event_stops_the_house_with_the_command_and_nothing_is_lost(site):
    site.narrow(600)
    with Spawned(site.root, **site.given) as house:
        code, said = house.wait(90), house.rest()
    assert code == 3
    assert "takes no message of this size" in said
    assert "mendstream topics check" in said
    site.narrow(1 << 20)
    with Running(site.root, **site.given) as house:
        house.until(house.serving, 90)
        house.drain()
    exact(site.counted(), 200)


# --- retention -------------------------------------------------------------------------------------------------------


def test_a_stage_that_was_frozen_while_retention_passed_it_says_how_much_it_has_missed(site):
    with Running(site.root, **site.given) as house:
        house.until(house.serving, 90)
        house.told("pause", *(f"--set={name}={value}" for name, value in named(site).items()))
        house.kill("feature-0", signal.SIGSTOP)
        at = house.end(Topic.RAW_EVENTS)
        house.until(lambda: house.end(Topic.RAW_EVENTS) > at + (20 << 17), why="events wait for it")
        site.operator.trim(site.cluster.topic(Topic.RAW_EVENTS), -1)
        house.kill("feature-0", signal.SIGCONT)
        house.until(lambda: "deleted by retention" in house.process_log("feature-0"), why="the loss is told")
        house.until(house.serving, 90)
        house.drain()
    counted = site.counted()
    assert counted.first > 0, counted.text
    assert (counted.missing, counted.duplicated) == (0, 0), counted.text


def named(site):
    return {
        "bus.kind": "kafka", "bus.bootstrap_servers": site.address, "run.namespace": site.namespace,
    }  # fmt: skip


# --- two of one name -------------------------------------------------------------------------------------------------


def test_a_member_that_wakes_after_its_session_has_ended_finishes_nothing_that_is_another_s(site, tmp_path):
    shared = {**site.given, "run__partitions": 2, "run__assignment": "group"}
    with working_in(tmp_path), Running(site.root, **shared) as house:
        house.until(lambda: owners(house) == {"feature-0"}, 90, why="one replica has all partitions")
        with elsewhere(tmp_path / "elsewhere", shared, 7) as other:
            house.until(lambda: owners(house) == {"feature-0", "feature-7"}, 90, why="the work is shared")
            other.send_signal(signal.SIGSTOP)
            house.until(lambda: owners(house) == {"feature-0"}, 90, why="its partition is another's")
            house.until(house.serving, 90)
            other.send_signal(signal.SIGCONT)
            house.until(lambda: owners(house) == {"feature-0", "feature-7"}, 90, why="it joins again")
            house.until(house.serving, 90)
            other.terminate()
            other.wait(20)
        house.until(lambda: owners(house) == {"feature-0"}, 90, why="one has all partitions again")
        house.drain()
    exact(site.counted(), 500)


def test_two_processes_of_the_same_slot_fence_each_other_and_no_event_is_decided_twice(site, tmp_path):
    with working_in(tmp_path), Running(site.root, **site.given) as house:
        house.until(house.serving, 90)
        generation = house.shown("feature-0")["generation"]
        with elsewhere(tmp_path / "elsewhere", site.given, 0) as other:
            house.until(lambda: house.shown("feature-0")["generation"] > generation, 90, why="the older one was fenced")
            house.until(lambda: other.poll() is not None, 90, why="so was the newer one then")
            house.until(house.serving, 90)
        house.drain()
    exact(site.counted(), 500)


def owners(house):
    tasks = [] if house.news.vitals is None else [t for t in house.news.vitals.tasks if t.task.startswith("feature/")]
    return {task.process for task in tasks} if all(task.state == "OK" for task in tasks) else set()


@contextlib.contextmanager
def elsewhere(folder, shared, replica):
    """A feature process of another machine, as it were."""
    settings = house_settings(folder, **shared)
    command = [str(MENDSTREAM), "agent", "feature", "--replica", str(replica)]
    with subprocess.Popen(command, env={**os.environ, **to_environment(settings)}) as process:
        try:
            yield process
        finally:
            process.kill()
