"""The demo's story: a house, a list of faults and a clock come in; what was hurt, detected, done and proven comes out.

The story is a generator that yields whenever it waits. Between two steps of it the house is served, and the news (what
stands in vitals and incident-log) is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import msgspec

from mendstream.adapters.models.catalogue import Catalogue
from mendstream.adapters.models.versions import CARD_FILE, MODEL_FILE
from mendstream.chaos.faults import FaultRow, How, fault
from mendstream.contracts.errors import CouldNot, MendstreamError
from mendstream.contracts.incident import Phase
from mendstream.contracts.knobs import Mode
from mendstream.contracts.models import ModelCard
from mendstream.contracts.ports import Bus
from mendstream.contracts.records import (
    ActionRow,
    IncidentHead,
    IncidentStep,
    Record,
    Status,
    Vitals,
    decode_block,
)
from mendstream.contracts.topics import Stream, Topic
from mendstream.settings import Settings, load, models_dir

HERE = Path(__file__).parent
FIRST_MODELS = HERE / "models"
STEPS = ("detection", "logging", "planning", "approval", "execution", "verification", "memory")
"""The seven of the brief."""
ORDER = ("slow-model", "bad-model", "dead-agent", "drift")
RATE = 500.0
SEASON = 850
"""Events of a virtual day, at whose hours flights differ."""
LINGER_MS = 10.0
"""Five events a batch instead of one: a fifth of the work, for a hundredth of a second."""
START_WITHIN_S = 30.0
"""How long the first decision may take: a loaded machine needs a few seconds."""
CONTROL_S = 10.0
"""How long the house is watched before anything is done to it."""
HEALED_WITHIN_S = 60.0
CALM_WITHIN_S = 25.0
"""How long the way out of SAFE_MODE may take before the next fault goes in all the same."""
PAUSE_S = 1.5
"""Between two faults, so that one's last panes are not the other's first."""
QUIET_S = 10.0
"""How long a fault that must cause no incident stays in."""
TOTAL_S = 112.0
"""No fault begins, and none is waited for, beyond it."""
ACTOR = "demo"


def demo_settings(data_dir: str, *, fuse: bool, seed: int, metrics: bool = True) -> Settings:
    """The house that the demo runs: no file and no environment of the user's changes it."""
    return load(
        env={},
        dotenv=None,
        overrides={
            "pipeline": "mendstream.demo.pipeline:flights",
            "name": "flights",
            "run.data_dir": data_dir,
            "run.fuse": fuse,
            "run.seed": seed,
            "bus.durability": "process",
            "ingestion.source": "python:mendstream.demo.source:FlightsSource",
            "ingestion.rate": RATE,
            "monitoring.season_s": 2.0,
            "monitoring.season_events": SEASON,
            "ingestion.linger_ms": LINGER_MS,
            "models.trainer": "resident",
            "metrics.enabled": metrics,
            "models.initial": str(FIRST_MODELS),
            "chaos.enabled": True,
        },
    ).settings


def bad_model() -> tuple[bytes, ModelCard]:
    """The worse version that comes with the demo: its ONNX file and its card."""
    place = FIRST_MODELS / "v2-bad"
    card = msgspec.json.decode((place / CARD_FILE).read_bytes(), type=ModelCard)
    return (place / MODEL_FILE).read_bytes(), card


def register_bad_model(settings: Settings) -> str:
    """Put the worse version into the catalogue, as a trainer would have, if it is not there; returns its version."""
    catalogue = Catalogue(models_dir(settings).absolute())
    onnx, card = bad_model()
    for version in catalogue.versions():
        if catalogue.fetch(version).digest == card.digest:
            return version
    return catalogue.add(onnx, msgspec.structs.replace(card, version=catalogue.next_version())).version


def register_models(settings: Settings) -> None:
    """The first model, which goes live, and the worse one behind it."""
    Catalogue(models_dir(settings).absolute()).import_dir(FIRST_MODELS)
    register_bad_model(settings)


_UNDER_WAY = frozenset({Phase.PLANNED, Phase.ASKED, Phase.APPROVED, Phase.EXECUTING, Phase.VERIFYING, Phase.UNDOING})


