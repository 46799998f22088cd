"""A running house for tests: started, driven until something is true, hurt, read, stopped.

Nothing in here sleeps for a fixed time on purpose: a test says what it waits for and how long that may take, and while
it waits the supervisor is served, as `mendstream run` does it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import psutil
import structlog

from mendstream.adapters.models.catalogue import Catalogue
from mendstream.contracts.models import ModelCard
from mendstream.contracts.ports import Bus
from mendstream.contracts.records import (
    ActionRow,
    Alert,
    IncidentHead,
    IncidentStep,
    Record,
    Served,
    Status,
    TaskVital,
    Vitals,
    decode_block,
)
from mendstream.contracts.topics import Stream, Topic
from mendstream.runtime.ground import current_config, open_bus
from mendstream.runtime.inject import inject
from mendstream.runtime.supervisor import House
from mendstream.settings import Settings, load, models_dir
from mendstream.simulation.audit import broken
from mendstream.simulation.spawned import family_of

STEPS = ("detection", "logging", "planning", "approval", "execution", "verification", "memory")
"""The seven of the brief, in order."""
STAGES = ("ingestion", "feature", "model", "decision")
CONTROL = ("joiner", "judge", "policy", "healing", "recorder")
DEADLINE_S = 60.0
"""Figures are the bench's business: here a slow machine may take its time."""
TICK_S = 0.02
STILL_S = 5.0
"""If no decision comes for so long, none will."""
DEMO = Path(sys.modules[House.__module__].__file__ or "").parents[1] / "demo"
FIRST_MODELS = DEMO / "models"
MENDSTREAM = Path(sys.executable).parent / "mendstream"
_TOPICS = (
    Topic.VITALS,
    Topic.ALERTS,
    Topic.INCIDENT_LOG,
    Topic.POLICY_REQUESTS,
    Topic.POLICY_DECISIONS,
    Topic.COMMANDS,
    Topic.COMMAND_RESULTS,
    Topic.CONFIG_UPDATES,
)


def house_settings(root: Path, **overrides: Any) -> Settings:
    """Flights at 500 events a second, as the demo has it. `overrides`: `group__field=value`."""
    given: dict[str, Any] = {
        "pipeline": "mendstream.demo.pipeline:flights",
        "run.data_dir": str(root),
        "bus.durability": "process",
        "ingestion.source": "python:mendstream.demo.source:FlightsSource",
        "ingestion.rate": 500.0,
        "monitoring.season_events": 1000,
        "metrics.enabled": False,
        "models.initial": str(FIRST_MODELS),
        "chaos.enabled": True,
    }
    given |= {key.replace("__", "."): value for key, value in overrides.items()}
    return load(env={}, overrides=given, dotenv=None).settings


def register_bad_model(settings: Settings) -> None:
    """v2, which is really worse, as a trainer would have left it."""
    place = FIRST_MODELS / "v2-bad"
    card = msgspec.json.decode((place / "card.json").read_bytes(), type=ModelCard)
    Catalogue(models_dir(settings).absolute()).add((place / "model.onnx").read_bytes(), card)


@dataclass(slots=True)
class Case:
    """One incident as the log tells it."""

    head: IncidentHead
    steps: list[IncidentStep] = field(default_factory=list)
    actions: dict[str, ActionRow] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return self.head.incident_id

    @property
    def ended(self) -> bool:
        return self.head.status in (Status.RESOLVED, Status.FAILED)

    @property
    def resolved(self) -> bool:
        return self.head.status is Status.RESOLVED

    @property
    def phase(self) -> str:
        return self.steps[-1].phase

    @property
    def own(self) -> list[IncidentStep]:
        """Its steps without those of the way back that may follow it."""
        return [step for step in self.steps if not step.data.get("way_back")]

    @property
    def way_back(self) -> list[IncidentStep]:
        return [step for step in self.steps if step.data.get("way_back")]

    @property
    def kinds(self) -> list[str]:
        """Of its actions, in the order in which they were proposed."""
        return [row.proposed_action.kind.value for row in self.actions.values()]

    def action(self, kind: str) -> ActionRow:
        return next(row for row in self.actions.values() if row.proposed_action.kind == kind)

    @property
    def proof(self) -> dict[str, Any]:
        """What the serving path said when it ended well."""
        return next(step.data for step in reversed(self.own) if step.step == "verification" and step.data)

    def first(self, step: str) -> int:
        """Place of the first record of a step."""
        return next(n for n, found in enumerate(self.steps) if found.step == step)

    def said(self, text: str) -> bool:
        return any(text in step.text for step in self.steps)


