"""A number of kills in; what real processes lost, did twice or decided otherwise out.

A real `mendstream run` works off a stream with repeats and cut events while SIGKILL meets random processes at random
moments, the supervisor among them, which is then started again as a service manager would. Then the kills stop, the
house may become quiet, works off what waits, and is stopped; and the same events are decided once more without kills.

The seed fixes the stream and the draws of the dice, not the moments: real processes are never twice the same.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import subprocess
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from msgspec.structs import replace

from mendstream.adapters.models.catalogue import Catalogue
from mendstream.contracts.agent import TaskId
from mendstream.contracts.errors import CouldNot
from mendstream.contracts.incident import Phase
from mendstream.contracts.knobs import Mode
from mendstream.contracts.ports import Bus, Out
from mendstream.contracts.records import ConfigChange, encode_block
from mendstream.contracts.topics import CONFIG, Stream, Topic
from mendstream.demo.accounting import Accounting, account
from mendstream.demo.scenario import FIRST_MODELS, SEASON, Case, News
from mendstream.runtime.ground import current_config, open_bus, prepare
from mendstream.runtime.roster import ROLE_OF, STAGES
from mendstream.runtime.supervision import INTENSITY
from mendstream.settings import Settings, load, models_dir
from mendstream.simulation import audit
from mendstream.simulation.audit import Compared, Decided, Incidents, Made
from mendstream.simulation.spawned import SUPERVISOR, Spawned, end, living, start

RATE = 500.0
PAUSE_S = (0.1, 1.3)
"""Between two kills."""
AT_BIRTH = 0.1
"""How often a supervisor is killed that has started nobody yet: more often, and hardly a house would get to work."""
BUDGETS = {"policy.restarts_per_10min": 100_000, "healing.actions_per_hour": 10_000}
"""The shipped ones would stop healing at the fourth kill of a process, which is right, and not what is looked at here."""
START_S = 60.0
"""How long a house may take to its first decision; the machine is busy with dying and starting."""
QUIET_S = 60.0
"""How long incidents may take to end after the last kill. One that has not is still open, which is legal."""
DRAIN_S = 120.0
CALM_S = 300.0
"""How long one run without kills may take."""
ORPHAN_S = 5.0
"""How long a process may live on after its supervisor's death."""
_TICK_S = 0.02
_SOURCE, _DECISIONS = Stream(Topic.SOURCE, 0), Stream(Topic.DECISIONS, 0)
_INPUTS = {"feature": Topic.RAW_EVENTS, "model": Topic.FEATURES, "decision": Topic.PREDICTIONS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What became of the events; `exact` if nothing went wrong."""

    seed: int
    fuse: bool
    wanted: int
    """Kills that were asked for."""
    killed: dict[str, int]
    """By process."""
    starts: int
    gave_up: int
    """How often the supervisor ended by itself, because a control process had died too often."""
    counted: Accounting
    compared: Compared
    incidents: Incidents
    orphans: tuple[str, ...]
    seconds: dict[str, float]
    """By chapter."""

    @property
    def kills(self) -> int:
        return sum(self.killed.values())

    @property
    def interrupted(self) -> bool:
        return self.kills < self.wanted

    @property
    def exact(self) -> bool:
        nothing_wrong = self.counted.exact and not self.compared.different and not self.orphans
        return nothing_wrong and not self.incidents.flaws and self.compared.events > 0


Progress = Callable[[str, int, int], None]
"""Told of chapter, how far it is, and how far it goes."""


def crash(kills: int, *, fuse: bool, seed: int, progress: Progress, stop: Callable[[], bool]) -> Report:
    """Kill and count. `stop`: asked between two kills; what was covered by then is counted. Raises CouldNot."""
    with _folder() as root:
        settings = house_settings(root / "killed", fuse=fuse, seed=seed)
        clock = _Chapters(progress)
        monkey = Monkey(settings, seed)
        try:
            clock.begin("killing", kills)
            monkey.begin()
            while monkey.killed.total() < kills and not stop():
                monkey.kill_one()
                clock.at(monkey.killed.total())
            clock.begin("becoming quiet")
            monkey.quiet()
            monkey.drain()
        finally:
            monkey.close()
        clock.begin("counting")
        counted = account(root / "killed")
        found = audit.decisions(root / "killed")
        clock.begin("deciding without kills", len(audit.made_with(found)))
        compared = _against_calm_ones(settings, root, found, counted.last, clock)
        clock.begin("")
        return Report(
            seed=seed, fuse=fuse, wanted=kills, killed=dict(monkey.killed), starts=monkey.house.starts,
            gave_up=monkey.gave_up, counted=counted, compared=compared, incidents=audit.incidents(root / "killed"),
            orphans=tuple(monkey.orphans), seconds=clock.seconds,
        )  # fmt: skip


def house_settings(root: Path, *, fuse: bool, seed: int, rate: float = RATE) -> Settings:
    """Flights from a careless sender; no file and no environment of the user's changes it."""
    return load(
        env={},
        dotenv=None,
        overrides={
            "pipeline": "mendstream.demo.pipeline:flights",
            "run.data_dir": str(root),
            "run.fuse": fuse,
            "run.seed": seed,
            "bus.durability": "process",
            "ingestion.source": "python:mendstream.simulation.stream:CarelessFlights",
            "ingestion.rate": rate,
            "monitoring.season_events": SEASON,
            "metrics.enabled": False,
            "models.initial": str(FIRST_MODELS),
            **BUDGETS,
        },
    ).settings


# --- killing ---------------------------------------------------------------------------------------------------------


class Monkey:
    """Kills processes of a house, and starts the house again where it has to."""

    def __init__(self, settings: Settings, seed: int) -> None:
        self.house = Spawned(settings)
        self.killed: Counter[str] = Counter()
        self.gave_up = 0
        self.orphans: list[str] = []
        self._settings = settings
        self._dice = random.Random(seed)
        self._recent: dict[str, deque[float]] = {}
        self._left: list[tuple[float, list[psutil.Process]]] = []
        """Families of supervisors that are gone, and when all of them have to be."""
        self._log: Bus | None = None

    def begin(self) -> None:
        """Until the house has decided something."""
        self._start(self._settings)
        self._wait(lambda: self._opened() and self._bus.bounds(_DECISIONS)[1] > 0, START_S, "first decision")

    def kill_one(self) -> None:
        """The next moment, and whoever lives then and may be killed."""
        time.sleep(self._dice.uniform(*PAUSE_S))
        self._look_for_orphans()
        self._start_again_if_it_gave_up()
        alive = self.house.living()
        victims = [(name, pid) for name, pid in alive.items() if self._may_die(name)]
        if not victims or (len(alive) == 1 and self._dice.random() > AT_BIRTH):
            return
        name, pid = self._dice.choices(victims, [_weight(name) for name, _ in victims])[0]
        self.house.kill(name, pid)
        self.killed[name] += 1
        self._recent.setdefault(name, deque()).append(time.monotonic())
        if name == SUPERVISOR:
            self._start(self._settings)

    def _may_die(self, name: str) -> bool:
        """The supervisor gives up on a control process that ends too often, which is right: it is left alive then."""
        if name == SUPERVISOR or _is_pipeline(name):
            return True
        most, within_us = INTENSITY
        recent = self._recent.setdefault(name, deque())
        while recent and recent[0] < time.monotonic() - within_us / 1e6:
            recent.popleft()
        return len(recent) < most - 1

    def _start(self, settings: Settings) -> None:
        if self.house.starts:
            self._left.append((time.monotonic() + ORPHAN_S, list(self.house.family.values())))
            self._recent.clear()  # a new supervisor begins to count anew
        self.house.start(settings)

    def _start_again_if_it_gave_up(self) -> None:
        if self.house.code is not None:
            self.gave_up += 1
            self._start(self._settings)

    # --- afterwards ----------------------------------------------------------------------------------------------

    def quiet(self) -> None:
        """No kills any more: let healing end what it has begun, as far as it can within QUIET_S."""
        news = News()
        begun_us, limit = time.time_ns() // 1000, time.monotonic() + QUIET_S

        def over() -> bool:
            self._start_again_if_it_gave_up()
            news.read(self._bus)
            fresh = news.vitals is not None and news.vitals.at_us > begun_us
            well = news.vitals is not None and all(task.state == "OK" for task in news.vitals.tasks)
            at_rest = fresh and well and not any(_under_way(case) for case in news.cases.values())
            return at_rest or time.monotonic() > limit

        self._wait(over, 2 * QUIET_S, "quiet")

    def drain(self) -> None:
        """Stop it, and start it once more without a source: it decides what waits, and its store catches up."""
        self._end()
        self._start(_without_source(self._settings))
        news = News()

        def done() -> bool:
            news.read(self._bus)
            running = len(self.house.living()) > 1
            return running and _drained(self._bus) and self._store_knows(news)

        self._wait(done, DRAIN_S, "end of what waits")
        self._end()
        self._wait(lambda: not self._left, 2 * ORPHAN_S, "end of every process")

    def _store_knows(self, news: News) -> bool:
        steps = [step.seq for case in news.cases.values() for step in case.steps]
        return audit.recorded(self.house.root) >= max(steps, default=-1)

    def _end(self) -> None:
        code = self.house.stop()
        if code != 0:
            raise CouldNot(f"crashtest: the house ended with code {code}", hint=self._last_words())
        self._left.append((time.monotonic() + ORPHAN_S, list(self.house.family.values())))
        self.house.family = {}

    def _look_for_orphans(self) -> None:
        """Who outlives its supervisor by more than ORPHAN_S."""
        waiting = []
        for limit, family in self._left:
            rest = living(family)
            if rest and time.monotonic() < limit:
                waiting.append((limit, rest))
                continue
            for orphan in rest:
                self.orphans.append(f"pid {orphan.pid}")
                with contextlib.suppress(psutil.Error):
                    orphan.kill()
        self._left = waiting

    # --- looking -------------------------------------------------------------------------------------------------

    def _wait(self, there: Callable[[], bool], seconds: float, what: str) -> None:
        limit = time.monotonic() + seconds
        while not there():
            self._look_for_orphans()
            if time.monotonic() > limit:
                raise CouldNot(f"crashtest: no {what} within {seconds:.0f} s", hint=self._last_words())
            time.sleep(_TICK_S)

    def _opened(self) -> bool:
        """Whether there is a log to look into yet."""
        if self._log is None and (self.house.root / "run" / "processes.json").exists():
            self._log = open_bus(self._settings, readonly=True)
        if self._log is None and self.house.code is not None:
            raise CouldNot("crashtest: the house did not start", hint=self._last_words())
        return self._log is not None

    @property
    def _bus(self) -> Bus:
        assert self._log is not None
        return self._log

    def _last_words(self) -> str:
        said = self.house.said.read_text(errors="replace").splitlines() if self.house.said.exists() else []
        return said[-1] if said else "it said nothing"

    def close(self) -> None:
        """Whatever happened, no process stays."""
        if self.house.starts:
            self.house.stop()
        for one in living([one for _, family in self._left for one in family] + list(self.house.family.values())):
            with contextlib.suppress(psutil.Error):
                one.kill()
        if self._log is not None:
            self._log.close()


def _is_pipeline(name: str) -> bool:
    return name != SUPERVISOR and ROLE_OF[name.rpartition("-")[0]].pipeline


def _weight(name: str) -> int:
    """Twice as often who has the events in its hands."""
    return 2 if _is_pipeline(name) else 1


def _under_way(case: Case) -> bool:
    """Whether healing still has to do something by itself; a person will not come."""
    return case.acting and case.steps[-1].phase not in (Phase.ASKED, Phase.ESCALATED)


def _without_source(settings: Settings) -> Settings:
    return replace(settings, ingestion=replace(settings.ingestion, source=""))


def _drained(bus: Bus) -> bool:
    """Whether each stage has read all that the one before it has written."""
    return all(
        bus.position(TaskId(stage, 0), Stream(topic, 0)) == bus.bounds(Stream(topic, 0))[1]
        for stage, topic in _INPUTS.items()
    )


# --- the same without kills ------------------------------------------------------------------------------------------


def _against_calm_ones(
    settings: Settings, folder: Path, found: dict[str, tuple[Made, Decided]], last: int, chapters: _Chapters
) -> Compared:  # fmt: skip
    """Decide all events once more for each model, mode and threshold that was at work, with just these from the first
    event on, and compare the events that they have decided.
    """
    sums: list[Compared] = []
    for number, made in enumerate(audit.made_with(found)):
        calm = load_calm(settings, folder / f"calm-{number}")
        _decide(calm, made, last)
        sums.append(audit.compare(found, audit.decisions(Path(calm.run.data_dir))))
        chapters.at(number + 1)
    return audit.total(sums)


def load_calm(settings: Settings, root: Path) -> Settings:
    """The same house in another place, at full speed, with the models of the first one."""
    shutil.copytree(models_dir(settings), root / "models")
    run = replace(settings.run, data_dir=str(root))
    return replace(settings, run=run, ingestion=replace(settings.ingestion, rate=0.0))


def _decide(settings: Settings, made: Made, last: int) -> None:
    """Run the pipeline alone, as `made` says, until event `last` is decided: nobody watches, so nothing changes."""
    prepare(settings)
    _fix(settings, made)
    first, *others = ("fused",) if settings.run.fuse else STAGES
    bus = open_bus(settings, readonly=True)
    started: dict[str, subprocess.Popen[bytes]] = {}
    said = Path(settings.run.data_dir) / "run.txt"
    try:
        for role in (first, *others):
            started[role] = start(settings, "agent", role, said=said)
        _until(lambda: (bus.position(TaskId("ingestion", 0), _SOURCE) or 0) > last, started)
        end([started.pop(first)])
        _until(lambda: _drained(bus), started)
    finally:
        end(list(started.values()))
        bus.close()


def _fix(settings: Settings, made: Made) -> None:
    """Turn the knobs before the first event."""
    digest = Catalogue(models_dir(settings).absolute()).fetch(made.model).digest
    changes = {
        "model_version": made.model, "model_digest": digest, "decision_threshold": made.threshold,
        "safe_mode": ["crashtest"] if made.mode == Mode.SAFE_MODE else [],
    }  # fmt: skip
    bus = open_bus(settings)
    try:
        base = current_config(bus).version
        change = ConfigChange(
            id=f"{bus.incarnation}/crashtest/0/1", base_version=base, changes=changes, actor="crashtest",
            reason="as it was in the run with kills", at_us=time.time_ns() // 1000, forced=True,
        )  # fmt: skip
        bus.publish([Out(CONFIG, encode_block([change]), 1)])
    finally:
        bus.close()


def _until(there: Callable[[], bool], started: dict[str, subprocess.Popen[bytes]]) -> None:
    limit = time.monotonic() + CALM_S
    while not there():
        ended = next((role for role, process in started.items() if process.poll() is not None), None)
        if ended is not None:
            raise CouldNot(f"crashtest: {ended} ended in the run without kills", hint="run it alone")
        if time.monotonic() > limit:
            raise CouldNot(f"crashtest: the run without kills took more than {CALM_S:.0f} s", hint="fewer kills")
        time.sleep(_TICK_S)


# --- small parts -----------------------------------------------------------------------------------------------------


class _Chapters:
    """What is going on, for the eye, and how long it took."""

    def __init__(self, progress: Progress) -> None:
        self.seconds: dict[str, float] = {}
        self._progress = progress
        self._name, self._most, self._since = "", 0, time.monotonic()

    def begin(self, name: str, most: int = 0) -> None:
        """An empty name ends the last one."""
        now = time.monotonic()
        if self._name:
            self.seconds[self._name] = now - self._since
        self._name, self._most, self._since = name, most, now
        if name:
            self._progress(name, 0, most)

    def at(self, done: int) -> None:
        self._progress(self._name, done, self._most)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    root = Path(tempfile.mkdtemp(prefix="mendstream-crash-"))
    try:
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)
