"""Two machines on the same brokers: one has a house, on the other one of each agent stands by. The first one dies."""

from __future__ import annotations

import contextlib
import os
import subprocess

import pytest
from tests.processes.house import MENDSTREAM, Spawned, house_settings, mendstream, run_options, working_in

from mendstream.contracts.records import Pulse, decode_each
from mendstream.contracts.topics import Stream, Topic
from mendstream.demo.accounting import Broker, account
from mendstream.runtime.inject import inject
from mendstream.settings import to_environment

pytestmark = [pytest.mark.processes, pytest.mark.services, pytest.mark.timeout(300)]
STANDING_BY = ("fused-1", "joiner-1", "judge-1", "policy-1", "healing-1")


@pytest.fixture(scope="module")
def shared(kafka):
    """What the settings of both machines have in common."""
    return {
        "bus__kind": "kafka", "bus__bootstrap_servers": kafka.address, "run__namespace": f"standby-{os.getpid()}",
        "run__assignment": "group", "run__fuse": True,
    }  # fmt: skip


@pytest.fixture(scope="module")
def here(shared, tmp_path_factory):
    root = tmp_path_factory.mktemp("here")
    with working_in(root), Spawned(root / "house", **shared) as house:
        house.open()
        house.until(house.serving, why="the house serves")
        yield house


@pytest.fixture(scope="module")
def elsewhere(here, shared, tmp_path_factory):
    """The agents that stand by, in a data directory of their own."""
    settings = house_settings(tmp_path_factory.mktemp("elsewhere") / "house", **shared)
    environment = {**os.environ, **to_environment(settings)}
    agents = {}
    with contextlib.ExitStack() as stack:
        for name in STANDING_BY:
            role, _, replica = name.rpartition("-")
            command = [str(MENDSTREAM), "agent", role, "--replica", replica]
            agents[name] = stack.enter_context(subprocess.Popen(command, env=environment, cwd=here.root))
            stack.callback(agents[name].kill)
        here.until(lambda: alive(here) >= set(STANDING_BY), why="all that stand by give signs of life")
        yield agents


@pytest.fixture(scope="module")
def served_by_one(here, elsewhere):
    """Who was there first goes on, while the others look on."""
    at_us = here.now_us
    here.until(lambda: here.vitals.at_us > at_us + 5_000_000 and here.serving(), why="the house serves on")
    return here.children()


@pytest.fixture(scope="module")
def refused(here, served_by_one, shared, tmp_path_factory):
    settings = house_settings(tmp_path_factory.mktemp("second") / "house", **shared)
    given = {key.replace("__", "."): value for key, value in shared.items()}
    return mendstream("run", *run_options(settings, given))


@pytest.fixture(scope="module")
def bereft(here, elsewhere, refused):
    """The first machine has gone, with all that ran on it."""
    for process in here.note_family():
        process.kill()
    here.wait()
    here.started_us = here.now_us
    here.until(lambda: owners(here) == {"fused-1"} and here.serving(), 120, why="the others have taken over")
    return here


@pytest.fixture(scope="module")
def healed(bereft):
    """A fault that needs no process to be started, seen and mended by those that are left."""
    at_us = bereft.now_us
    inject(bereft.settings, "slow-model", {}, True, "test", bus=bereft.bus)
    case = bereft.incident(at_us, "LATENCY_SLO_BREACH", 120)
    bereft.until(lambda: case.ended, 120, why="it is healed")
    return case


def owners(house: Spawned) -> set[str]:
    return {task.process for task in house.vitals.tasks}


def alive(house: Spawned) -> set[str]:
    """Processes that have ever given a sign of life."""
    found = set()
    for partition in range(2):
        for block in house.bus.read(Stream(Topic.AGENT_METRICS, partition), 0, max_rows=1 << 30, max_bytes=1 << 30):
            records = decode_each(Topic.AGENT_METRICS, bytes(block.value))
            found |= {record.process for record in records if isinstance(record, Pulse)}
    return found


def test_who_stands_by_takes_nothing_from_who_works(served_by_one, here):
    assert {served_by_one[process]["generation"] for process in ("judge-0", "policy-0", "healing-0")} == {1}
    assert owners(here) <= set(served_by_one)


def test_a_second_house_is_refused_while_the_first_one_lives(refused):
    assert refused.returncode == 3
    assert "a house runs on namespace" in refused.stderr


def test_the_work_of_a_machine_that_is_gone_is_done_by_those_that_stood_by(bereft):
    at_us = bereft.vitals.at_us
    bereft.until(lambda: bereft.vitals.at_us > at_us + 2_000_000 and bereft.serving(), why="they serve on")
    assert owners(bereft) == {"fused-1"}


def test_the_house_heals_itself_without_the_machine_that_has_gone(healed):
    assert healed.resolved
    assert healed.kinds[0] == "SAFE_MODE_ON"


def test_no_event_was_lost_or_decided_twice(healed, bereft, elsewhere, shared):
    elsewhere["fused-1"].terminate()
    elsewhere["fused-1"].wait(30)
    counted = account(Broker(shared["bus__bootstrap_servers"], shared["run__namespace"]))
    assert counted.events > 1000
    assert counted.exact, counted.text
    assert not bereft.chain_flaw()
