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
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from msgspec.structs import replace

from mendstream.contracts.errors import CouldNot
from mendstream.contracts.incident import Phase
from mendstream.contracts.ports import Bus
from mendstream.contracts.topics import Stream, Topic
from mendstream.demo.accounting import Accounting, Broker, Place, account
from mendstream.demo.scenario import FIRST_MODELS, SEASON, Case, News
from mendstream.runtime.ground import cluster_of, embedded, open_bus
from mendstream.runtime.roster import ROLE_OF
from mendstream.runtime.supervision import INTENSITY
from mendstream.settings import Settings, load
from mendstream.simulation import audit
from mendstream.simulation.audit import Compared, Incidents
from mendstream.simulation.calm import against_calm_ones, drained
from mendstream.simulation.spawned import SUPERVISOR, Spawned, living

RATE = 500.0
PAUSE_S = (0.1, 1.3)
"""Between two kills."""
SUPERVISOR_SHARE = 0.05
"""Of the kills: with the supervisor everybody dies, and healing has to be given time to heal."""
AT_BIRTH = 0.1
"""How often a supervisor is killed that has started nobody yet: more often, and hardly a house would get to work."""
BUDGETS = {"policy.restarts_per_10min": 100_000, "healing.actions_per_hour": 10_000}
"""The shipped ones would stop healing at the fourth kill of a process: right, and not what is looked at here."""
START_S = 60.0
"""How long a house may take to its first decision; the machine is busy with dying and starting."""
QUIET_S = 60.0
"""How long incidents may take to end after the last kill. One that has not is still open, which is legal."""
DRAIN_S = 120.0
ORPHAN_S = 5.0
"""How long a process may live on after its supervisor's death."""
_TICK_S = 0.02
_COULD_NOT = 3
"""Exit code of a house that gives its reason."""
_DECISIONS = Stream(Topic.DECISIONS, 0)


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
    gave_up: tuple[str, ...]
    """What the supervisor said when it ended by itself, as it does where a control process died too often."""
    counted: Accounting
    compared: Compared
    spoiled: int
    """Keys that are not compared: an event of theirs was set aside after three deaths on it."""
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


def crash(
    kills: int, *, fuse: bool, seed: int, servers: str = "", progress: Progress, stop: Callable[[], bool]
) -> Report:  # fmt: skip
    """Kill and count. `servers`: Kafka brokers to run on, instead of embedded. `stop`: asked between two kills; what
    was covered by then is counted. Raises CouldNot.
    """
    with _folder() as root, _topics(house_settings(root / "killed", fuse=fuse, seed=seed, servers=servers)) as settings:
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
        log = _log_of(settings)
        counted = account(log)
        found = audit.decisions(log)
        spoiled = audit.spoiled(log)
        clock.begin("deciding without kills", len(audit.made_with(found)))
        compared = against_calm_ones(settings, root, audit.without(found, spoiled), counted.last, clock.at)
        clock.begin("")
        return Report(
            seed=seed, fuse=fuse, wanted=kills, killed=dict(monkey.killed), starts=monkey.house.starts,
            gave_up=tuple(monkey.gave_up), counted=counted, compared=compared, spoiled=len(spoiled),
            incidents=audit.incidents(root / "killed", log), orphans=tuple(monkey.orphans), seconds=clock.seconds,
        )  # fmt: skip


def house_settings(root: Path, *, fuse: bool, seed: int, rate: float = RATE, servers: str = "") -> Settings:
    """Flights from a careless sender; no file and no environment of the user's changes it."""
    kafka = {"bus.kind": "kafka", "bus.bootstrap_servers": servers, "run.namespace": f"crash-{time.time_ns():x}"}
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
            **(kafka if servers else {}),
        },
    ).settings


# --- killing ---------------------------------------------------------------------------------------------------------


class Monkey:
    """Kills processes of a house, and starts the house again where it has to."""

    def __init__(self, settings: Settings, seed: int) -> None:
        self.house = Spawned(settings)
        self.killed: Counter[str] = Counter()
        self.gave_up: list[str] = []
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
        at_birth = self._dice.random() < AT_BIRTH

        def somebody() -> bool:
            self._start_again_if_it_gave_up()
            return bool(self._victims(at_birth))

        self._wait(somebody, START_S, "live process")
        victims = self._victims(at_birth=True)
        if not victims:  # it has just ended by itself
            return
        name, pid = self._chosen(victims)
        self.house.kill(name, pid)
        self.killed[name] += 1
        self._recent.setdefault(name, deque()).append(time.monotonic())
        if name == SUPERVISOR:
            self._start(self._settings)

    def _chosen(self, victims: list[tuple[str, int]]) -> tuple[str, int]:
        """One of them: now and then the supervisor, twice as often who has events in its hands as who has not."""
        others = [victim for victim in victims if victim[0] != SUPERVISOR]
        if not others or self._dice.random() < SUPERVISOR_SHARE:
            return next((victim for victim in victims if victim[0] == SUPERVISOR), victims[0])
        return self._dice.choices(others, [1 + _is_pipeline(name) for name, _ in others])[0]

    def _victims(self, at_birth: bool) -> list[tuple[str, int]]:
        """Who lives and may be killed. `at_birth`: also a supervisor that has started nobody yet."""
        alive = self.house.living()
        return [] if len(alive) == 1 and not at_birth else [one for one in alive.items() if self._may_die(one[0])]

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
        code = self.house.code
        if code is None:
            return
        if code != _COULD_NOT:
            raise CouldNot(f"crashtest: the house ended by itself with code {code}", hint=self._last_words())
        self.gave_up.append(self._last_words())
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
        begun_us, news = time.time_ns() // 1000, News()
        self._start(_without_source(self._settings))

        def done() -> bool:
            news.read(self._bus)
            # Whoever owns a task has ended what its dead owner had begun.
            fresh = news.vitals is not None and news.vitals.at_us > begun_us
            owned = news.vitals is not None and all(task.state == "OK" for task in news.vitals.tasks)
            return fresh and owned and drained(self._bus) and self._store_knows(news)

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


def _under_way(case: Case) -> bool:
    """Whether healing still has to do something by itself; a person will not come."""
    return case.acting and case.steps[-1].phase not in (Phase.ASKED, Phase.ESCALATED)


def _without_source(settings: Settings) -> Settings:
    return replace(settings, ingestion=replace(settings.ingestion, source=""))


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


def _log_of(settings: Settings) -> Place:
    if embedded(settings):
        return Path(settings.run.data_dir)
    return Broker(settings.bus.bootstrap_servers, settings.run.namespace)


@contextlib.contextmanager
def _topics(settings: Settings) -> Iterator[Settings]:
    """The topics that a house with these settings makes on a broker are gone afterwards."""
    try:
        yield settings
    finally:
        if not embedded(settings):
            from mendstream.adapters.bus.kafka import topics

            topics.delete(cluster_of(settings))


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    root = Path(tempfile.mkdtemp(prefix="mendstream-crash-"))
    try:
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)
