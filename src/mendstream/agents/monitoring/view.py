"""What a detector sees of one closed pane, and what it says about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np

from mendstream.agents.monitoring.distances import Distances
from mendstream.agents.monitoring.settings import JudgeSettings
from mendstream.agents.monitoring.watch import Watch
from mendstream.contracts.models import ModelCard
from mendstream.contracts.records import LATENCY_EDGES_MS, PANE_US, AlertKind, Scalar

Array = np.ndarray[Any, np.dtype[Any]]
S = TypeVar("S")
BUCKETS = len(LATENCY_EDGES_MS) + 1


@dataclass(frozen=True, slots=True)
class DriftLook:
    """The newest windows of the live model's features against its reference."""

    model: str
    features: tuple[str, ...]
    widths: tuple[int, ...]
    """Panes of each window, growing."""
    distances: Distances
    """[windows, features]"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PaneView:
    """Events are shown once, in the pane in which their counts arrived: late ones are not lost on the detectors."""

    pane: int
    now: int
    watch: Watch
    latency: Array = field(default_factory=lambda: np.zeros(BUCKETS, dtype=np.int64))
    """Events per latency bucket, end to end."""
    model_ms: Array = field(default_factory=lambda: np.zeros(BUCKETS, dtype=np.int64))
    """The same for the time that the model took."""
    backlog: int = 0
    """Rows that wait at the pipeline's tasks."""
    model: str = ""
    card: ModelCard | None = None
    """Of the live model."""
    labels: tuple[int, int] = (0, 0)
    """(n, bad): labels of the live model that arrived since the last pane."""
    drift: DriftLook | None = None

    @property
    def end_us(self) -> int:
        return (self.pane + 1) * PANE_US


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A detector's opinion on one subject, repeated every pane while it holds; the judge makes alerts of changes."""

    kind: AlertKind
    subject: str
    firing: bool
    statistic: str
    value: float
    limit: float
    n: int
    window_us: tuple[int, int]
    evidence: dict[str, Scalar] = field(default_factory=dict)


class Detector(Protocol[S]):
    """The same shape as an agent, in small."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> AlertKind: ...
    @property
    def eager(self) -> bool:
        """Also asked between panes, as soon as a process has ended."""

    @property
    def state_type(self) -> type[S]: ...
    def tuned(self, settings: JudgeSettings) -> Detector[S]:
        """This row with a person's settings."""

    def start(self) -> S: ...
    def step(self, state: S, view: PaneView, now: int) -> tuple[S, tuple[Finding, ...]]: ...
