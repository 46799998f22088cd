"""The house on a real broker: healed as on the embedded log, and every event once through whatever happens to it."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter

import psutil
import pytest
from tests.processes.house import MENDSTREAM, STAGES, Running, run_options
from tests.processes.monkey import BUDGET, Monkey
from tests.support.services import service
from tools.services.kafka import QUICK

from mendstream.contracts.agent import TaskId
from mendstream.contracts.topics import Stream, Topic
from mendstream.demo.accounting import Broker, account
from mendstream.settings import models_dir
from mendstream.simulation.calm import drained

pytestmark = [pytest.mark.brokers, pytest.mark.timeout(300)]

SEED = int(os.environ.get("KILL_SEED", "20260101"))
KILLS = 8
TRANSACTION_S = 12.0
"""The broker ends a transaction after 10 s."""
FROZEN_S = 10.0
_numbers = itertools.count()
AWAY_S = 8.0
STOPS_S = 15.0


@pytest.fixture(scope="module")
def broker():
    """Of our own: it is hurt."""
    with service("kafka", jvm=QUICK) as running:
        yield running


class Site:
    """One namespace of a broker and one data directory; houses run there one after the other."""

    def __init__(self, root, broker, name):
        self.root = root
        self.broker = broker
        self.given = {
            "bus__kind": "kafka",
            "bus__bootstrap_servers": broker.address,
            "run__namespace": name,
            **BUDGET,
        }

    def house(self, **more):
        return Running(self.root, **self.given, **more)

    def counted(self):
        """Let what was accepted be decided, by a house that gets nothing more; then count."""
        with self.house(ingestion__source="") as house:
            house.until(lambda: owned(house) and drained(house.bus), why="what waits is decided")
        return account(Broker(self.broker.address, self.given["run__namespace"]))


@pytest.fixture
def site(tmp_path, broker, request):
    name = re.sub("[^a-z0-9]+", "-", request.node.name).strip("-")
    return Site(tmp_path / "house", broker, f"{name[:24]}-{os.getpid()}-{next(_numbers)}")


def owned(house):
    """Every task has an owner, who has ended what an earlier one had begun."""
    vitals = house.news.vitals
    fresh = vitals is not None and vitals.at_us > house.started_us
    return fresh and all(task.state == "OK" for task in vitals.tasks)


def exact(counted, least):
    assert (counted.missing, counted.duplicated, counted.dead_letters) == (0, 0, 0), counted.text
    assert counted.events == counted.decisions > least


def generations(house):
    return {name: child["generation"] for name, child in house.house.shown().items()}


# --- healed and killed -----------------------------------------------------------------------------------------------


def test_a_slow_model_and_a_dead_agent_are_healed_and_proven(site):
    with site.house() as house:
        house.warm_up()
        slow = house.ended(house.incident(house.hurt("slow-model"), "LATENCY_SLO_BREACH"))
        house.hurt("slow-model", on=False)
        house.until(house.calm, 120)
        dead = house.ended(house.incident(house.kill("model-0"), "AGENT_DOWN"))
        house.until(house.calm, 120)
        assert slow.resolved
        assert slow.proof
        assert dead.resolved
        assert dead.kinds == ["RESTART"]
        assert house.chain_flaw() == ""
    exact(site.counted(), 5000)


def test_every_event_is_decided_once_whoever_is_killed_fused_or_not(site):
    killed = Counter()
    for number, fuse in enumerate((False, True, False)):
        with site.house(run__fuse=fuse) as house:
            monkey = Monkey(house, SEED + number)
            if number:  # at once, while what waits is worked off
                first = ["fused-0"] if fuse else [f"{stage}-0" for stage in STAGES]
                house.until(lambda house=house, first=first: all(house.shown(name)["alive"] for name in first))
                for name in first:
                    monkey.kill(name)
            else:
                house.until(house.calm, 120)
            monkey.rage(KILLS)
            house.until(house.calm, 180, why=f"all is well again after {dict(monkey.killed)}, seed {SEED}")
            killed += monkey.killed
            if number < 2:
                house.until(lambda house=house, fuse=fuse: piled_up(house, "model-0", fuse), why="rows wait")
    exact(site.counted(), 5000)
    assert killed.total() >= 3 * KILLS
    assert {f"{name}-0" for name in (*STAGES, "fused")} <= set(killed), killed


def piled_up(house, process, fuse):
    """Stop the model until rows wait for it; fused, nothing can wait between the stages."""
    if fuse:
        return True
    child = house.shown(process)
    with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
        if child["alive"] and psutil.Process(child["pid"]).status() != psutil.STATUS_STOPPED:
            house.kill(process, signal.SIGSTOP)
    stream = Stream(Topic.FEATURES, 0)
    return house.bus.waiting(stream, house.bus.position(TaskId("model", 0), stream) or 0) >= 3


# --- two of one name -------------------------------------------------------------------------------------------------


def test_a_worker_that_sleeps_longer_than_a_transaction_may_take_is_fenced_by_who_has_its_place(site, tmp_path):
    with site.house() as house:
        house.until(house.calm, 120)
        assert house.said_by("pause", *options_of(house)).returncode == 0
        sleeper = house.shown("model-0")
        house.kill("model-0", signal.SIGSTOP)
        with agent("model", house, tmp_path / "other") as other:
            decides_again(house)
            served_for(house, TRANSACTION_S)
            assert other.poll() is None
            os.kill(sleeper["pid"], signal.SIGCONT)
            house.until(lambda: not house.shown("model-0")["alive"], why="the older one ends")
            decides_again(house)
            assert other.poll() is None
        assert "was taken over" in house.process_log("model-0") or "has taken over" in house.process_log("model-0")
    exact(site.counted(), 2000)


def options_of(house):
    """That say where its log is."""
    return [f"--set={key}={value}" for key, value in site_given(house).items()]


@contextlib.contextmanager
def agent(name, house, folder):
    """The same stage of the same pipeline, from another machine, as it were."""
    folder.mkdir()
    shutil.copytree(models_dir(house.settings), folder / "models")
    *options, _, _ = run_options(house.settings, site_given(house))
    words = [str(MENDSTREAM), "agent", name, *options, "--data", str(folder)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.communicate(timeout=20)


def site_given(house):
    return {
        "bus.kind": "kafka",
        "bus.bootstrap_servers": house.settings.bus.bootstrap_servers,
        "run.namespace": house.settings.run.namespace,
    }


# --- the broker is hurt ----------------------------------------------------------------------------------------------


def served_for(house, seconds):
    """Serve the house so long, whatever the log says."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        house.tick()


