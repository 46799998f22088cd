"""The simulated machine: its clock, its log, its processes, and the restarter that the real supervision commands.

What runs on it is the product's own code: Work in each process, Supervision in the supervisor.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from greenlet import GreenletExit

from mendstream.contracts.errors import MendstreamError
from mendstream.contracts.models import ModelCard
from mendstream.contracts.ports import Bus, Ended, LifeSign, Mark, Sink, Source, Started, StepMarks, TaskCommit
from mendstream.contracts.records import IncidentStep, decode_each
from mendstream.contracts.topics import Stream, Topic, Wing
from mendstream.runtime.exits import BUG, exit_code
from mendstream.runtime.roster import Place, places
from mendstream.runtime.supervision import Supervision
from mendstream.runtime.work import Work
from mendstream.runtime.world import CardShelf, Loader
from mendstream.settings import Settings
from mendstream.simulation.bus import Fate, SimBus
from mendstream.simulation.data import SimSource, Tape, stock
from mendstream.simulation.dice import Dice
from mendstream.simulation.kernel import Kernel, Strand
from mendstream.simulation.log import SimLog, Writer
from mendstream.simulation.models import ModelShelf, SimCatalogue, SimLearner, SimModels
from mendstream.simulation.store import SimStore

KILLED = -9
SUPERVISOR = "supervisor-0"
COMMANDS = Stream(Topic.COMMANDS, 0)
_AGAIN_US = 20_000
"""How often one that waits for the log tries again."""


@dataclass
class Habits:
    """How fast and how badly the machine works; a seed draws them, and faults turn them for a while."""

    latency_us: tuple[int, int] = (30, 400)
    """Of half a call to the log."""
    start_us: tuple[int, int] = (150_000, 900_000)
    """From the order to start a process to its first code."""
    score_us: int = 800
    """A call of the model."""
    row_us: int = 0
    """And for each row of it."""
    load_us: int = 60_000
    """Fetching a model."""
    train_us: int = 600_000
    store_us: tuple[int, int] = (200, 3_000)
    """Of half a transaction of the database."""
    slow_disk: float = 1.0
    """Times as slow is the log."""
    fates: dict[str, tuple[Fate, float, int]] = field(default_factory=dict)
    """process -> (what becomes of its commits, with which chance, delay of a late one in microseconds)"""
    twice: dict[str, float] = field(default_factory=dict)
    """process -> chance that what it publishes outside a turn arrives twice"""


@dataclass(frozen=True)
class Life:
    """A process came or went."""

    at_us: int
    process: str
    generation: int
    what: Literal["started", "ready", "ended"]
    ordered: bool = False
    """It ended because the house wanted so."""


@dataclass
class Crash:
    """Code that failed as only a bug can."""

    process: str
    at_us: int
    error: BaseException

    def __str__(self) -> str:
        return "".join(traceback.format_exception(self.error)).strip()


class SimClock:
    """A clock of the machine: real time plus what was done to it."""

    def __init__(self, kernel: Kernel, offset_us: int = 0) -> None:
        self._kernel = kernel
        self.offset_us = offset_us

    def now_us(self) -> int:
        return self._kernel.now_us + self.offset_us

    def set_to(self, us: int) -> None:
        self.offset_us = us - self._kernel.now_us


class SimMarks:
    """`contracts.ports.StepMarks`, in memory that outlives the process."""

    def __init__(self) -> None:
        self._mark: Mark | None = None

    def left(self) -> Mark | None:
        return self._mark

    def begin(self, position: int, rows: int, attempts: int) -> None:
        self._mark = Mark(position, rows, attempts)

    def end(self) -> None:
        self._mark = None


class Bell:
    """`contracts.ports.Bell`. It remembers that it rang."""

    def __init__(self, process: SimProcess, streams: Sequence[Stream]) -> None:
        self._process = process
        self._rung = False
        self._waiting: Strand | None = None
        self._end = process.machine.log.listen(streams, self.ring)

    def wait(self, timeout_s: float) -> bool:
        if not self._rung:
            self._waiting = self._process.strand()
            try:
                self._waiting.park(round(timeout_s * 1e6))
            finally:
                self._waiting = None
        rung, self._rung = self._rung, False
        return rung

    def ring(self) -> None:
        self._rung = True
        if self._waiting is not None:
            self._waiting.wake()

    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        self._end()


class SimProcess:
    """One life of one process: its strands, and the bus's host."""

    def __init__(self, machine: Machine, name: str, generation: int, pid: int) -> None:
        self.machine = machine
        self.name = name
        self.pid = pid
        self.clock = machine.clock
        self.writer = Writer(name, generation, self.clock.now_us)
        self.dead = False
        self.frozen = False
        self.work: Work | None = None
        self.stopping = False
        self.ready = False
        """It has its tasks and takes turns."""
        self.ordered = False
        """The supervisor wants it to end."""
        self._strands: list[Strand] = []
        self._dice = machine.dice.of(f"latency {name}")

    def __str__(self) -> str:
        return f"{self.name} (generation {self.writer.generation})"

    def spawn(self, body: Callable[[], None], ended: Callable[[BaseException | None], None]) -> Strand:
        strand = self.machine.kernel.strand(body, ended)
        strand.held = self.frozen
        self._strands.append(strand)
        return strand

    def strand(self) -> Strand:
        """The one that runs now."""
        self.alive()
        current = self.machine.kernel.current
        assert current is not None, "nothing of a process can wait outside its strands"
        return current

    @property
    def main(self) -> Strand:
        return self._strands[0]

    def freeze(self) -> None:
        self.frozen = True
        for strand in self._strands:
            strand.hold()

    def thaw(self) -> None:
        self.frozen = False
        for strand in self._strands:
            strand.release()

    def end(self) -> None:
        """Nothing of it runs or reaches the world from now on."""
        self.dead = True
        for strand in self._strands:
            strand.kill()

    # --- bus.Host ----------------------------------------------------------------------------------------------------

    def alive(self) -> None:
        if self.dead:
            raise GreenletExit

    def pass_time(self, us: int) -> None:
        self.strand().sleep(us)
        if self.dead:
            raise GreenletExit

    def latency_us(self) -> int:
        habits = self.machine.habits
        return round(self._dice.uniform(*habits.latency_us) * habits.slow_disk)

    def store_us(self) -> int:
        return round(self.machine.dice.of(f"store {self.name}").uniform(*self.machine.habits.store_us))

    def fate(self) -> tuple[Fate, int]:
        fate, chance, delay_us = self.machine.habits.fates.get(self.name, (Fate.DONE, 0.0, 0))
        if fate is Fate.DONE or self.machine.dice.of(f"fate {self.name}").random() >= chance:
            return Fate.DONE, 0
        self.machine.count(f"commit {fate.value}")
        return fate, delay_us

    def reach(self, wing: Wing | None = None) -> None:
        if self.dead:
            raise GreenletExit
        machine = self.machine
        while machine.cut or machine.locked:
            holder = machine.locked.get(wing) if wing is not None else None
            if self.name not in machine.cut and (holder is None or holder is self or holder.dead):
                return
            self.pass_time(_AGAIN_US)

    def twice(self) -> bool:
        chance = self.machine.habits.twice.get(self.name, 0.0)
        return chance > 0 and self.machine.dice.of(f"twice {self.name}").random() < chance

    def passing(self, stage: str, commits: Sequence[TaskCommit]) -> None:
        if self.machine.points:
            self.machine.passing(self, stage, commits)
            self.alive()

    def die(self) -> None:
        self.machine.kill(self.name)
        self.alive()

    def later(self, us: int, call: Callable[[], None]) -> None:
        self.machine.kernel.after(us, call)

    def bell(self, streams: Sequence[Stream]) -> Bell:
        self.alive()
        return Bell(self, streams)