# --- news ------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Case:
    """One incident as its steps have told it so far."""

    head: IncidentHead
    steps: list[IncidentStep] = field(default_factory=list)
    actions: dict[str, ActionRow] = field(default_factory=dict)

    @property
    def acted_at_us(self) -> int | None:
        """When the first remedy was put out."""
        times = [row.executed_at_us for row in self.actions.values() if row.executed_at_us is not None]
        return min(times, default=None)

    @property
    def ended(self) -> bool:
        return self.head.status in (Status.RESOLVED, Status.FAILED)

    @property
    def acting(self) -> bool:
        """Whether it is open, or its way out of SAFE_MODE is under way."""
        return not self.ended or self.steps[-1].phase in _UNDER_WAY

    def add(self, step: IncidentStep) -> None:
        self.head = step.incident
        if step.action is not None:
            self.actions[step.action.action_id] = step.action
        self.steps.append(step)


@dataclass(slots=True)
class News:
    """What the log says about the house, read on from where the last look ended."""

    vitals: Vitals | None = None
    cases: dict[str, Case] = field(default_factory=dict)
    """By incident id, in the order of detection."""
    on_step: Callable[[IncidentStep], None] = lambda step: None
    _positions: dict[Stream, int] = field(default_factory=dict)

    def read(self, bus: Bus) -> None:
        for record in self._new(bus, Stream(Topic.VITALS, 0)):
            if isinstance(record, Vitals):
                self.vitals = record
        for record in self._new(bus, Stream(Topic.INCIDENT_LOG, 0)):
            if isinstance(record, IncidentStep):
                self.take(record)

    def take(self, step: IncidentStep) -> None:
        case = self.cases.setdefault(step.incident.incident_id, Case(step.incident))
        case.add(step)
        self.on_step(step)

    def since(self, at_us: int) -> list[Case]:
        return [case for case in self.cases.values() if case.head.detected_at_us >= at_us]

    def _new(self, bus: Bus, stream: Stream) -> Iterator[Record]:
        position = self._positions.get(stream, 0)
        for block in bus.read(stream, position, max_rows=2000, max_bytes=8 << 20):
            yield from decode_block(stream.topic, bytes(block.value))
            self._positions[stream] = block.next


# --- the story -------------------------------------------------------------------------------------------------------


class Ending(StrEnum):
    """What became of a fault."""

    RESOLVED = "RESOLVED"
    CALM = "CALM"  # it had to cause no incident, and did not
    ALARMED = "ALARMED"  # it had to cause none, and did
    UNDETECTED = "UNDETECTED"
    UNHEALED = "UNHEALED"
    SKIPPED = "SKIPPED"  # no time was left, or it could not be put in

    @property
    def good(self) -> bool:
        return self in (Ending.RESOLVED, Ending.CALM)


@dataclass(slots=True)
class Attempt:
    """One fault and what followed."""

    row: FaultRow
    onset_us: int | None = None
    told: str = ""
    case: Case | None = None
    ending: Ending | None = None
    """None while it goes on."""
    extra: list[Case] = field(default_factory=list)
    """Other incidents that began meanwhile."""


@dataclass(slots=True)
class Story:
    """Everything that the view shows and the result reports."""

    faults: Sequence[str]
    started_us: int = 0
    now_us: int = 0
    chapter: str = "starting"
    first_decision_us: int | None = None
    control_from_us: int | None = None
    control_until_us: int | None = None
    attempts: list[Attempt] = field(default_factory=list)
    news: News = field(default_factory=News)
    over: bool = False
    """Told to the end."""

    @property
    def control_s(self) -> float:
        if self.control_from_us is None:
            return 0.0
        return ((self.control_until_us or self.now_us) - self.control_from_us) / 1e6

    @property
    def control_incidents(self) -> int:
        """Incidents that were detected before the first fault, whenever they were told of."""
        until = self.control_until_us or self.now_us
        return sum(case.head.detected_at_us <= until for case in self.news.cases.values())

    @property
    def first_healed_us(self) -> int | None:
        ends = [case.head.resolved_at_us for case in self.news.cases.values() if case.head.resolved_at_us is not None]
        return min(ends, default=None)


Put = Callable[[str, bool], str]
"""(fault, in or out) -> what was done."""


