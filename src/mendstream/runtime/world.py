"""What a process of the house asks of the machine that it runs on: a live one (local.py), or a simulated one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from mendstream.contracts.models import Cards, ModelCard, Models, Scorer
from mendstream.contracts.ports import Bus, Clock, Sink, Source, StepMarks
from mendstream.contracts.topics import Wing


class Loader(Models, Protocol):
    """The models of one process, and how one more comes in."""

    def fetch(self, version: str, digest: str) -> Scorer:
        """Load `version` if its SHA-256 is `digest`; raises ModelError. For outside the turn."""


class CardShelf(Cards, Protocol):
    """The cards at hand, and how one more comes in."""

    def fetch(self, version: str) -> ModelCard:
        """Raises ModelError if there is no such version, or a torn one."""


class World(Protocol):
    """One process's view of its machine. Nothing that a process does to the world goes round it."""

    @property
    def clock(self) -> Clock: ...
    @property
    def pid(self) -> int: ...
    @property
    def cards(self) -> CardShelf: ...
    def bus(self, wing: Wing) -> Bus:
        """The log, opened to write one wing of it."""

    def models(self) -> Loader: ...
    def marks(self, agent: str, partition: int) -> StepMarks: ...
    def source(self, regime: Callable[[], str]) -> Source: ...
    def sink(self, role: str, bus: Bus) -> Sink: ...
    def stopwatch(self) -> float:
        """Seconds, to time steps with."""

    def sleep(self, seconds: float) -> None: ...
    def memory_mb(self) -> float:
        """Resident memory of this process in MB (10^6 bytes)."""

    def beat(self, turn_us: int) -> None:
        """A sign of life for the supervisor, readable without any lock. `turn_us`: see LifeSign."""

    def assigned(self) -> Sequence[int] | None:
        """The partitions that the supervisor has given to this replica; None: it has given none to anybody."""

    def aside(self, name: str, work: Callable[[], None]) -> Callable[[], bool]:
        """Do `work` beside the turns, once; the answer tells whether it is still at it."""

    def every(self, name: str, seconds: float, work: Callable[[], None]) -> Callable[[], None]:
        """Do `work` beside the turns again and again; the answer ends that."""