@dataclass(slots=True)
class News:
    """What the log says, read on from where the last look ended."""

    records: dict[Topic, list[Record]] = field(default_factory=lambda: {topic: [] for topic in _TOPICS})
    cases: dict[str, Case] = field(default_factory=dict)
    _positions: dict[Topic, int] = field(default_factory=dict)

    def read(self, bus: Bus) -> None:
        for topic in _TOPICS:
            stream = Stream(topic, 0)
            for block in bus.read(stream, self._positions.get(topic, 0), max_rows=10_000, max_bytes=8 << 20):
                self._positions[topic] = block.next
                for record in decode_block(topic, bytes(block.value)):
                    self.records[topic].append(record)
                    if isinstance(record, IncidentStep):
                        self._take(record)

    def _take(self, step: IncidentStep) -> None:
        case = self.cases.setdefault(step.incident.incident_id, Case(step.incident))
        case.head = step.incident
        case.steps.append(step)
        if step.action is not None:
            case.actions[step.action.action_id] = step.action

    @property
    def vitals(self) -> Vitals | None:
        found = self.records[Topic.VITALS]
        return found[-1] if found else None  # type: ignore[return-value]

    @property
    def alerts(self) -> list[Alert]:
        return self.records[Topic.ALERTS]  # type: ignore[return-value]

    def of(self, topic: Topic, kind: type[Any]) -> list[Any]:
        return [record for record in self.records[topic] if isinstance(record, kind)]


