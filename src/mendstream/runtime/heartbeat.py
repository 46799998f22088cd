"""The sign of life of a process, four times a second, sent from outside every step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mendstream.contracts.errors import MendstreamError, NoAnswer
from mendstream.contracts.ports import Bus, Out
from mendstream.contracts.records import Pulse, TaskPulse, encode_block
from mendstream.contracts.topics import Stream
from mendstream.runtime.world import World

EVERY_S = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    bus: Bus
    world: World
    stream: Stream
    process: str
    agent: str
    generation: int
    tasks: Callable[[], tuple[TaskPulse, ...]]
    waits_for: Callable[[], str]
    turn_us: Callable[[], int]
    """Since when the work is in its present turn."""

    def send(self) -> None:
        try:
            pulse = Pulse(
                process=self.process, agent=self.agent, generation=self.generation, pid=self.world.pid,
                at_us=self.world.clock.now_us(), rss_mb=self.world.memory_mb(), tasks=self.tasks(),
                waits_for=self.waits_for(),
            )  # fmt: skip
            self.bus.publish([Out(self.stream, encode_block([pulse]), 1)])
        except NoAnswer:
            pass  # the log is away, this process is not
        except MendstreamError:
            return  # a full log: the work loop meets it too, and ends the process with a message
        self.world.beat(self.turn_us())
