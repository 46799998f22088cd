"""`mendstream run` as people meet it: stopped, killed, started twice, frozen on the lock, crowded out of its ports."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import socket
import time
from multiprocessing import forkserver

import psutil
import pytest
from tests.processes import hanging
from tests.processes.house import STAGES, Running, Spawned, mendstream, run_options, wait_for

from mendstream.adapters.bus.watch import LockWatch
from mendstream.contracts.topics import Topic
from mendstream.demo.accounting import account
from mendstream.demo.source import bench_lines
from mendstream.runtime import worker
from mendstream.runtime.clock import WallClock
from mendstream.runtime.roster import ROLE_OF
from mendstream.simulation.spawned import living

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]

STOP_S = 3.0


def _serving(house):
    house.open().until(house.serving, why="it serves")


def _finish_and_count(root):
    """Start a house on what another one has left, let it decide what waits, and count."""
    with Running(root) as house:
        house.until(house.serving, why="it goes on where the other one ended")
        house.drain()
    return account(root)


def test_sigterm_stops_everything_within_three_seconds_and_loses_nothing(tmp_path):
    with Spawned(tmp_path) as house:
        _serving(house)
        family = house.note_family()
        assert len(living(family)) >= len(STAGES) + 6
        started = time.monotonic()
        house.process.terminate()
        code = house.wait()
        took = time.monotonic() - started
        assert code == 0, house.rest()
        wait_for(lambda: not living(family), 1, why="no process is left")
        assert took < STOP_S
    counted = _finish_and_count(tmp_path)
    assert counted.exact, counted.text


def test_killing_the_supervisor_leaves_no_orphan_not_even_a_stopped_one(tmp_path):
    with Spawned(tmp_path) as house:
        _serving(house)
        family = house.note_family()
        os.kill(house.children()["decision-0"]["pid"], signal.SIGSTOP)
        house.process.kill()
        house.wait()
        wait_for(lambda: not living(family), 5, why=f"no process is left: {living(family)}")
    counted = _finish_and_count(tmp_path)
    assert counted.exact, counted.text


def test_everything_dies_at_once_and_everything_comes_back(tmp_path):
    with Running(tmp_path) as house:
        house.until(house.calm)
        living_before = house.processes
        os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)  # the parent of all: each of them ends with it
        house.until(lambda: not any(house.shown(f"{stage}-0")["alive"] for stage in STAGES), 10, why="all are dead")
        house.until(lambda: all(house.reborn(f"{stage}-0", 1) for stage in STAGES) and house.calm())
        assert house.processes == living_before
        assert {case.head.subject for case in house.news.cases.values()} <= {f"{stage}-0" for stage in STAGES}
        house.drain()
    counted = account(tmp_path)
    assert counted.exact, counted.text


def test_a_process_that_dies_again_while_its_restart_is_being_verified_is_restarted_at_once(tmp_path):
    with Running(tmp_path) as house:
        house.until(house.calm)
        case = house.incident(house.hurt("dead-agent"), "AGENT_DOWN")
        house.until(lambda: case.phase == "VERIFYING" and house.reborn("model-0", 1), why="it runs again")
        house.hurt("dead-agent")
        house.until(lambda: house.reborn("model-0", 2), 10, why="it runs once more")
        assert house.ended(case).resolved


def test_a_control_process_that_hangs_in_a_step_while_its_heart_beats_is_ended_and_starts_again(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "main", hanging.main)
    monkeypatch.setitem(ROLE_OF, "judge", dataclasses.replace(ROLE_OF["judge"], turn_s=3.0))
    with Running(tmp_path) as house:
        house.until(house.calm)
        hanging.order(tmp_path).touch()
        house.until(lambda: house.reborn("judge-0", 1), why="the judge is ended, and started again")
        said = house.process_log("supervisor")
        assert "does not come to the end of its turn: killing it" in said
        assert "is silent" not in said
        last = house.vitals.at_us
        house.until(lambda: house.vitals.at_us > last and house.calm(), why="somebody watches again")
        house.drain()
    counted = account(tmp_path)
    assert counted.exact, counted.text


def test_a_second_run_on_the_same_directory_is_refused_and_the_first_one_goes_on(tmp_path):
    with Spawned(tmp_path) as house:
        _serving(house)
        second = mendstream("run", *run_options(house.settings, {}))
        assert second.returncode == 3
        assert f"a house runs on {tmp_path} already (pid {house.process.pid})" in second.stderr
        assert "--data DIR" in second.stderr
        assert "Traceback" not in second.stderr
        decided = house.end(Topic.DECISIONS)
        house.until(lambda: house.end(Topic.DECISIONS) > decided + 300, why="the first one serves")
        assert house.process.poll() is None


def test_a_file_named_instead_of_another_is_read_from_its_beginning(tmp_path):
    lines = bench_lines(300)
    for name, part in (("a", lines[:200]), ("b", lines[200:])):
        (tmp_path / f"{name}.jsonl").write_bytes(b"\n".join(part) + b"\n")
    for name, decided in (("a", 200), ("b", 300), ("a", 300)):
        source = f"file:{tmp_path / name}.jsonl"
        with Running(tmp_path / "house", run__fuse=True, ingestion__source=source, ingestion__rate=0.0) as house:
            house.until(lambda n=decided: house.end(Topic.DECISIONS) >= n, why=f"{name} is decided")
            house.go_on(0.5)
            assert house.end(Topic.DECISIONS) == decided


def test_a_process_that_is_stopped_while_it_holds_the_write_lock_is_killed_and_all_go_on(tmp_path):
    with Running(tmp_path, ingestion__rate=2000.0) as house:
        house.until(house.calm)
        process = _stopped_on_the_lock(house, "data")
        generation = house.shown(process)["generation"]
        decided = house.end(Topic.DECISIONS)
        house.until(lambda: house.end(Topic.DECISIONS) > decided + 2000, 30, why="decisions come out again")
        house.until(lambda: "has held the write lock too long" in house.process_log("supervisor"), why="it is killed")
        house.until(lambda: house.reborn(process, generation), why=f"{process} is started again")
        (case,) = [c for c in house.news.cases.values() if c.head.subject == process]
        assert house.ended(case).resolved
        assert {c.head.type for c in house.news.cases.values()} == {"AGENT_DOWN"}
        house.until(house.calm)
        house.drain()
    counted = account(tmp_path)
    assert counted.exact, counted.text


def test_a_supervisor_that_wants_to_write_itself_frees_the_lock_all_the_same(tmp_path):
    with Running(tmp_path) as house:
        house.until(house.calm)
        _stopped_on_the_lock(house, "control")
        house.kill("recorder-0")
        house.until(lambda: house.reborn("recorder-0", 1), 20, why="the end was written down, and answered")
        house.until(lambda: "has held the write lock too long" in house.process_log("supervisor"), why="it is killed")
        house.until(house.calm)


def _stopped_on_the_lock(house, wing):
    """Stop the process that just writes to a wing, at a moment at which it holds the lock; its name."""
    watch = LockWatch(house.root / "run" / f"lock-{wing}", WallClock())
    names = {child["pid"]: name for name, child in house.house.shown().items()}
    end = time.monotonic() + 60
    while time.monotonic() < end:
        holder = watch.holder()
        if holder is None or holder.pid not in names:
            continue
        os.kill(holder.pid, signal.SIGSTOP)
        _stopped(holder.pid)
        if _keeps(watch, holder):
            watch.close()
            return names[holder.pid]
        os.kill(holder.pid, signal.SIGCONT)
        house.tick()
    raise AssertionError("nobody was caught with the lock")


def _keeps(watch, holder):
    """Everybody writes several times a second: one that had just given the lock back would be overwritten by now."""
    end = time.monotonic() + 0.4
    while time.monotonic() < end:
        if watch.holder() != holder:
            return False
    return True


def _stopped(pid):
    while psutil.Process(pid).status() != psutil.STATUS_STOPPED:
        pass


def test_a_control_process_that_is_stopped_is_killed_and_started_again_without_an_incident(tmp_path):
    with Running(tmp_path) as house:
        house.until(house.calm)
        for process in ("judge-0", "healing-0", "policy-0"):
            house.kill(process, signal.SIGSTOP)
        house.until(
            lambda: all(house.shown(p)["generation"] == 2 for p in ("judge-0", "healing-0", "policy-0")),
            30,
            why="the three are started again",
        )
        assert "a control process is silent" in house.process_log("supervisor")
        house.until(house.calm)
        case = house.ended(house.incident(house.hurt("dead-agent"), "AGENT_DOWN"))
        assert case.resolved, "they do their work again"
        assert len(house.news.cases) == 1


def test_taken_ports_are_warned_about_and_stop_nobody(tmp_path):
    base, taken = _free_ports()
    with taken, Running(tmp_path, metrics__enabled=True, metrics__base_port=base) as house:
        house.until(house.serving)
        assert str(base + 2) in house.process_log("model-0")
        assert '"level": "warning"' in house.process_log("model-0")
        assert all(house.shown(f"{stage}-0")["generation"] == 1 for stage in STAGES)
        with contextlib.closing(socket.create_connection(("127.0.0.1", base), 5)) as scrape:
            scrape.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            assert b"200" in scrape.recv(64)


def _free_ports():
    """Seven free ports in a row; the third of them, which is the model's, taken."""
    for base in range(21001, 60000, 10):
        held = []
        try:
            for port in range(base, base + 7):
                one = socket.socket()
                held.append(one)
                one.bind(("127.0.0.1", port))
        except OSError:
            for one in held:
                one.close()
            continue
        for n, one in enumerate(held):
            if n != 2:
                one.close()
        held[2].listen()
        return base, held[2]
    raise AssertionError("no seven ports in a row are free")
