"""The simulated bus and restarter for a test that knows nothing of strands: each call runs to its end at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from tests.support.log import INCARNATION

from mendstream.contracts.errors import CouldNot
from mendstream.contracts.ports import Clock, LifeSign
from mendstream.contracts.topics import Wing
from mendstream.simulation.bus import SimBus
from mendstream.simulation.data import Tape
from mendstream.simulation.dice import Dice
from mendstream.simulation.kernel import Kernel
from mendstream.simulation.log import SimLog, Writer
from mendstream.simulation.machine import COMMANDS, SUPERVISOR, Machine, SimProcess, SimRestarter
from mendstream.simulation.schedule import START_US, settings_of
from mendstream.simulation.store import SimStore

T = TypeVar("T")
LOOK_US = 10_000
"""Time goes on by so much at each call of a restarter, or who asks again and again would see nothing new."""
LONG_US = 3_600_000_000


class Caller:
    """One process of a machine on which nothing else runs."""

    def __init__(self, machine: Machine, name: str) -> None:
        self.process = SimProcess(machine, name, 1, 1)
        self._kernel = machine.kernel

    def call(self, work: Callable[[], T]) -> T:
        answers: list[T] = []
        ends: list[BaseException | None] = []
        self.process.spawn(lambda: answers.append(work()), ends.append)
        self._kernel.run(self._kernel.now_us + LONG_US, stop=lambda: bool(ends))
        if ends[0] is not None:
            raise ends[0]
        return answers[0]

    def around(self, held: Any, *names: str) -> Any:
        return _Called(self, held, names)


class _Called:
    """Its named methods run on a strand, everything else as it is."""

    def __init__(self, caller: Caller, held: Any, names: tuple[str, ...]) -> None:
        self._caller = caller
        self._held = held
        self._names = names

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._held, name)
        if name not in self._names:
            return found
        return lambda *args, **kwargs: self._caller.call(lambda: found(*args, **kwargs))


def machine() -> Machine:
    return Machine(Kernel(START_US), Dice(1), settings_of(b"{}"), Tape(1, START_US), SimStore())


class SimBusWorld:
    """The simulated log, opened for a wing at a time."""

    def __init__(self, root: Path, clock: Clock) -> None:
        self._clock = clock
        self._machine = machine()
        self._machine.log = SimLog(incarnation=INCARNATION)

    def open(self, wing: Wing = Wing.DATA) -> Any:
        caller = Caller(self._machine, "test-0")
        caller.process.writer = Writer("test-0", 1, self._clock.now_us)
        bus = SimBus(self._machine.log, wing, caller.process)
        opened = caller.around(bus, "bounds", "waiting", "since", "read", "position", "claim", "commit", "publish")
        listen = bus.listen
        opened.listen = lambda name, streams: caller.around(caller.call(lambda: listen(name, streams)), "wait")
        return opened

    def close(self) -> None:
        self._machine.store.close()


class SimRestarterWorld:
    """A machine whose supervisor is the test; its processes are the real agents, until they are told to end."""

    def __init__(self, root: Path) -> None:
        self._machine = machine()
        self.clock = self._machine.clock
        self.restarter = self._open()

    def again(self) -> None:
        self.restarter.close()
        self.restarter = self._open()

    def end(self, process: str, code: int) -> None:
        self._machine._over(self._machine.processes[process], code)  # as _process_ended does

    def freeze(self, pid: int) -> None:
        next(held for held in self._machine.processes.values() if held.pid == pid).freeze()

    def give_up(self, process: str, message: str, hint: str) -> None:
        self._machine._process_ended(self._machine.processes[process], CouldNot(message, hint=hint))

    def command(self) -> None:
        self._machine.log.ring(COMMANDS)

    def lives(self, pid: int) -> bool:
        return any(held.pid == pid for held in self._machine.processes.values())

    def close(self) -> None:
        self._machine.stop()
        self._machine.kernel.run(self._machine.kernel.now_us)
        self._machine.store.close()

    def _open(self) -> Any:
        caller = Caller(self._machine, SUPERVISOR)
        bell = caller.process.bell([COMMANDS])
        restarter = SimRestarter(self._machine, caller.process, bell)
        opened = caller.around(restarter, "start", "stop", "kill", "wait", "life_sign", "failure")

        def life_sign(process: str) -> LifeSign:
            caller.call(lambda: caller.process.pass_time(LOOK_US))
            return restarter.life_sign(process)

        opened.life_sign = life_sign
        return opened
