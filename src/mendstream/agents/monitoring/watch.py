"""Pulses and exits in; who lives, who owns which task and whether it moves out.

Silence is measured on the *awake* clock, wall time less the time that the judge itself was late: a judge that slept
says nothing about others.
"""

from __future__ import annotations

import msgspec

from mendstream.contracts.agent import STAGES
from mendstream.contracts.records import Exit, Pulse

LATE_US = 600_000
"""A longer gap between two steps means that the judge itself was late."""
EXPECTED_GAP_US = 250_000
RESUME_GRACE_US = 10_000_000
"""After a restart of the judge, processes known from before get this long to be heard: they may be gone for good."""
GONE_US = 30_000_000
"""A process that owns nothing and was not heard for this long is no member of the house any more."""
YOUNG_US = 2_000_000


class ProcessSeen(msgspec.Struct):
    agent: str
    generation: int
    pid: int
    first_us: int
    """Awake time of this generation's first sign."""
    heard_us: int
    """Awake time of its last pulse."""
    pulse_at_us: int
    """Wall time of its last pulse, by its own clock; 0: it never pulsed."""
    exit_code: int | None = None
    exit_expected: bool = False
    exit_at_us: int = 0


class TaskSeen(msgspec.Struct):
    process: str
    generation: int
    pid: int
    epoch: int
    turns: int
    backlog: int
    config: int
    moved_us: int
    """Awake time at which it last had moved, had nothing to do, or got its owner."""
    moved: bool = False
    """It has moved under this owner, or had nothing to do."""


class Watch(msgspec.Struct):
    processes: dict[str, ProcessSeen] = {}
    tasks: dict[str, TaskSeen] = {}
    slept_us: int = 0
    last_us: int = 0
    resumed_us: int = -RESUME_GRACE_US
    """Awake time at which this judge began."""

    def wake(self, now: int, *, resumed: bool) -> None:
        """Begin a step."""
        if self.last_us and now - self.last_us > LATE_US:
            self.slept_us += now - self.last_us - EXPECTED_GAP_US
        self.last_us = now
        if resumed:
            self.resumed_us = self.awake_us

    @property
    def awake_us(self) -> int:
        return self.last_us - self.slept_us

    def hear(self, pulse: Pulse) -> None:
        seen = self.processes.get(pulse.process)
        if seen is not None and pulse.generation < seen.generation:
            return
        awake = self.awake_us
        if seen is None or pulse.generation > seen.generation:
            seen = self.processes[pulse.process] = ProcessSeen(
                agent=pulse.agent, generation=pulse.generation, pid=pulse.pid,
                first_us=awake, heard_us=awake, pulse_at_us=pulse.at_us,
            )  # fmt: skip
        seen.heard_us, seen.pulse_at_us, seen.pid = awake, pulse.at_us, pulse.pid
        for task in pulse.tasks:
            held = self.tasks.get(task.task)
            if held is not None and task.epoch < held.epoch:
                continue
            if held is None or task.epoch > held.epoch:
                held = self.tasks[task.task] = TaskSeen(
                    process=pulse.process, generation=pulse.generation, pid=pulse.pid, epoch=task.epoch,
                    turns=task.turns, backlog=task.backlog, config=task.config, moved_us=awake,
                )  # fmt: skip
            if task.turns != held.turns or task.backlog == 0:
                held.moved_us, held.moved = awake, True
            held.process, held.generation, held.pid = pulse.process, pulse.generation, pulse.pid
            held.turns, held.backlog, held.config = task.turns, task.backlog, task.config

    def see_exit(self, ended: Exit) -> None:
        seen = self.processes.get(ended.process)
        if seen is not None and ended.generation < seen.generation:
            return
        if seen is None or ended.generation > seen.generation:
            seen = self.processes[ended.process] = ProcessSeen(
                agent=ended.agent, generation=ended.generation, pid=ended.pid,
                first_us=self.awake_us, heard_us=self.awake_us, pulse_at_us=seen.pulse_at_us if seen else 0,
            )  # fmt: skip
        seen.exit_code, seen.exit_expected, seen.exit_at_us = ended.code, ended.expected, ended.at_us

    # --- questions ---------------------------------------------------------------------------------------------------

    def owned(self, process: str) -> list[tuple[str, TaskSeen]]:
        return [(name, task) for name, task in self.tasks.items() if task.process == process]

    def silence_us(self, process: ProcessSeen) -> int:
        """For how long the judge, awake, has not heard it; 0 while a resumed judge waits for its first pulse."""
        if process.heard_us < self.resumed_us and self.awake_us < self.resumed_us + RESUME_GRACE_US:
            return 0
        return self.awake_us - process.heard_us

    def stall_us(self, task: TaskSeen) -> int:
        """For how long it has not moved with rows waiting."""
        return self.awake_us - task.moved_us if task.backlog else 0

    def young(self, agents: tuple[str, ...]) -> bool:
        """Whether a process of these agents has just begun: what waited for it is late through no fault of its own."""
        return any(
            seen.agent in agents and self.awake_us - seen.first_us < YOUNG_US for seen in self.processes.values()
        )

    def explained(self, task: str, stall_us: int, pressure_rows: int) -> bool:
        """Whether a later stage of the same partition (of any, for ingestion, which feeds all) holds this one up."""
        agent, _, partition = task.partition("/")
        if agent not in STAGES:
            return False
        after = STAGES[STAGES.index(agent) + 1 :]
        for name, other in self.tasks.items():
            stage, _, at = name.partition("/")
            behind = stage in after and (at == partition or agent == "ingestion")
            held_up = other.backlog >= pressure_rows or self.stall_us(other) >= stall_us // 2
            if behind and (held_up or self._away(other.process, stall_us // 2)):
                return True
        return False

    def _away(self, process: str, silence_us: int) -> bool:
        """Whether it has ended, or is not heard: what waits for it, nobody has counted since. It need not be its own
        fault: a judge that has just begun does not call it silent yet, and does not blame who waits for it either.
        """
        seen = self.processes.get(process)
        return seen is None or seen.exit_code is not None or self.awake_us - seen.heard_us >= silence_us
