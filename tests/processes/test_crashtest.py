"""`mendstream crashtest` as people meet it: it kills, counts, and says what it has covered when it is interrupted."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys

import psutil
import pytest
from tests.processes.house import MENDSTREAM, mendstream, wait_for

from mendstream.simulation import crash, stream
from mendstream.simulation.spawned import living

pytestmark = [pytest.mark.processes, pytest.mark.timeout(400)]

KILLS = 15
DEADLINE_S = 300


@pytest.fixture(scope="module")
def told():
    """What a short run says, fused: (exit code, document, lines on the way)."""
    done = mendstream("crashtest", "--kills", str(KILLS), "--fuse", "--seed", "3", "--json", deadline_s=DEADLINE_S)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout), done.stderr.splitlines()


def test_nothing_is_lost_doubled_or_decided_otherwise_and_nobody_is_left(told):
    code, found, _ = told
    wrong = {name: found[name] for name in ("lost", "duplicated", "different", "orphans")}
    assert wrong == {"lost": 0, "duplicated": 0, "different": 0, "orphans": 0}, found
    assert found["flaws"] == []
    assert code == 0


def test_it_killed_as_often_as_it_was_asked_to_and_not_only_one_of_them(told):
    _, found, _ = told
    assert found["kills"] == sum(found["killed"].values()) == KILLS
    assert len(found["killed"]) > 3
    assert not found["interrupted"]


def test_there_were_events_repeats_and_dead_letters_to_count(told):
    _, found, _ = told
    assert found["events"] > 500
    assert found["repeats_dropped"] > found["events"] // (2 * stream.REPEAT_EVERY)
    assert found["dead_letters"] >= found["events"] // stream.CUT_EVERY
    assert found["compared"] > found["events"] * 0.9


def test_raised_budgets_are_said(told):
    _, found, lines = told
    assert found["budgets_raised"] == crash.BUDGETS
    assert all(f"{name} = {value}" in lines[0] for name, value in crash.BUDGETS.items())


def test_interrupted_it_counts_what_it_has_covered_and_leaves_nobody():
    command = [str(MENDSTREAM), "crashtest", "--kills", "100000", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stderr is not None
        next(line for line in run.stderr if re.match(r"killing: \d+ of 100000", line))
        family = psutil.Process(run.pid).children(recursive=True)
        assert family
        run.send_signal(signal.SIGINT)
        out, _ = run.communicate(timeout=DEADLINE_S)
    found = json.loads(out)
    assert run.returncode == 130
    assert found["interrupted"]
    assert 10 <= found["kills"] < 1000
    assert (found["lost"], found["duplicated"], found["different"], found["orphans"]) == (0, 0, 0, 0)
    assert not living(family)


@pytest.mark.skipif(sys.platform != "linux", reason="the system ends a process with its parent on Linux only")
def test_a_harness_that_is_killed_takes_its_house_with_it(tmp_path):
    command = [str(MENDSTREAM), "crashtest", "--kills", "100000"]
    env = {**os.environ, "TMPDIR": str(tmp_path)}  # it cannot clear away what it has made
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=env) as run:
        assert run.stderr is not None
        next(line for line in run.stderr if re.match(r"killing: \d+ of 100000", line))
        family = psutil.Process(run.pid).children(recursive=True)
        run.kill()
    assert family
    wait_for(lambda: not living(family), 30, why="its house ends")