class Reader:
    """What can be asked of a data directory while a house runs on it, whoever started that house."""

    settings: Settings
    bus: Bus
    news: News
    started_us: int
    """Vitals from before it are those of another house on the same directory."""

    @property
    def root(self) -> Path:
        return Path(self.settings.run.data_dir)

    # --- waiting -----------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        raise NotImplementedError

    def until(self, what: Callable[[], Any], deadline_s: float = DEADLINE_S, *, why: str = "") -> Any:
        """Serve the house until `what` gives something true, and return that; fails with the house's story."""
        limit = time.monotonic() + deadline_s
        while True:
            self.news.read(self.bus)
            found = what()
            if found:
                return found
            if time.monotonic() > limit:
                raise AssertionError(f"not within {deadline_s:g} s: {why or what.__name__}\n{self.story()}")
            self.tick()

    def go_on(self, seconds: float) -> None:
        """Let the house run for so long."""
        end = time.monotonic() + seconds
        self.until(lambda: time.monotonic() >= end, seconds + DEADLINE_S, why="time passes")

    # --- what is served ----------------------------------------------------------------------------------------------

    @property
    def now_us(self) -> int:
        return time.time_ns() // 1000

    @property
    def vitals(self) -> Vitals:
        found = self.news.vitals
        assert found is not None, "no vitals yet"
        return found

    def end(self, topic: Topic, partition: int = 0) -> int:
        return self.bus.bounds(Stream(topic, partition))[1]

    def serving(self, *, rate: float | None = None) -> bool:
        """Decisions come out at about the pace at which events come in, in time, and nothing waits."""
        vitals = self.news.vitals
        wanted = self.settings.ingestion.rate if rate is None else rate
        return (
            vitals is not None
            and vitals.at_us > self.started_us
            and vitals.rate > wanted * 0.6
            and vitals.p95_ms < self.settings.slo.latency_ms
            and vitals.backlog < 1000
            and all(task.state == "OK" for task in vitals.tasks)
        )

    def calm(self) -> bool:
        """Serving as usual: no open incident, no hold of SAFE_MODE, and no way back that is still being proven."""
        under_way = {"PLANNED", "ASKED", "APPROVED", "EXECUTING", "VERIFYING", "UNDOING"}
        quiet = all(case.ended and case.phase not in under_way for case in self.news.cases.values())
        return quiet and self.serving() and self.vitals.mode == "NORMAL"

    def warm_up(self, *, labels: int = 300, seconds: float = 14.0) -> None:
        """Until healing knows how good the model is in healthy times: it counts labels that are 10 s old."""
        started = time.monotonic()
        self.until(
            lambda: self.calm() and self.vitals.labels >= labels and time.monotonic() - started >= seconds,
            90,
            why="the house serves, and labels come back",
        )

    def served(self, **wanted: Any) -> int:
        """Events decided so far in rows of the newest vitals that have these values."""
        return sum(row.n for row in self.vitals.served if _fits(row, wanted))

    def task(self, name: str) -> TaskVital:
        return next(task for task in self.vitals.tasks if task.task == name)

    @property
    def config(self) -> Any:
        return current_config(self.bus)

    # --- incidents ---------------------------------------------------------------------------------------------------

    def case_since(self, at_us: int, kind: str) -> Case | None:
        """The first incident of `kind` that was detected at `at_us` or later."""
        found = [case for case in self.news.cases.values() if case.head.detected_at_us >= at_us]
        return next((case for case in found if case.head.type == kind), None)

    def incident(self, at_us: int, kind: str, deadline_s: float = DEADLINE_S) -> Case:
        """Wait for it."""
        case: Case = self.until(lambda: self.case_since(at_us, kind), deadline_s, why=f"an incident {kind}")
        return case

    def ended(self, case: Case, deadline_s: float = DEADLINE_S) -> Case:
        """Wait for its end, and for the rows that tell of it."""
        self.until(lambda: case.ended and case.own[-1].step == "memory", deadline_s, why=f"{case.id} ends")
        self.recorded(case)
        return case

    def recorded(self, case: Case) -> None:
        """Wait until SQL has everything that the log says of `case`."""
        seq = case.steps[-1].seq
        self.until(
            lambda: self.sql("select seq from incidents where incident_id = ? and seq >= ?", case.id, seq),
            why=f"{case.id} is in SQL up to seq {seq}",
        )

    def sql(self, query: str, *args: Any) -> list[dict[str, Any]]:
        """Rows of the store, read by nothing of ours."""
        path = self.root / "mendstream.db"
        if not path.exists():
            return []
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as db:
            db.row_factory = sqlite3.Row
            try:
                return [dict(row) for row in db.execute(query, args)]
            except sqlite3.OperationalError as error:
                if "no such table" in str(error):
                    return []
                raise

    def incident_row(self, case: Case) -> dict[str, Any]:
        return self.sql("select * from incidents where incident_id = ?", case.id)[0]

    def action_rows(self, case: Case) -> list[dict[str, Any]]:
        return self.sql("select * from healing_actions where incident_id = ? order by created_at, action_id", case.id)

    def log(self, name: str) -> list[str]:
        """Lines of `healing.log` or `monitoring.log`."""
        path = self.root / name
        return path.read_text().splitlines() if path.exists() else []

    def process_log(self, process: str) -> str:
        path = self.root / "logs" / f"{process}.log"
        return path.read_text() if path.exists() else ""

    def chain_flaw(self) -> str:
        """Where the hash chain of incident-log breaks; empty if it holds."""
        blocks = self.bus.read(Stream(Topic.INCIDENT_LOG, 0), 0, max_rows=1 << 30, max_bytes=1 << 40)
        steps = [msgspec.json.decode(line) for block in blocks for line in bytes(block.value).splitlines()]
        return next(broken(steps), "" if steps else "there is no record")

    def said_by(self, verb: str, *args: str, deadline_s: float = 30) -> subprocess.CompletedProcess[str]:
        """What `mendstream VERB` of another terminal says. The house is not served meanwhile."""
        return mendstream(verb, *args, "--data", str(self.root), deadline_s=deadline_s)

    def told(self, verb: str, *args: str) -> str:
        """The same, and it must have succeeded."""
        found = self.said_by(verb, *args)
        assert found.returncode == 0, f"{verb}: {found.stderr}"
        return found.stdout

    # --- for a failing test ------------------------------------------------------------------------------------------

    def story(self) -> str:
        lines = [f"config {self.config}", f"vitals {_short(self.news.vitals)}"]
        lines += [f"alert {a.state} {a.kind} {a.subject} {a.statistic} {a.value:.4g}/{a.limit:.4g} n={a.n} {a.evidence}"
                  for a in self.news.alerts[-12:]]  # fmt: skip
        for case in list(self.news.cases.values())[-4:]:
            lines.append(f"{case.id} {case.head.type} {case.head.subject} {case.head.status}")
            first = case.steps[0].at_us
            lines += [f"  {(s.at_us - first) / 1e6:7.2f} {s.step} {s.phase}: {s.text}" for s in case.steps[-25:]]
        for path in sorted((self.root / "logs").glob("*.log")):
            lines += [f"{path.stem}: {line[:300]}" for line in path.read_text().splitlines()[-4:]]
        return "\n".join(lines)


