"""How each process really is, which the house can only guess: what invariants of watching hold its guesses against."""

from __future__ import annotations

from dataclasses import dataclass

from mendstream.contracts.topics import Stream
from mendstream.runtime.roster import ROLE_OF, places
from mendstream.simulation.machine import SUPERVISOR, Life, Machine

LATELY_US = 6_000_000
"""What was wrong within this time may still be what somebody is taken for ill for."""


@dataclass(frozen=True)
class Ended:
    """The end of a process."""

    at_us: int
    process: str
    generation: int


class Health:
    """Looks at every tick. Times are the kernel's."""

    def __init__(self, machine: Machine) -> None:
        run = machine.settings.run
        roster = places(fuse=run.fuse, partitions=run.partitions, replicas=run.replicas, trainer=False)
        self._machine = machine
        self.pipeline = tuple(place.process for place in roster if ROLE_OF[place.role].pipeline)
        self.control = tuple(place.process for place in roster if not ROLE_OF[place.role].pipeline)
        self.processes = (SUPERVISOR, *(place.process for place in roster))
        now = machine.kernel.now_us
        self._ill_at = dict.fromkeys(self.processes, now)
        self._why = dict.fromkeys(self.processes, "not started")
        self._read = 0
        self.deaths: list[Ended] = []
        """Without an order."""
        self.unjust: list[Ended] = []
        """Control processes that the supervisor ended, and that had been well for a while."""
        self.began_us = now
        """When the present supervisor was started."""
        self.looked_at_us = now
        self.passed_us = 0
        """Between the newest look and the one before."""

    @property
    def now_us(self) -> int:
        return self._machine.kernel.now_us

    def tick(self) -> None:
        now = self._machine.kernel.now_us
        self.passed_us, self.looked_at_us = now - self.looked_at_us, now
        self._see_lives()
        everybody = self._everybody()
        for name in self.processes:
            why = everybody or self._ill(name)
            if why:
                self._note(name, why, now)

    def _see_lives(self) -> None:
        lives = self._machine.life[self._read :]
        stops = {life.at_us for life in lives if life.process == SUPERVISOR and life.what == "ended"}
        for life in lives:
            if life.process == SUPERVISOR and life.what == "started":
                self.began_us = life.at_us
            elif life.what == "ended":
                ended = Ended(life.at_us, life.process, life.generation)
                if not life.ordered:
                    self.deaths.append(ended)
                elif life.at_us not in stops and self._control_was_well(life):
                    self.unjust.append(ended)
                self._note(life.process, "dead", life.at_us)
        self._read = len(self._machine.life)

    def _control_was_well(self, life: Life) -> bool:
        return life.process in self.control and life.at_us - self._ill_at[life.process] > LATELY_US

    def well_us(self, *names: str) -> int:
        """For how long all of them have been well."""
        return self._machine.kernel.now_us - max(self._ill_at[name] for name in names)

    def why(self, name: str, within_us: int) -> str:
        """What was wrong with it within that time, or an empty string."""
        self._see_lives()
        return self._why[name] if self._machine.kernel.now_us - self._ill_at[name] <= within_us else ""

    def doubled(self, name: str) -> bool:
        """Whether another one of that name runs beside the house."""
        return any(double.name == name for double in self._machine.doubles)

    def stuck(self, name: str) -> bool:
        """It is there, and its work stands still."""
        process = self._machine.processes.get(name)
        return process is not None and process.ready and (process.frozen or process.main.held)

    def backlog(self, name: str) -> int:
        """Rows that wait at its tasks."""
        process, log = self._machine.processes.get(name), self._machine.log
        if process is None or process.work is None:
            return 0
        waiting = 0
        for driver in process.work.parts.drivers.values():
            for leg in driver.legs:
                held = log.task(leg.task)
                for stream in leg.inputs:
                    waiting += self._end(stream) - (0 if held is None else held.positions.get(stream, 0))
        return waiting

    def _end(self, stream: Stream) -> int:
        """Of the source too, whose rows stand on no log."""
        if stream.topic.value == "source":
            return self._machine.tape.due(self._machine.clock.now_us())
        return self._machine.log.bounds(stream)[1]

    def _note(self, name: str, why: str, at_us: int) -> None:
        if name in self._ill_at and at_us >= self._ill_at[name]:
            self._ill_at[name], self._why[name] = at_us, why

    def _everybody(self) -> str:
        """What is wrong with the whole machine."""
        machine = self._machine
        if machine.log.full:
            return "the disk is full"
        if machine.habits.slow_disk > 1:
            return "the disk is slow"
        if machine.log.hidden:
            return "a transaction is open"
        if len({process.clock.offset_us for process in machine.processes.values()}) > 1:
            return "its clock is not that of the others"
        return ""

    def _ill(self, name: str) -> str:
        machine = self._machine
        process = machine.processes.get(name)
        if process is None:
            return "dead"
        if name != SUPERVISOR and not process.ready:
            return "starting"
        if process.frozen:
            return "frozen"
        if process.main.held:
            return "paused"
        if name in machine.cut or name in machine.habits.fates:
            return "cut off from the log"
        if name in machine.reborn or self.doubled(name):
            return "taken for another"
        if name != SUPERVISOR and ROLE_OF[name.rpartition("-")[0]].wing in machine.locked:
            return "kept from the log"
        return ""
