"""What every restarter has to keep, whatever its processes are. A new one is one more row of WORLDS."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import pytest
from tests.support.child import make_orders, obedient
from tests.support.sim import SimRestarterWorld

from mendstream.adapters.bus.bell import FifoBell
from mendstream.contracts.errors import CouldNot
from mendstream.runtime.clock import WallClock
from mendstream.runtime.restarter import LocalRestarter
from mendstream.runtime.supervision import COMMANDS
from mendstream.runtime.words import LastWords

MODEL, JUDGE = "model-0", "judge-0"
DEADLINE_S = 30.0


class LocalWorld:
    """Forked processes that end when they are told to."""

    def __init__(self, root: Path) -> None:
        self.clock = WallClock()
        self._root = root
        self._bell = FifoBell(root / "bells", "supervisor", [COMMANDS])
        self._orders = {process: make_orders(root, process) for process in (MODEL, JUDGE)}
        self._words = {process: LastWords(root, process) for process in (MODEL, JUDGE)}
        self.restarter = self._open()

    def again(self) -> None:
        """The house is left, and entered again on the same directory."""
        self.restarter.close()
        self.restarter = self._open()

    def end(self, process: str, code: int) -> None:
        """It ends by itself."""
        os.write(self._orders[process], str(code).encode())

    def freeze(self, pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)

    def give_up(self, process: str, message: str, hint: str) -> None:
        """It ends because it cannot go on, and says why."""
        self._words[process].leave(CouldNot(message, hint=hint))
        self.end(process, 3)

    def command(self) -> None:
        """A command arrives."""
        self._bell.ring()

    def lives(self, pid: int) -> bool:
        return psutil.pid_exists(pid)

    def close(self) -> None:
        self.restarter.close()
        self._bell.close()
        for orders in self._orders.values():
            os.close(orders)

    def _open(self) -> LocalRestarter:
        return LocalRestarter(self._root, self._bell, obedient, {"root": str(self._root)})


WORLDS = [pytest.param(LocalWorld, id="local"), pytest.param(SimRestarterWorld, id="simulated")]


@pytest.fixture(params=WORLDS)
def world(request, tmp_path):
    world = request.param(tmp_path)
    yield world
    world.close()


def until(what):
    """Ask again until there is an answer."""
    limit = time.monotonic() + DEADLINE_S
    while not (found := what()):
        assert time.monotonic() < limit, "nothing happened"
    return found


def ends(world, count=1):
    """The next ends, in the order in which they are seen."""
    found = []
    until(lambda: found.extend(world.restarter.wait(1.0)) or len(found) >= count)
    return found


# --- lives -----------------------------------------------------------------------------------------------------------


def test_each_life_of_a_process_has_a_higher_generation(world):
    generations = []
    for _ in range(3):
        generations.append(world.restarter.start(MODEL).generation)
        world.restarter.kill(MODEL)
        ends(world)
    assert generations == sorted(set(generations))
    assert world.restarter.start(JUDGE).generation == 1, "another process counts by itself"


def test_generations_outlive_the_restarter(world):
    first = world.restarter.start(MODEL).generation
    world.again()
    assert world.restarter.start(MODEL).generation > first


def test_two_lives_at_a_time_are_two_processes(world):
    assert world.restarter.start(MODEL).pid != world.restarter.start(JUDGE).pid


# --- ends ------------------------------------------------------------------------------------------------------------


def test_an_end_is_seen_once_with_its_code(world):
    started = world.restarter.start(MODEL)
    world.end(MODEL, 4)
    (ended,) = ends(world)
    assert ended == (MODEL, started.generation, started.pid, 4)
    assert world.restarter.wait(0) == []


def test_nothing_is_seen_of_a_process_that_goes_on(world):
    world.restarter.start(MODEL)
    assert world.restarter.wait(0) == []


def test_the_ends_of_several_are_all_seen(world):
    for process in (MODEL, JUDGE):
        world.restarter.start(process)
        world.end(process, 1)
    assert sorted(ended.process for ended in ends(world, 2)) == [JUDGE, MODEL]


def test_a_killed_process_ends_with_the_signals_number(world):
    world.restarter.start(MODEL)
    world.restarter.kill(MODEL)
    assert ends(world)[0].code == -9


def test_kill_works_on_a_process_that_is_stopped(world):
    world.freeze(world.restarter.start(MODEL).pid)
    world.restarter.kill(MODEL)
    assert ends(world)[0].code == -9


def test_a_process_that_is_asked_to_stop_ends_well(world):
    world.restarter.start(MODEL)
    until(lambda: world.restarter.life_sign(MODEL).at_us)
    world.restarter.stop(MODEL)
    assert ends(world)[0].code == 0


def test_an_ended_process_may_be_stopped_and_killed_and_nothing_comes_of_it(world):
    world.restarter.start(MODEL)
    world.end(MODEL, 1)
    ends(world)
    world.restarter.stop(MODEL)
    world.restarter.kill(MODEL)
    assert world.restarter.wait(0) == []


def test_who_still_runs_ends_with_the_restarter(world):
    pids = [world.restarter.start(process).pid for process in (MODEL, JUDGE)]
    world.restarter.close()
    until(lambda: not any(world.lives(pid) for pid in pids))


# --- waking ----------------------------------------------------------------------------------------------------------


def test_a_command_wakes_who_waits(world):
    world.restarter.start(MODEL)
    world.command()
    before = world.clock.now_us()
    assert world.restarter.wait(DEADLINE_S) == []
    assert world.clock.now_us() - before < DEADLINE_S * 1e6 / 2


def test_an_end_wakes_who_waits(world):
    world.restarter.start(MODEL)
    world.end(MODEL, 1)
    before = world.clock.now_us()
    assert [ended.process for ended in world.restarter.wait(DEADLINE_S)] == [MODEL]
    assert world.clock.now_us() - before < DEADLINE_S * 1e6 / 2


# --- what a process tells --------------------------------------------------------------------------------------------


def test_a_sign_of_life_is_seen(world):
    assert world.restarter.life_sign(MODEL).at_us == 0
    before = world.clock.now_us()
    world.restarter.start(MODEL)
    at = until(lambda: world.restarter.life_sign(MODEL).at_us)
    assert before <= at <= world.clock.now_us()
    assert world.restarter.life_sign(JUDGE).at_us == 0


def test_a_sign_of_life_tells_since_when_the_process_is_in_its_turn(world):
    before = world.clock.now_us()
    world.restarter.start(MODEL)
    at = until(lambda: world.restarter.life_sign(MODEL).turn_us)
    assert before <= at <= world.restarter.life_sign(MODEL).at_us
    assert world.restarter.life_sign(JUDGE).turn_us == 0


def test_the_last_sign_of_life_stays_over_the_next_start(world):
    world.restarter.start(MODEL)
    at = until(lambda: world.restarter.life_sign(MODEL).at_us)
    world.end(MODEL, 1)
    ends(world)
    world.freeze(world.restarter.start(MODEL).pid)
    assert world.restarter.life_sign(MODEL).at_us >= at


def test_why_a_process_could_not_go_on_is_read_once(world):
    world.restarter.start(MODEL)
    assert world.restarter.failure(MODEL) is None
    world.give_up(MODEL, "the disk is full", "make room")
    ends(world)
    assert world.restarter.failure(MODEL) == ("the disk is full", "make room")
    assert world.restarter.failure(MODEL) is None
