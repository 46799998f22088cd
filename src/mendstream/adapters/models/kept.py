"""The `Models` port as a shelf of few places: a version and its digest come in, its scorer stays at hand."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from mendstream.contracts.models import Scorer

KEPT = 4
"""Live, shadow, and the two that a rollback is likely to name."""

S = TypeVar("S", bound=Scorer)


class KeptModels(ABC, Generic[S]):
    """What was fetched, the newest or most used few of it."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._scorers: dict[str, S] = {}
        self._used: dict[str, int] = {}
        self._count = itertools.count()

    @abstractmethod
    def _load(self, version: str, digest: str) -> S:
        """From the catalogue; raises ModelError."""

    def get(self, digest: str) -> S | None:
        # Probes ask from another thread: nothing is moved, only a stamp is set.
        scorer = self._scorers.get(digest)
        if scorer is not None:
            self._used[digest] = next(self._count)
        return scorer

    def fetch(self, version: str, digest: str) -> S:
        """Load `version` if its SHA-256 is `digest`; raises ModelError. For outside the turn."""
        held = self.get(digest)
        if held is not None and held.card.version == version:
            return held
        scorer = self._scorers[digest] = self._load(version, digest)
        self._used[digest] = next(self._count)
        while len(self._scorers) > self._kept:
            oldest = min(self._scorers, key=lambda d: self._used.get(d, -1))
            del self._scorers[oldest]
            self._used.pop(oldest, None)
        return scorer
