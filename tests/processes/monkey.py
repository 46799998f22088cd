"""Kills processes of a running house with SIGKILL at seeded random moments, within what a house has to survive."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections import Counter

from tests.processes.house import CONTROL, Running

BUDGET = {"policy__restarts_per_10min": 1000, "healing__actions_per_hour": 1000}
"""The restart budget is raised for these runs: the shipped one would stop healing at the fourth kill of a process,
which is right (test_denied.py) and not what is looked at here."""
PER_CONTROL = 4
"""The supervisor gives up on a control process that ends six times in a minute, which is right as well."""
PAUSE_S = (0.05, 0.7)


class Monkey:
    def __init__(self, house: Running, seed: int) -> None:
        self._house = house
        self._dice = random.Random(seed)
        self.killed: Counter[str] = Counter()
        self.seed = seed

    def kill(self, process: str) -> None:
        """At once, whatever it is doing."""
        self._house.kill(process, signal.SIGKILL)
        self.killed[process] += 1

    def rage(self, kills: int, deadline_s: float = 120) -> None:
        """So many kills, one after the other, each at its random moment."""
        wanted = self.killed.total() + kills
        while self.killed.total() < wanted:
            self._house.go_on(self._dice.uniform(*PAUSE_S))
            victims: list[str] = self._house.until(self._victims, deadline_s, why="there is somebody to kill")
            # The house is served at its own moments (a bell, a tick): this moves the kill off them.
            threading.Event().wait(self._dice.uniform(0, 0.04))
            self.kill(self._dice.choice(victims))

    def _victims(self) -> list[str]:
        """Who is alive; a pipeline process only when healing is not busy with its last death."""
        open_cases = {case.head.subject for case in self._house.news.cases.values() if not case.ended}
        return [
            name
            for name in self._house.processes
            if (self.killed[name] < PER_CONTROL if name.removesuffix("-0") in CONTROL else name not in open_cases)
            and _alive(self._house.shown(name)["pid"])
        ]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