class SimWorld:
    """`runtime.world.World` of one simulated process."""

    def __init__(self, process: SimProcess) -> None:
        self._process = process
        self._machine = process.machine
        self.clock = process.clock
        self.pid = process.pid
        self._catalogue = SimCatalogue(process.machine.shelf)

    @property
    def cards(self) -> CardShelf:
        return self._catalogue

    def bus(self, wing: Wing) -> Bus:
        return SimBus(self._machine.log, wing, self._process)

    def models(self) -> Loader:
        return SimModels(self._catalogue, self._scored)

    def _scored(self, rows: int, version: str) -> float:
        us = self._machine.habits.score_us + self._machine.habits.row_us * rows
        self._process.pass_time(us)
        return us / 1e6

    def marks(self, agent: str, partition: int) -> StepMarks:
        return self._machine.marks.setdefault((agent, partition), SimMarks())

    def source(self, regime: Callable[[], str]) -> Source:
        machine = self._machine
        return SimSource(machine.tape, lambda: ",".join([regime(), *machine.regimes]), self.clock)

    def sink(self, role: str, bus: Bus) -> Sink:
        if role == "recorder":
            return self._machine.store.recorder(bus, self._process, self.stopwatch)
        from mendstream.adapters.models.trainer import Trainer

        took = self._machine.habits.train_us
        return Trainer(
            bus,
            self._catalogue,
            SimLearner(lambda rows: self._process.pass_time(took)),
            self.clock,
            partitions=self._machine.settings.run.partitions,
            stopwatch=self.stopwatch,
        )

    def stopwatch(self) -> float:
        return self._machine.kernel.now_us / 1e6

    def sleep(self, seconds: float) -> None:
        self._process.pass_time(round(seconds * 1e6))

    def memory_mb(self) -> float:
        return 50.0

    def beat(self, turn_us: int) -> None:
        self._machine.beats[self._process.name] = LifeSign(self.clock.now_us(), turn_us)

    def assigned(self) -> Sequence[int] | None:
        return self._machine.assignment.get(self._process.name)

    def aside(self, name: str, work: Callable[[], None]) -> Callable[[], bool]:
        process = self._process

        def body() -> None:
            process.pass_time(self._machine.habits.load_us)
            work()

        strand = process.spawn(body, lambda error: process.machine.failed(process, error))
        return lambda: not strand.dead

    def every(self, name: str, seconds: float, work: Callable[[], None]) -> Callable[[], None]:
        process = self._process

        def body() -> None:
            while True:
                process.pass_time(round(seconds * 1e6))
                work()

        return process.spawn(body, lambda error: process.machine.failed(process, error)).kill


