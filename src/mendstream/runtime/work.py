"""What one process of the house does: turns while there is something to do, else wait for the bell."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import structlog

from mendstream.contracts.errors import Fenced, NoAnswer
from mendstream.contracts.ports import Bell
from mendstream.contracts.records import TaskPulse
from mendstream.contracts.topics import Stream, Topic, Wing
from mendstream.runtime import heartbeat, probe
from mendstream.runtime.assembly import Parts
from mendstream.runtime.driver import Observe, Trace
from mendstream.runtime.heartbeat import Heartbeat
from mendstream.runtime.probe import Prober
from mendstream.runtime.roster import Place
from mendstream.runtime.world import World
from mendstream.settings import Settings

_log = structlog.get_logger("worker")
_IDLE_S = 0.5
_SINK_IDLE_S = 0.1


class Work:
    """`open()` once, then `turn()` again and again."""

    def __init__(
        self, settings: Settings, place: Place, world: World, generation: int, observe: Observe,
        trace: Trace | None = None,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._place = place
        self._world = world
        self.parts = Parts(settings, place, world, observe, trace)
        self._bell: Bell | None = None
        self._probes: dict[int, Callable[[], None]] = {}
        """partition -> what ends its probes"""
        self._stop_beating: Callable[[], None] = lambda: None
        self._turn_us = 0
        self._heartbeat = Heartbeat(
            bus=self.parts.bus, world=world, process=place.process, agent=place.role, generation=generation,
            stream=Stream(Topic.AGENT_METRICS, 0 if self.parts.role.wing is Wing.DATA else 1), tasks=self._pulses,
            waits_for=self._waits_for, turn_us=lambda: self._turn_us,
        )  # fmt: skip

    def open(self) -> None:
        """Give signs of life, then get ready for the first turn."""
        self._heartbeat.send()
        self._stop_beating = self._world.every("heartbeat", heartbeat.EVERY_S, self._heartbeat.send)
        self.parts.open_sink()
        with contextlib.suppress(NoAnswer):  # then the first turn begins with it
            self._take_partitions()

    def turn(self) -> None:
        """One turn of each driver or of the sink; sleeps if none has more to do. Raises Fenced if all is lost."""
        self._turn_us = self._world.clock.now_us()
        try:
            self._turn()
        except NoAnswer as error:  # the log is with a server that is away: nothing was done
            _log.warning("the log does not answer: waiting for it", cause=str(error))
            self._world.sleep(_IDLE_S)

    def _turn(self) -> None:
        if self._bell is None:
            self._take_partitions()
        self.parts.faults.refresh()
        busy = [self._pump(partition) for partition in list(self.parts.drivers)]
        if self.parts.sink is not None:
            busy.append(self.parts.sink.pump())
        if not any(busy):
            self._wait()
        if self._shared:  # also when there is no end of work: who takes over from a dead replica has most of it
            self._take_partitions()

    def ring(self) -> None:
        """Wake it from another thread, or from a signal handler."""
        if self._bell is not None:
            self._bell.ring()

    def close(self) -> None:
        self._stop_beating()
        for stop in self._probes.values():
            stop()
        self.parts.close()
        if self._bell is not None:
            bell, self._bell = self._bell, None  # a signal may still come
            bell.close()

    def _pump(self, partition: int) -> bool:
        """One turn; True if the next one is due at once. A partition that another replica has taken over is let go."""
        try:
            driver = self.parts.drivers[partition]
            return driver.pump() and driver.behind
        except Fenced:
            if not self._shared:
                raise
            self.parts.let_go(partition)
            self._take_partitions()
            return True

    # --- waiting -----------------------------------------------------------------------------------------------------

    def _wait(self) -> None:
        assert self._bell is not None
        most = _IDLE_S if self.parts.sink is None else _SINK_IDLE_S
        rang = self._bell.wait(min([driver.wait_s(most) for driver in self.parts.drivers.values()], default=most))
        if rang and self.parts.role.gather_s:
            self._world.sleep(self.parts.role.gather_s)
            self._bell.wait(0)  # what has rung meanwhile is read in this turn

    def _listen(self) -> None:
        if self._bell is not None:
            self._bell.close()
        streams = {s for driver in self.parts.drivers.values() for s in driver.streams}
        if self.parts.sink is not None:
            streams.update(self.parts.sink.reads)
        self._bell = self.parts.bus.listen(self._place.process, sorted(streams))
        for driver in self.parts.drivers.values():
            driver.wake_by(self._bell.ring)

    # --- ownership ---------------------------------------------------------------------------------------------------

    @property
    def _shared(self) -> bool:
        run, role = self._settings.run, self.parts.role
        return bool(role.agents) and (
            run.assignment == "group" or (role.spread and run.replicas.get(self._place.role, 1) > 1)
        )

    def _take_partitions(self) -> None:
        if self.parts.role.agents and self.parts.own(self._partitions()):
            self._watch_models()
            self._listen()
        elif self._bell is None:
            self._listen()

    def _partitions(self) -> tuple[int, ...]:
        """Which partitions this replica owns: all, or what it was assigned; a role of one task has that one or none."""
        everything = tuple(range(self._settings.run.partitions)) if self.parts.role.spread else (0,)
        if not self._shared:
            return everything
        mine = self._world.assigned()  # in a group, nothing until it has met
        return tuple(mine) if mine is not None else everything[self._place.replica :: self._replicas()]

    def _replicas(self) -> int:
        return min(self._settings.run.replicas.get(self._place.role, 1), self._settings.run.partitions)

    def _watch_models(self) -> None:
        """Probes for the partitions whose model stage runs here."""
        from mendstream.agents.pipeline.model import ModelAgent

        for partition in set(self._probes) - set(self.parts.drivers):
            self._probes.pop(partition)()
        for partition, driver in self.parts.drivers.items():
            for leg in driver.legs:
                if isinstance(leg.agent, ModelAgent) and partition not in self._probes:
                    prober = Prober(self.parts.bus, self._world.clock, leg.agent, str(leg.task), leg.live_config)
                    self._probes[partition] = self._world.every(f"probe {leg.task}", probe.EVERY_S, prober.probe)

    # --- telling -----------------------------------------------------------------------------------------------------

    def _pulses(self) -> tuple[TaskPulse, ...]:
        return tuple(pulse for driver in list(self.parts.drivers.values()) for pulse in driver.pulses())

    def _waits_for(self) -> str:
        return "" if self.parts.sink is None else self.parts.sink.waits_for