def decides_again(house):
    """Wait until it serves, as is told from now on."""
    since_us = house.now_us
    house.until(lambda: house.vitals.at_us > since_us and house.calm(), 120, why="it serves again")


@pytest.mark.parametrize("fuse", [False, True], ids=["apart", "fused"])
def test_a_broker_that_freezes_is_waited_for(site, fuse):
    with site.house(run__fuse=fuse) as house:
        house.until(house.calm, 120)
        before = generations(house)
        site.broker.freeze()
        served_for(house, FROZEN_S)
        site.broker.thaw()
        decides_again(house)
        house.until(house.calm, 120)
        house.go_on(3)
        assert generations(house) == before, house.story()
        assert not [case for case in house.news.cases.values() if case.actions], house.story()
    exact(site.counted(), 2000)


@pytest.mark.parametrize("fuse", [False, True], ids=["apart", "fused"])
def test_a_broker_that_is_killed_and_comes_back_is_waited_for(site, fuse):
    with site.house(run__fuse=fuse) as house:
        house.until(house.calm, 120)
        before = generations(house)
        site.broker.kill()
        served_for(house, AWAY_S)
        site.broker.restart()
        decides_again(house)
        house.until(house.calm, 120)
        assert generations(house) == before, house.story()
        assert not [case for case in house.news.cases.values() if case.actions], house.story()
    exact(site.counted(), 2000)


def test_a_house_whose_broker_is_away_stops_when_it_is_told_to(site):
    with site.house() as house:
        house.until(house.calm, 120)
        site.broker.kill()
        served_for(house, AWAY_S)
        began = time.monotonic()
        house.stop()
        took = time.monotonic() - began
    site.broker.restart()
    assert took < STOPS_S
    exact(site.counted(), 2000)