class Running(Reader):
    """A house in this very process, as the demo has it."""

    def __init__(self, root: Path, **overrides: Any) -> None:
        self.settings = house_settings(root, **overrides)
        self.news = News()
        self.house = House(self.settings)
        self.started_us = self.now_us
        self.stopped = False

    def __enter__(self) -> Running:
        register_bad_model(self.settings)
        Catalogue(models_dir(self.settings).absolute()).import_dir(FIRST_MODELS)
        self.house.__enter__()
        self.bus = self.house._bus  # a log may be opened once in a process
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """May be called again."""
        if not self.stopped:
            self.stopped = True
            self.house.stop()
            _close_log()

    def tick(self) -> None:
        self.house.step()
        if self.house.failure is not None:
            raise AssertionError(f"the house stops: {self.house.failure}\n{self.story()}")

    def shown(self, process: str) -> dict[str, Any]:
        return self.house.shown()[process]

    @property
    def processes(self) -> list[str]:
        return [name for name, child in self.house.shown().items() if child["alive"]]

    def hurt(self, fault: str, on: bool = True, **params: Any) -> int:
        """Put a fault in or out, as `mendstream inject` does; when."""
        at_us = self.now_us
        inject(self.settings, fault, params, on, "test", bus=self.bus)
        return at_us

    def kill(self, process: str, number: int = signal.SIGKILL) -> int:
        """A signal; when."""
        at_us = self.now_us
        os.kill(self.shown(process)["pid"], number)
        return at_us

    def reborn(self, process: str, generation: int) -> bool:
        """Whether a later generation of `process` lives and beats."""
        child = self.shown(process)
        if not child["alive"] or child["generation"] <= generation:
            return False
        return all(task.state == "OK" for task in self.vitals.tasks if task.process == process)

    def drain(self) -> None:
        """Let what was accepted be decided: the first stage ends, the others go on until nothing is left to do.

        Nobody starts it again: the supervisor is not served any more, so this is the last thing before the house stops.
        """
        first = "fused-0" if "fused-0" in self.house.shown() else "ingestion-0"
        if first == "ingestion-0" or self.settings.run.partitions > 1:
            first = "ingestion-0"
        child = self.shown(first)
        if child["alive"]:
            os.kill(child["pid"], signal.SIGTERM)
        partitions = range(self.settings.run.partitions)
        at, moved = (-1, -1), time.monotonic()
        while time.monotonic() - moved < STILL_S:
            now = (
                sum(self.end(Topic.RAW_EVENTS, p) for p in partitions),
                sum(self.end(Topic.DECISIONS, p) for p in partitions),
            )
            if _is_there(child["pid"]) or now != at:
                at, moved = now, time.monotonic()
            elif now[0] == now[1]:
                return
            time.sleep(TICK_S)
        # Nothing moves any more: what is missing now, the accounting will tell.


