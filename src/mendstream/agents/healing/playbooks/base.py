"""What a playbook says: which alert it answers, its ladder of rungs, and how it would know itself cured.

A playbook decides and never acts. Its functions are given the incident and the turn and change neither.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, NamedTuple

from mendstream.agents.healing.params import SECOND_US
from mendstream.agents.healing.state import Act, Incident, Watch
from mendstream.agents.healing.turn import Turn
from mendstream.contracts.records import ActionKind, Scalar

Impact = Literal["low", "medium", "high"]


class Found(StrEnum):
    WAIT = "wait"  # too little good data yet: inconclusive
    PROVEN = "proven"
    WORSE = "worse"
    INEFFECTIVE = "ineffective"
    AGAIN = "again"  # what it brought about has ended: to be done anew


class Finding(NamedTuple):
    found: Found
    text: str
    data: dict[str, Any]


class Draft(NamedTuple):
    """An action that a measure would propose."""

    target: str
    params: dict[str, Scalar]


Proof = Callable[[Incident, Watch, Turn], Finding]


def always(incident: Incident, turn: Turn) -> bool:
    return True


def never_worse(incident: Incident, watch: Watch, turn: Turn) -> str:
    return ""


def lasting(incident: Incident, act: Act, turn: Turn) -> str:
    return ""


def no_targets(incident: Incident, turn: Turn) -> tuple[str, ...]:
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """How a measure is known to have worked."""

    watch: Callable[[Incident, Act, Turn], Watch]
    """Which rows count, and since when."""
    proof: Proof
    worse: Callable[[Incident, Watch, Turn], str] = never_worse
    """The guard metric: why things are worse than before, or an empty string."""
    again: Callable[[Incident, Act, Turn], str] = lasting
    """Why what the measure brought about has ended, so that it is to be done anew, or an empty string."""
    settle_us: int = SECOND_US
    """The guard looks only after this long."""
    timeout_us: int
    """No proof by then counts as no effect."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One action of a rung."""

    kind: ActionKind
    effect: str
    """What it is expected to do, for people and policies."""
    impact: Impact
    cost: float
    """Of carrying it out once: seconds of people's attention or of degraded service; for ranking only."""
    propose: Callable[[Incident, Turn], Draft | str]
    """What to propose, or why it does not apply."""
    check: Check | None = None
    """None: done when its target has answered; the next measure follows at once."""
    ready: Callable[[Incident, Turn], bool] = always
    """Whether to propose it now."""
    wait_us: int = 30 * SECOND_US
    """How long to wait for `ready`; 0: for ever."""
    answer_us: int = 10 * SECOND_US
    """How long its target may take to answer."""
    optional: bool = False
    """The rung goes on without it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """One remedy: measures in order, the last one checked."""

    name: str
    measures: tuple[Measure, ...]
    targets: Callable[[Incident, Turn], tuple[str, ...]] = no_targets
    """For a remedy that is done to each of several targets: the only measure is repeated for each."""

    def size(self, incident: Incident) -> int:
        return max(len(self.measures), len(incident.targets))

    def measure(self, n: int) -> Measure:
        return self.measures[min(n, len(self.measures) - 1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Playbook:
    name: str
    answers: str
    """The kind of alert."""
    rungs: tuple[Rung, ...]
    well: Proof
    """Whether the house serves well again by itself."""
    recovers: Callable[[Incident, Turn], Watch] = lambda incident, turn: Watch()
    """Which rows `well` looks at."""
