"""A restarter without processes: they beat unless told not to, and end when a test says so. Waiting moves the clock."""

from __future__ import annotations

from typing import Any

from tests.support.clock import ManualClock

from mendstream.contracts.ports import Ended, LifeSign, Started


class FakeRestarter:
    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._pids = 100
        self._generations: dict[str, int] = {}
        self._ends: list[Ended] = []
        self._signs: dict[str, LifeSign] = {}
        self.alive: dict[str, Started] = {}
        self.silent: set[str] = set()
        """Processes that give no sign of life."""
        self.hung: set[str] = set()
        """Processes that do, but do not come to the end of their turn."""
        self.late_us: dict[str, int] = {}
        """Process -> how much time lies between its signs of life, where that is more than a look."""
        self.stubborn = False
        """Whether they go on when they are asked to stop."""
        self.killed: list[str] = []
        self.words: dict[str, tuple[str, str]] = {}
        """What `failure` finds."""

    def end(self, process: str, code: int = 1) -> None:
        """It ends by itself."""
        started = self.alive.pop(process)
        self._ends.append(Ended(process, started.generation, started.pid, code))

    def report(self, ended: Ended) -> None:
        """Tell of an end, whether there was one or not."""
        self._ends.append(ended)

    def start(self, process: str) -> Started:
        assert process not in self.alive
        self._pids += 1
        self._generations[process] = self._generations.get(process, 0) + 1
        self.alive[process] = Started(self._generations[process], self._pids)
        return self.alive[process]

    def stop(self, process: str) -> None:
        if process in self.alive and not self.stubborn:
            self.end(process, 0)

    def kill(self, process: str) -> None:
        self.killed.append(process)
        if process in self.alive:
            self.end(process, -9)

    def wait(self, timeout_s: float) -> list[Ended]:
        if not self._ends:
            self._clock.advance(s=timeout_s)
        for process in self.alive:
            if process not in self.silent:
                self._beat(process, self._clock.now_us())
        found, self._ends = self._ends, []
        return found

    def _beat(self, process: str, now_us: int) -> None:
        held = self._signs.get(process, LifeSign(0, 0))
        if process not in self.late_us or now_us - held.at_us >= self.late_us[process]:
            self._signs[process] = LifeSign(now_us, held.turn_us if process in self.hung else now_us)

    def life_sign(self, process: str) -> LifeSign:
        return self._signs.get(process, LifeSign(0, 0))

    def failure(self, process: str) -> tuple[str, str] | None:
        return self.words.pop(process, None)

    def close(self) -> None:
        self.alive.clear()


class FakeNotices:
    """The newest of what was told."""

    def __init__(self) -> None:
        self.partitions: dict[str, list[int]] = {}
        self.shown: Any = {}

    def assignment(self, partitions: Any) -> None:
        self.partitions = {process: list(mine) for process, mine in partitions.items()}

    def processes(self, shown: Any) -> None:
        self.shown = shown