class Spawned(Reader):
    """`mendstream run` as a process of its own, so that it can be stopped and killed."""

    def __init__(self, root: Path, *, env: dict[str, str] | None = None, **overrides: Any) -> None:
        self.settings = house_settings(root, **overrides)
        self.news = News()
        self._given = {"pipeline": self.settings.pipeline, **{k.replace("__", "."): v for k, v in overrides.items()}}
        self._env = env or {}
        self.started_us = self.now_us
        self.process: subprocess.Popen[str] | None = None
        self.family: list[psutil.Process] = []

    def __enter__(self) -> Spawned:
        self.process = subprocess.Popen(
            [str(MENDSTREAM), "run", *run_options(self.settings, self._given)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **self._env},
        )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        self.note_family()
        for one in self.family:
            with contextlib.suppress(psutil.Error):
                one.kill()
        assert self.process is not None
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()
        if hasattr(self, "bus"):
            self.bus.close()

    def open(self) -> Spawned:
        """Wait until its log is there, and look into it."""
        limit = time.monotonic() + DEADLINE_S
        while not (self.root / "run" / "processes.json").exists():
            assert self.process is not None
            assert self.process.poll() is None, f"it ended with {self.process.returncode}: {self.rest()}"
            assert time.monotonic() < limit, "no process was started"
            time.sleep(TICK_S)
        self.bus = open_bus(self.settings, readonly=True)
        return self

    def tick(self) -> None:
        time.sleep(TICK_S)

    def note_family(self) -> list[psutil.Process]:
        """Every process of the house, the supervisor included."""
        assert self.process is not None
        self.family = list({one.pid: one for one in [*self.family, *family_of(self.process.pid)]}.values())
        return self.family

    def children(self) -> dict[str, dict[str, Any]]:
        """As `run/processes.json` has them."""
        found: dict[str, Any] = msgspec.json.decode((self.root / "run" / "processes.json").read_bytes())
        return found["children"]

    @property
    def runs(self) -> bool:
        assert self.process is not None
        return self.process.poll() is None

    def wait(self, deadline_s: float = DEADLINE_S) -> int:
        """Its exit code."""
        assert self.process is not None
        return self.process.wait(deadline_s)

    def rest(self) -> str:
        """What it has printed, once it has ended."""
        assert self.process is not None
        out, err = self.process.communicate(timeout=10)
        return out + err


def run_options(settings: Settings, given: dict[str, Any]) -> list[str]:
    """The same settings on a command line."""
    base = {
        "pipeline": settings.pipeline,
        "bus.durability": settings.bus.durability,
        "ingestion.source": settings.ingestion.source,
        "ingestion.rate": settings.ingestion.rate,
        "monitoring.season_events": settings.monitoring.season_events,
        "metrics.enabled": settings.metrics.enabled,
        "models.initial": settings.models.initial,
        "chaos.enabled": settings.chaos.enabled,
    }
    pairs = {**base, **given}
    words = {True: "true", False: "false"}
    options = [f"--set={key}={words.get(value, value) if isinstance(value, bool) else value}"
               for key, value in pairs.items()]  # fmt: skip
    return [*options, "--data", settings.run.data_dir]


def mendstream(*args: str, deadline_s: float = 30) -> subprocess.CompletedProcess[str]:
    """One command, to its end."""
    return subprocess.run([str(MENDSTREAM), *args], capture_output=True, text=True, timeout=deadline_s, check=False)


def wait_for(what: Callable[[], Any], deadline_s: float = DEADLINE_S, *, why: str = "") -> Any:
    """Where no house has to be served."""
    limit = time.monotonic() + deadline_s
    while not (found := what()):
        assert time.monotonic() < limit, f"not within {deadline_s:g} s: {why or what.__name__}"
        time.sleep(TICK_S)
    return found


@contextlib.contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Processes of a house are started in the folder where the supervisor is."""
    held = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(held)


def _close_log() -> None:
    """The supervisor's log file, which a process of its own would leave to its end."""
    file = getattr(structlog.get_config()["logger_factory"], "_file", None)
    structlog.reset_defaults()
    if file is not None:
        file.close()


def _is_there(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _fits(row: Served, wanted: dict[str, Any]) -> bool:
    return all(getattr(row, name) == value for name, value in wanted.items())


def _short(vitals: Vitals | None) -> str:
    if vitals is None:
        return "none"
    tasks = [(t.task, t.process, t.generation, t.state.value, t.backlog, t.config) for t in vitals.tasks]
    rows = [(r.task, r.model, r.config, r.arm, r.n, r.slow, r.labels, r.errors) for r in vitals.served]
    return (
        f"rate {vitals.rate:.0f} p95 {vitals.p95_ms:.0f} ms mode {vitals.mode} model {vitals.model} "
        f"accuracy {vitals.accuracy} of {vitals.labels} backlog {vitals.backlog} tasks {tasks} served {rows}"
    )