class Machine:
    """Use: `start()`, let the kernel run, hurt it. `habits` and `regimes` are what faults turn."""

    def __init__(
        self, kernel: Kernel, dice: Dice, settings: Settings, tape: Tape, store: SimStore
    ) -> None:  # fmt: skip
        self.kernel = kernel
        self.dice = dice
        self.settings = settings
        self.tape = tape
        self.store = store
        self.wall = SimClock(kernel)
        """What the machine says the time is; people may set it."""
        self.clock = SimClock(kernel)
        """The house's: set at its start, and from then on nobody's jump reaches it (see runtime.clock)."""
        self.log = SimLog(synced=settings.bus.durability == "power")
        self.shelf = ModelShelf()
        stock(self.shelf)
        self.usual = self.habits = Habits()
        """What the plan says, and as faults have turned it."""
        self.aside: dict[str, dict[str, bytes]] = {}
        """Files of model versions that a fault has put away."""
        self.regimes: list[str] = []
        self.marks: dict[tuple[str, int], SimMarks] = {}
        self.beats: dict[str, LifeSign] = {}
        self.assignment: Mapping[str, Sequence[int]] = {}
        self.processes: dict[str, SimProcess] = {}
        self.generations: dict[str, int] = {}
        self.failures: dict[str, tuple[str, str]] = {}
        self.crashes: list[Crash] = []
        self.life: list[Life] = []
        """Of the house's processes, in order."""
        self.cut: set[str] = set()
        """Processes that cannot reach the log."""
        self.locked: dict[Wing, SimProcess] = {}
        """Who holds a wing's write lock and does nothing."""
        self.points: dict[str, list[Callable[[], None]]] = {}
        """What is to happen when code comes by a point, once: `sent:model-0`, `done:step:execution`."""
        self.reborn: set[str] = set()
        """Fault: processes that are started again under the generation that they had."""
        self.house_failure: MendstreamError | None = None
        self.counted: dict[str, int] = {}
        self.doubles: list[SimProcess] = []
        """Processes beside the house."""
        self._ended: list[Ended] = []
        self._pids = 100
        self._ear: Bell | None = None
        """The supervisor's, while it waits."""

    def count(self, what: str) -> None:
        """One more of what has to happen sometimes."""
        self.counted[what] = self.counted.get(what, 0) + 1

    # --- the house ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the supervisor; it starts everybody else."""
        self.house_failure = None
        self.clock.set_to(max(self.wall.now_us(), self.log.newest_us + 1))
        self._ended.clear()
        process = self._new(SUPERVISOR, self.generations.get(SUPERVISOR, 0) + 1)
        self.lived(process, "started")
        process.spawn(lambda: self._supervise(process), lambda error: self._supervisor_ended(process, error))

    def _supervise(self, process: SimProcess) -> None:
        run = self.settings.run
        bus = SimBus(self.log, Wing.CONTROL, process)
        bell = process.bell([COMMANDS])
        supervision = Supervision(
            bus=bus, clock=process.clock, restarter=SimRestarter(self, process, bell), notices=SimNotices(self),
            places=places(fuse=run.fuse, partitions=run.partitions, replicas=run.replicas,
                          trainer=self.settings.models.trainer == "resident"),
            partitions=run.partitions,
        )  # fmt: skip
        supervision.start()
        while supervision.failure is None:
            supervision.step()
        self.house_failure = supervision.failure

    def _supervisor_ended(self, process: SimProcess, error: BaseException | None) -> None:
        if isinstance(error, MendstreamError):
            self.house_failure = error
        elif error is not None:
            self.crashes.append(Crash(process.name, self.kernel.now_us, error))
        self.stop()

    def stop(self) -> None:
        """Kill the supervisor; everybody dies with it."""
        for process in [*self.processes.values(), *self.doubles]:
            process.end()
        for process in self.processes.values():
            self.lived(process, "ended", ordered=True)
        self.processes.clear()
        self.doubles.clear()
        self.locked.clear()

    @property
    def up(self) -> bool:
        return SUPERVISOR in self.processes

    # --- processes ---------------------------------------------------------------------------------------------------

    def _new(self, name: str, generation: int) -> SimProcess:
        self._pids += 1
        self.generations[name] = max(self.generations.get(name, 0), generation)
        process = self.processes[name] = SimProcess(self, name, generation, self._pids)
        return process

    def lived(self, process: SimProcess, what: Literal["started", "ready", "ended"], *, ordered: bool = False) -> None:
        self.life.append(Life(self.kernel.now_us, process.name, process.writer.generation, what, ordered))

    def launch(self, name: str, generation: int, *, beside: bool = False) -> SimProcess:
        """Start a process of the house, or `beside` it; under which generation is the caller's affair."""
        process = self._new(name, generation)
        if not beside:
            self.lived(process, "started")
        role, _, replica = name.rpartition("-")
        place = Place(role, int(replica))

        def body() -> None:
            process.pass_time(round(self.dice.of(f"start {name}").uniform(*self.habits.start_us)))
            process.work = Work(self.settings, place, SimWorld(process), generation, lambda *_: None)
            process.work.open()
            process.ready = True
            if self.processes.get(name) is process:
                self.lived(process, "ready")
            while not process.stopping:
                process.work.turn()
            process.work.close()

        process.spawn(body, lambda error: self._process_ended(process, error))
        return process

    def failed(self, process: SimProcess, error: BaseException | None) -> None:
        """A strand beside the turns has ended; only a bug ends one with an error."""
        if error is not None:
            self.crashes.append(Crash(process.name, self.kernel.now_us, error))

    def _process_ended(self, process: SimProcess, error: BaseException | None) -> None:
        code = exit_code(error)
        if code == BUG and error is not None:
            self.crashes.append(Crash(process.name, self.kernel.now_us, error))
        elif isinstance(error, MendstreamError):
            self.failures[process.name] = (str(error), error.hint)
        self._over(process, code)

    def passing(self, process: SimProcess, stage: str, commits: Sequence[TaskCommit]) -> None:
        """Let happen what waits for this point."""
        names = [f"{stage}:{process.name}"]
        names += [
            f"{stage}:step:{record.step}"
            for commit in commits
            for out in commit.outputs
            if out.stream.topic is Topic.INCIDENT_LOG
            for record in decode_each(Topic.INCIDENT_LOG, out.value)
            if isinstance(record, IncidentStep)
        ]
        for name in names:
            for call in self.points.pop(name, ()):
                call()

    def beside(self, name: str) -> None:
        """One more process of the same name that the house knows nothing of."""
        real = self.processes[name]
        double = self.launch(name, self.generations[name] + 1, beside=True)
        self.processes[name] = real
        self.doubles.append(double)

    def card(self, version: str) -> ModelCard:
        return SimCatalogue(self.shelf).fetch(version)

    def kill(self, name: str) -> bool:
        """SIGKILL; False if there is nobody."""
        process = self.processes.get(name)
        if process is None:
            return False
        if name == SUPERVISOR:
            self.stop()
        else:
            self._over(process, KILLED)
        return True

    def _over(self, process: SimProcess, code: int) -> None:
        process.end()
        if self.processes.get(process.name) is process:
            del self.processes[process.name]
            self.lived(process, "ended", ordered=process.ordered)
            self._ended.append(Ended(process.name, process.writer.generation, process.pid, code))
            if self._ear is not None:
                self._ear.ring()

    # --- for the restarter -------------------------------------------------------------------------------------------

    def ends(self, process: SimProcess, bell: Bell, timeout_s: float) -> list[Ended]:
        self._ear = bell
        if not self._ended:
            bell.wait(timeout_s)
        process.alive()
        found, self._ended = self._ended, []
        return found


