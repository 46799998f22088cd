"""Kill -9 of every process at random moments during traffic, unfused, fused, with backlog: every event once."""

from __future__ import annotations

import contextlib
import os
import signal
from collections import Counter

import psutil
import pytest
from tests.processes.house import CONTROL, STAGES, Running
from tests.processes.monkey import BUDGET, Monkey

from mendstream.contracts.agent import TaskId
from mendstream.contracts.records import Command, CommandResult, ConfigChange
from mendstream.contracts.topics import Stream, Topic
from mendstream.demo.accounting import account

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]

SEED = int(os.environ.get("KILL_SEED", "20260101"))
KILLS = {"apart": 20, "fused": 16, "apart again": 16}
"""With those at the switches, more than 50."""
RATE = 1000.0
BACKLOG = 400


class Run:
    """One data directory, and what was killed on it."""

    def __init__(self, root):
        self.root = root
        self.killed: Counter[str] = Counter()
        self.backlog: dict[str, int] = {}
        self.flaws: dict[str, str] = {}
        self.projected: dict[str, tuple] = {}

    def house(self, *, fuse):
        return Running(self.root, run__fuse=fuse, ingestion__rate=RATE, **BUDGET)

    def note(self, chapter, house, monkey):
        """What has to hold whenever a chapter ends."""
        self.killed += monkey.killed
        house.until(house.calm, 120, why=f"{chapter}: all is well again after {dict(monkey.killed)}, seed {SEED}")
        for case in house.news.cases.values():
            house.recorded(case)
        self.flaws[chapter] = house.chain_flaw()
        told = {case.id: (case.head.status.value, len(case.actions)) for case in house.news.cases.values()}
        rows = {
            row["incident_id"]: (row["status"], row["n"])
            for row in house.sql(
                "select i.incident_id, i.status, count(a.action_id) n from incidents i "
                "left join healing_actions a using (incident_id) group by i.incident_id, i.status"
            )
        }
        self.projected[chapter] = told, rows


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return Run(tmp_path_factory.mktemp("killed"))


@pytest.fixture(scope="module")
def apart(run):
    """A process per agent; it ends with rows waiting between the stages."""
    with run.house(fuse=False) as house:
        house.until(house.calm)
        monkey = Monkey(house, SEED)
        monkey.rage(KILLS["apart"])
        run.note("apart", house, monkey)
        house.until(lambda: _pile_up(house), why="rows wait for the model")
    return run


@pytest.fixture(scope="module")
def fused(run, apart):
    """The same log fused: killed at once, while it works off what waits, and then at random."""
    with run.house(fuse=True) as house:
        run.backlog["fused"] = _waiting(house)
        monkey = Monkey(house, SEED + 1)
        house.until(lambda: house.shown("fused-0")["alive"])
        house.go_on(0.3)
        monkey.kill("fused-0")
        monkey.rage(KILLS["fused"])
        run.note("fused", house, monkey)
    return run


@pytest.fixture(scope="module")
def again(run, fused):
    """A process per agent again: all four stages killed at once as soon as they are there; then drained and counted."""
    with run.house(fuse=False) as house:
        monkey = Monkey(house, SEED + 2)
        house.until(lambda: all(house.shown(f"{stage}-0")["alive"] for stage in STAGES))
        house.go_on(0.3)
        for stage in STAGES:
            monkey.kill(f"{stage}-0")
        monkey.rage(KILLS["apart again"])
        run.note("apart again", house, monkey)
        run.news = house.news
        house.drain()
    return run


def _pile_up(house):
    """Stop the model until enough rows wait for it. One that is stopped with the lock in its hand stops everybody, and
    is killed and started anew: then once more.
    """
    model = house.shown("model-0")
    with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):  # it has just ended: next time
        if model["alive"] and psutil.Process(model["pid"]).status() != psutil.STATUS_STOPPED:
            house.kill("model-0", signal.SIGSTOP)
    return _waiting(house) >= BACKLOG


def _waiting(house):
    """Rows between feature and model."""
    stream = Stream(Topic.FEATURES, 0)
    return house.bus.bounds(stream)[1] - (house.bus.position(TaskId("model", 0), stream) or 0)


def test_at_least_fifty_processes_were_killed_and_each_kind_of_them(again):
    assert again.killed.total() >= 50, again.killed
    everyone = {f"{name}-0" for name in (*STAGES, "fused", *CONTROL)}
    assert everyone <= set(again.killed), again.killed


def test_there_was_backlog_when_the_stages_were_fused(again):
    assert again.backlog["fused"] >= BACKLOG


def test_every_event_was_decided_exactly_once(again):
    counted = account(again.root)
    assert counted.missing == 0, counted.text
    assert counted.duplicated == 0, counted.text
    assert counted.events == counted.decisions > 10_000
    assert counted.dead_letters == 0


def test_nothing_that_healing_ordered_was_done_twice(again):
    results = [r for r in again.news.of(Topic.COMMAND_RESULTS, CommandResult) if r.action_id]
    done = Counter(result.action_id for result in results if result.outcome == "done")
    ordered = Counter(c.action_id for c in again.news.of(Topic.COMMANDS, Command))
    assert max(done.values()) == 1
    assert max(ordered.values()) == 1


def test_no_knob_was_turned_twice_for_one_action(again):
    config, turned = 0, Counter()
    for change in again.news.of(Topic.CONFIG_UPDATES, ConfigChange):
        if change.base_version == config:
            config += 1
            turned[change.action_id or change.id] += 1
    assert max(turned.values()) == 1


def test_the_incident_log_is_one_unbroken_chain_whoever_was_killed(again):
    assert again.flaws == {"apart": "", "fused": "", "apart again": ""}


def test_sql_tells_of_every_incident_what_the_log_tells(again):
    for chapter, (told, rows) in again.projected.items():
        assert told == rows, chapter


def test_every_incident_has_ended(again):
    assert {case.head.status.value for case in again.news.cases.values()} <= {"RESOLVED", "FAILED"}
