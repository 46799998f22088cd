"""One run of one plan: the house is started, hurt, left alone, and looked at all the while."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar

import msgspec

from mendstream.chaos.plan import Injection, Plan
from mendstream.contracts.agent import TaskId
from mendstream.contracts.errors import UsageError
from mendstream.contracts.ports import Out, TaskCommit
from mendstream.contracts.records import ConfigChange, encode_block
from mendstream.contracts.topics import CONFIG, Stream, Topic
from mendstream.runtime.roster import places
from mendstream.settings import Settings, load
from mendstream.simulation.data import Tape
from mendstream.simulation.dice import Dice
from mendstream.simulation.faults import FAULT_OF
from mendstream.simulation.health import Health
from mendstream.simulation.invariants import INVARIANTS, Invariant
from mendstream.simulation.kernel import Kernel
from mendstream.simulation.log import Append, SimLog, Writer
from mendstream.simulation.machine import Habits, Machine
from mendstream.simulation.models import SimCatalogue
from mendstream.simulation.people import Manners, People
from mendstream.simulation.sometimes import Sometimes, counting_moves
from mendstream.simulation.store import SimStore
from mendstream.simulation.story import Story, Violation

T = TypeVar("T")
START_US = 1_800_000_000_000_000
TICK_US = 250_000
WARM_US = 3_000_000
"""The first fault comes no earlier after the start: the house is up and serves."""
WELL_WITHIN_US = 120_000_000
"""Once the faults have stopped, the house has to be well within this time."""
WELL_FOR_US = 1_000_000
WRITE_BACK_US = (1_000_000, 3_000_000)
SETTLE_US = 500_000
"""From the last decision to the last count and the last label."""
DRAIN_US = 10_000_000
"""How long what has happened may take to be decided, in a house that is well."""


@dataclass(frozen=True)
class Outcome:
    """What one run told."""

    plan: Plan
    violations: tuple[Violation, ...]
    digest: str
    events: int
    """Of the kernel."""
    simulated_s: float
    cpu_s: float
    counted: dict[str, int]
    tail: tuple[str, ...] = ()


@dataclass
class Run:
    """A house in the middle of a plan. `invariants`: what looks at it."""

    plan: Plan
    invariants: Sequence[type[Invariant]] = INVARIANTS
    _held: list[Injection] = field(default_factory=list)
    _said: list[Injection] = field(default_factory=list)
    """Faults that a record has ended."""

    def __post_init__(self) -> None:
        plan = self.plan
        self.kernel = Kernel(START_US)
        self.story = Story(START_US)
        settings = settings_of(msgspec.json.encode(plan.settings, order="sorted"))
        tape = Tape(plan.seed, START_US + 500_000, rate=settings.ingestion.rate)
        self.machine = Machine(self.kernel, Dice(plan.seed), settings, tape, SimStore())
        self.machine.usual = _made(Habits, plan.habits, "habits")
        self.machine.habits = _made(Habits, plan.habits, "habits")
        self.story.health = Health(self.machine)
        self.people = People(self.machine, self.story, _made(Manners, plan.people, "people"))
        self.watching = [kind(self.machine, self.story) for kind in (*self.invariants, Sometimes)]
        self._appended = {topic: [one.appended for one in self.watching if topic in one.topics] for topic in Topic}
        self._committed = [one.committed for one in self.watching if _has(one, "committed")]
        self.machine.log.watchers += [self.story, self]

    # --- a watcher of the log ----------------------------------------------------------------------------------------

    def appended(self, append: Append) -> None:
        for look in self._appended[append.stream.topic]:
            look(append)

    def committed(self, commit: TaskCommit, process: str, generation: int) -> None:
        for look in self._committed:
            look(commit, process, generation)

    def claimed(self, task: TaskId, epoch: int, process: str, generation: int) -> None:
        for invariant in self.watching:
            invariant.claimed(task, epoch, process, generation)

    def forgot(self, log: SimLog) -> None:
        self.people.forget()
        for invariant in self.watching:
            invariant.forgot()
        self._say_again()

    # --- the two phases ----------------------------------------------------------------------------------------------

    def __call__(self) -> Outcome:
        with counting_moves(self.machine):
            return self._run()

    def _run(self) -> Outcome:
        started = time.process_time()
        self._first_config()
        if any(injection.fault == "power-cut" for injection in self.plan.injections):
            self._write_back()
        self.machine.start()
        self.people.start()
        for injection in self.plan.injections:
            self._plan(injection)
        self._go(WARM_US + self.plan.chaos_ms * 1000)
        self._stop_faults()
        self._become_well()
        self._run_dry()
        if not self.story.violations:
            for invariant in self.watching:
                invariant.end()
        told = self._told(started)
        self._put_away()
        return told

    def _told(self, started: float) -> Outcome:
        return Outcome(
            plan=self.plan,
            violations=tuple(self.story.violations),
            digest=self.story.digest.hexdigest(),
            events=self.kernel.events,
            simulated_s=(self.kernel.now_us - START_US) / 1e6,
            cpu_s=time.process_time() - started,
            counted=dict(self.machine.counted),
            tail=tuple(self.story.tail),
        )

    def _put_away(self) -> None:
        """Let go of what would hold files and memory."""
        self.machine.stop()
        self.kernel.run(self.kernel.now_us)
        self.machine.store.close()

    def _first_config(self) -> None:
        card = SimCatalogue(self.machine.shelf).fetch("v1")
        change = ConfigChange(
            id="sim.0/init/0/1", base_version=0, actor="init", reason="first start", at_us=START_US,
            changes={"model_version": card.version, "model_digest": card.digest},
        )  # fmt: skip
        self.machine.log.publish([Out(CONFIG, encode_block([change]), 1)], Writer("init", 1, self.machine.clock.now_us))

    def _write_back(self) -> None:
        """What is written reaches the disk now and then, as the operating system likes."""
        self.machine.log.sync()
        self.kernel.after(self.machine.dice.of("write back").randrange(*WRITE_BACK_US), self._write_back)

    def _go(self, us: int) -> None:
        """Let time pass; invariants look at every tick, and a broken one ends it."""
        until = self.kernel.now_us + us
        while self.kernel.now_us < until and not self.story.violations:
            self.kernel.run(min(until, self.kernel.now_us + TICK_US))
            self.story.health.tick()
            for invariant in self.watching:
                invariant.tick()

    def _become_well(self) -> None:
        since, began = None, self.kernel.now_us
        while not self.story.violations:
            now = self.kernel.now_us
            why = self._ill()
            since = None if why else since or now
            if since is not None and now - since >= WELL_FOR_US:
                return
            if now - began > WELL_WITHIN_US:
                self.story.broken("the house becomes well", f"{WELL_WITHIN_US // 1_000_000} s after the faults: {why}")
                return
            self._go(TICK_US)

    def _run_dry(self) -> None:
        """The stream ends; everything that has happened has to be decided."""
        tape = self.machine.tape
        tape.last = tape.due(self.machine.clock.now_us())
        until = self.kernel.now_us + DRAIN_US
        while not self.story.violations and self.kernel.now_us < until and self._undecided():
            self._go(TICK_US)
        self._go(SETTLE_US)

    # --- how the house is --------------------------------------------------------------------------------------------

    def _ill(self) -> str:
        """Why it is not well yet, or an empty string."""
        machine, run = self.machine, self.machine.settings.run
        if not machine.up:
            return "it does not run"
        roster = places(fuse=run.fuse, partitions=run.partitions, replicas=run.replicas, trainer=False)
        missing = {place.process for place in roster} - set(machine.processes)
        if missing:
            return f"{', '.join(sorted(missing))} not running"
        stopped = [name for name, process in sorted(machine.processes.items()) if process.frozen]
        if stopped:
            return f"{', '.join(stopped)} stopped"
        cases = [case.last.incident.incident_id for case in self.story.open_cases()]
        if cases:
            return f"incidents {', '.join(cases)} are open"
        if self.story.config.safe_mode:
            return f"SAFE_MODE is held by {self.story.config.safe_mode}"
        if self.story.alerts:
            return f"alerts {', '.join(sorted(self.story.alerts))} fire"
        return self._undecided(slack=200)

    def _undecided(self, slack: int = 0) -> str:
        """What of the stream is still on its way, if it is more than `slack` rows."""
        log, partitions = self.machine.log, self.machine.settings.run.partitions
        ingestion = log.task(TaskId("ingestion", 0))
        read = 0 if ingestion is None else ingestion.positions.get(Stream(Topic.SOURCE, 0), 0)
        waiting = self.machine.tape.due(self.machine.clock.now_us()) - read
        for stage, topic in (("feature", Topic.RAW_EVENTS), ("model", Topic.FEATURES), ("decision", Topic.PREDICTIONS)):
            for p in range(partitions):
                task, stream = log.task(TaskId(stage, p)), Stream(topic, p)
                waiting += log.bounds(stream)[1] - (0 if task is None else task.positions.get(stream, 0))
        return f"{waiting} rows are on their way" if waiting > slack else ""

    # --- faults ------------------------------------------------------------------------------------------------------

    def _plan(self, injection: Injection) -> None:
        if injection.fault not in FAULT_OF:
            raise UsageError(f"there is no fault {injection.fault!r}", hint=f"faults: {', '.join(FAULT_OF)}")
        self.kernel.at(START_US + WARM_US + injection.at_ms * 1000, lambda: self._due(injection))

    def _due(self, injection: Injection) -> None:
        if not injection.point:
            self._put(injection)
        elif self.story.calm_since_us is None:
            self.machine.points.setdefault(injection.point, []).append(lambda: self._put(injection))

    def _put(self, injection: Injection) -> None:
        fault = FAULT_OF[injection.fault]
        self.story.hurt(injection, True, self.kernel.now_us)
        self.machine.count(f"fault {fault.name}")
        fault.put(self.machine, {**fault.params, **injection.params})
        if fault.take is None:
            self.story.hurt(injection, False, self.kernel.now_us)
            return
        self._held.append(injection)
        if injection.for_ms is not None:
            self.kernel.after(injection.for_ms * 1000, lambda: self._take(injection))

    def _take(self, injection: Injection) -> None:
        fault = FAULT_OF[injection.fault]
        if injection not in self._held or fault.take is None:
            return
        self._held.remove(injection)
        fault.take(self.machine, {**fault.params, **injection.params})
        if fault.said:
            self._said.append(injection)
        elif fault.name == "full-disk":
            self._say_again()
        self.story.hurt(injection, False, self.kernel.now_us)

    def _say_again(self) -> None:
        """End once more what has ended: the record that did so may not be in the log, for a power cut took it, or the
        disk was full.
        """
        held = {injection.fault for injection in self._held}
        for injection in self._said:
            fault = FAULT_OF[injection.fault]
            if fault.take is not None and fault.name not in held:
                fault.take(self.machine, {**fault.params, **injection.params})

    def _stop_faults(self) -> None:
        for injection in list(self._held):
            self._take(injection)
        for double in self.machine.doubles:
            double.end()
        self.machine.points.clear()
        self.people.manners = Manners(rules_us=5_000_000)
        self.story.calm_since_us = self.kernel.now_us


def _has(invariant: Invariant, hook: str) -> bool:
    """Whether it does anything at this hook: some are called thousands of times in a run."""
    return getattr(type(invariant), hook) is not getattr(Invariant, hook)


def _made(kind: type[T], values: dict[str, Any], what: str) -> T:
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        fields = ", ".join(vars(kind).get("__dataclass_fields__", {}))
        raise UsageError(f"the plan's {what} {values}: {error}", hint=f"{what} are: {fields}") from error


@cache
def settings_of(over: bytes) -> Settings:
    """The settings of a simulated house; `over` them, as a JSON object."""
    return load(
        env={},
        dotenv=None,
        overrides={
            "pipeline": "mendstream.simulation.data:pumps",
            "bus.durability": "process",
            "ingestion.rate": 60.0,
            "ingestion.linger_ms": 300.0,
            "monitoring.season_s": 2.0,
            "monitoring.season_events": 256,
            "healing.proof_events": 60,
            "healing.proof_labels": 40,
            "metrics.enabled": False,
            "chaos.enabled": True,
            **msgspec.json.decode(over),
        },
    ).settings