def tell(story: Story, put: Put, note: Callable[[str], None]) -> Iterator[None]:
    """The whole story. `put` hurts the house, `note` tells people; the caller keeps the time and the news."""
    while story.first_decision_us is None:
        if story.now_us - story.started_us > START_WITHIN_S * 1e6:
            raise CouldNot(
                f"nothing was decided within {START_WITHIN_S:.0f} s of the start",
                hint="`mendstream demo --data DIR` keeps the log files of every process in DIR/logs",
            )
        yield
    note(f"first decision after {_s(story.first_decision_us - story.started_us)}")
    story.control_from_us = story.first_decision_us
    story.chapter = f"nothing is wrong yet: watched for {CONTROL_S:.0f} s"
    note(f"control: {CONTROL_S:.0f} s in which nothing is done to the house")
    yield from _wait(story, CONTROL_S - (story.now_us - story.first_decision_us) / 1e6)
    story.control_until_us = story.now_us
    note(f"control: {story.control_incidents} incidents in {story.control_s:.1f} s")
    for name in story.faults:
        attempt = Attempt(fault(name))
        story.attempts.append(attempt)
        if story.now_us - story.started_us > TOTAL_S * 1e6:
            attempt.ending = Ending.SKIPPED
            note(f"{name}: skipped, no time is left")
            continue
        yield from _hurt(story, attempt, put, note)
    story.chapter = "counting every event"
    story.over = True


def _hurt(story: Story, attempt: Attempt, put: Put, note: Callable[[str], None]) -> Iterator[None]:
    row = attempt.row
    try:
        attempt.told = put(row.name, True)
    except MendstreamError as error:  # such as: the process to kill is just being started again
        attempt.ending = Ending.SKIPPED
        note(f"{row.name}: could not be put in: {error}")
        return
    attempt.onset_us = story.now_us
    story.chapter = f"hurt by {row.title}: {attempt.told}"
    note(f"FAULT {row.name}: {attempt.told}")
    if row.incident_type is None:
        yield from _stay_calm(story, attempt)
    else:
        yield from _heal(story, attempt)
    if row.how is How.RECORD:
        note(f"{row.name}: {put(row.name, False)}")
    note(f"{row.name}: {attempt.ending}")
    if attempt.row.name != story.faults[-1]:
        yield from _calm_down(story, attempt)


def _heal(story: Story, attempt: Attempt) -> Iterator[None]:
    """Until the incident that the fault has to cause has ended, or its time is up."""
    onset = attempt.onset_us or 0
    left_us = min(HEALED_WITHIN_S * 1e6, max(story.started_us + TOTAL_S * 1e6 - onset, 0))
    while story.now_us - onset < left_us:
        fresh = story.news.since(onset)
        attempt.case = next((case for case in fresh if case.head.type == attempt.row.incident_type), None)
        attempt.extra = [case for case in fresh if case is not attempt.case]
        if attempt.case is not None and attempt.case.ended:
            break
        yield
    if attempt.case is None:
        attempt.ending = Ending.UNDETECTED
    else:
        attempt.ending = Ending.RESOLVED if attempt.case.head.status is Status.RESOLVED else Ending.UNHEALED


def _stay_calm(story: Story, attempt: Attempt) -> Iterator[None]:
    yield from _wait(story, QUIET_S)
    attempt.extra = story.news.since(attempt.onset_us or 0)
    attempt.ending = Ending.ALARMED if attempt.extra else Ending.CALM


def _calm_down(story: Story, attempt: Attempt) -> Iterator[None]:
    """The next fault must meet a house that serves as usual."""
    from_us = story.now_us
    story.chapter = f"after {attempt.row.title}: back to normal"
    while story.now_us - from_us < CALM_WITHIN_S * 1e6 and not _normal(story):
        yield
    yield from _wait(story, PAUSE_S)


def _normal(story: Story) -> bool:
    """No incident is open, nobody holds SAFE_MODE, and no way out of it is still being proven."""
    vitals = story.news.vitals
    calm = not any(case.acting for case in story.news.cases.values())
    return calm and vitals is not None and vitals.mode == Mode.NORMAL


def _wait(story: Story, seconds: float) -> Iterator[None]:
    until = story.now_us + seconds * 1e6
    while story.now_us < until:
        yield


def _s(us: float) -> str:
    return f"{us / 1e6:.1f} s"