class SimRestarter:
    """`contracts.ports.Restarter`."""

    def __init__(self, machine: Machine, owner: SimProcess, bell: Bell) -> None:
        self._machine = machine
        self._owner = owner
        self._bell = bell

    def start(self, process: str) -> Started:
        self._owner.alive()
        generation = self._machine.generations.get(process, 0) + (process not in self._machine.reborn)
        return Started(generation, self._machine.launch(process, generation).pid)

    def stop(self, process: str) -> None:
        self._owner.alive()
        held = self._machine.processes.get(process)
        if held is not None:
            held.stopping = held.ordered = True
            if held.work is not None:
                held.work.ring()

    def kill(self, process: str) -> None:
        self._owner.alive()
        held = self._machine.processes.get(process)
        if held is not None:
            held.ordered = True
        self._machine.kill(process)

    def wait(self, timeout_s: float) -> list[Ended]:
        return self._machine.ends(self._owner, self._bell, timeout_s)

    def life_sign(self, process: str) -> LifeSign:
        return self._machine.beats.get(process, LifeSign(0, 0))

    def failure(self, process: str) -> tuple[str, str] | None:
        return self._machine.failures.pop(process, None)

    def close(self) -> None:
        self._machine.stop()


class SimNotices:
    """`runtime.supervision.Notices`."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def assignment(self, partitions: Mapping[str, Sequence[int]]) -> None:
        self._machine.assignment = {name: list(held) for name, held in partitions.items()}

    def processes(self, shown: Mapping[str, Mapping[str, Any]]) -> None:
        """Nobody asks for the status of a simulated house."""
