"""A second machine on the same brokers: a replica that no supervisor knows joins, dies, and its work goes on."""

from __future__ import annotations

import os
import signal
import subprocess
from collections import Counter

import pytest
from tests.processes.house import MENDSTREAM, Running, house_settings, working_in

from mendstream.contracts.topics import Topic
from mendstream.demo.accounting import Broker, account
from mendstream.settings import to_environment

pytestmark = [pytest.mark.processes, pytest.mark.services, pytest.mark.timeout(240)]
PARTITIONS = 4
ELSEWHERE = "feature-7"


@pytest.fixture(scope="module")
def shared(kafka):
    """What the settings of both machines have in common."""
    return {
        "bus__kind": "kafka", "bus__bootstrap_servers": kafka.address, "run__namespace": f"group-{os.getpid()}",
        "run__partitions": PARTITIONS, "run__assignment": "group",
    }  # fmt: skip


@pytest.fixture(scope="module")
def house(shared, tmp_path_factory):
    root = tmp_path_factory.mktemp("here")
    with working_in(root), Running(root / "house", **shared) as house:
        house.until(lambda: set(shares(house)) == {"feature-0"}, why="one replica has all partitions")
        house.until(house.serving, why="the house serves")
        yield house


@pytest.fixture(scope="module")
def elsewhere(house, shared, tmp_path_factory):
    """The replica, in a data directory of its own."""
    settings = house_settings(tmp_path_factory.mktemp("elsewhere") / "house", **shared)
    environment = {**os.environ, **to_environment(settings)}
    command = [str(MENDSTREAM), "agent", "feature", "--replica", ELSEWHERE.rpartition("-")[2]]
    with subprocess.Popen(command, env=environment, cwd=house.root) as process:
        yield process
        process.kill()


@pytest.fixture(scope="module")
def joined(house, elsewhere):
    half = PARTITIONS // 2
    house.until(lambda: shares(house) == {"feature-0": half, ELSEWHERE: half}, why="the work is shared evenly")
    house.until(house.serving, why="the house serves")
    return shares(house)


@pytest.fixture(scope="module")
def bereft(house, joined, elsewhere):
    elsewhere.send_signal(signal.SIGKILL)
    house.until(lambda: set(shares(house)) == {"feature-0"}, why="the survivor has all partitions")
    house.until(house.serving, 120, why="the house serves")
    return house


def shares(house: Running) -> Counter[str]:
    """process -> how many of the feature tasks it has; none while they are handed over or unwell."""
    tasks = [] if house.news.vitals is None else [t for t in house.vitals.tasks if t.task.startswith("feature/")]
    well = all(task.state == "OK" for task in tasks) and len({task.task for task in tasks}) == PARTITIONS
    return Counter(task.process for task in tasks if well)


def test_the_partitions_are_shared_evenly_among_the_machines_and_stay_so(house, joined):
    house.go_on(3)
    assert shares(house) == joined


def test_the_work_of_a_machine_that_is_gone_goes_on_elsewhere(bereft):
    assert all(bereft.task(f"feature/{p}").process == "feature-0" for p in range(PARTITIONS))


def test_no_event_was_lost_or_decided_twice(bereft, shared):
    assert min(bereft.end(Topic.DECISIONS, p) for p in range(PARTITIONS)) > 100
    bereft.drain()
    bereft.stop()
    counted = account(Broker(shared["bus__bootstrap_servers"], shared["run__namespace"]))
    assert counted.exact, counted.text
