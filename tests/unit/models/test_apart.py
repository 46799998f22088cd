"""What is heavy works in a process of its own: it answers as if it were here, makes way, never outlives its owner."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import psutil
import pytest
from tests.unit.models.world import NAMES, card, population

from mendstream.adapters.models.apart import Apart, LearnerApart, Turn
from mendstream.adapters.models.registrar import MadeWay
from mendstream.contracts.errors import CouldNot, ModelError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

OS: Callable[[], object] = functools.partial(importlib.import_module, "os")
"""A process's own `os`: asks for its pid, ends it."""
WAITING: Callable[[], object] = threading.Event
"""`wait` does not return before its time is up."""


@contextlib.contextmanager
def apart(
    make: Callable[[], object], turn: Turn | None = None, *, urgent: bool = True, answer_s: float = 60.0
) -> Iterator[Apart]:
    with contextlib.closing(Apart(make, turn or Turn(), urgent=urgent, answer_s=answer_s)) as there:
        yield there


def eventually(holds: Callable[[], bool]) -> bool:
    limit = time.monotonic() + 20
    while not holds() and time.monotonic() < limit:
        time.sleep(0.01)
    return holds()


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_calls_are_answered_by_one_other_process_until_close():
    with apart(OS) as there:
        pid = there.call("getpid")
        assert pid != os.getpid()
        assert there.call("getpid") == pid
        there.close()
        assert gone(pid)
        assert there.call("getpid") != pid


def test_a_process_that_dies_is_a_refusal_and_the_next_call_has_another():
    with apart(OS) as there:
        with pytest.raises(CouldNot, match="ended with code 7"):
            there.call("_exit", 7)
        assert there.call("getpid") != os.getpid()


def test_a_process_that_does_not_answer_is_ended():
    with apart(WAITING, answer_s=0.5) as there, pytest.raises(CouldNot, match=r"no answer within 0\.5 s"):
        there.call("wait", 3600.0)


def test_a_bug_over_there_is_told_here():
    with apart(OS) as there, pytest.raises(CouldNot, match="a bug: FileNotFoundError") as caught:
        there.call("stat", "/no/such/file")
    assert "Traceback" in caught.value.hint


def test_what_is_polite_makes_way_for_what_is_urgent_and_both_are_never_there():
    turn, pids, ended = Turn(), [], []

    def polite() -> None:
        with apart(WAITING, turn, urgent=False) as there:
            there.call("is_set")
            pids.append(there.pid)
            with pytest.raises(MadeWay):
                there.call("wait", 3600.0)
        ended.append(gone(pids[0]))

    thread = threading.Thread(target=polite)
    thread.start()
    assert eventually(lambda: len(pids) == 1)
    with apart(OS, turn, urgent=True) as there:
        there.call("getpid")
        assert gone(pids[0])
    thread.join(20)
    assert ended == [True]


def test_it_does_not_outlive_its_owner_even_in_the_middle_of_a_call():
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True, cwd=os.getcwd(), bufsize=1
    )  # fmt: skip
    assert owner.stdout is not None
    pid = int(owner.stdout.readline())
    assert not gone(pid)
    owner.kill()
    owner.communicate()
    assert eventually(lambda: gone(pid))


OWNER = """
import threading
from mendstream.adapters.models.apart import Apart, Turn
there = Apart(threading.Event, Turn(), urgent=True)
there.call("is_set")
print(there.pid, flush=True)
there.call("wait", 3600.0)
"""


def test_a_learner_apart_learns_what_a_learner_here_does():
    matrix, labels = population(2000, 1)
    with contextlib.closing(Apart(WAITING, turn := Turn(), urgent=False)) as other:
        learner = LearnerApart(turn)
        learner.prepare()
        trained = learner.fit(matrix, labels, NAMES, 0)
        assert trained.metrics["accuracy"] > 0.9
        right = learner.accuracy(trained.onnx, card("v1"), matrix, labels)
        assert right == pytest.approx(trained.metrics["accuracy"], abs=1e-6)
        learner.rest()
        assert other.call("is_set") is False  # the turn is free again


def test_a_learner_apart_refuses_with_the_same_words():
    learner = LearnerApart(Turn())
    with pytest.raises(ModelError, match="do not fit together") as caught:
        learner.fit(population(200, 1)[0], np.array([0.0, 1.0]), NAMES, 0)
    learner.rest()
    assert caught.value.hint
