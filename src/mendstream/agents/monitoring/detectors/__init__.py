"""All detectors, each a row: what is watched, and what is asked first when several speak at once.

A new one is its file and a row here. The brief's plain threshold rules are the second list (`rules = "brief"`).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from mendstream.agents.monitoring.detectors.accuracy import Accuracy
from mendstream.agents.monitoring.detectors.brief import AccuracyBelow, DriftAbove, NoHeartbeat, SlowInARow
from mendstream.agents.monitoring.detectors.drift import Drift
from mendstream.agents.monitoring.detectors.latency import Latency
from mendstream.agents.monitoring.detectors.liveness import Liveness
from mendstream.agents.monitoring.settings import JudgeSettings
from mendstream.agents.monitoring.view import Detector

# Liveness first: a dead process explains latency, and the judge must know of it before.
DETECTORS: tuple[Detector[Any], ...] = (Liveness(), Latency(), Accuracy(), Drift())
BRIEF_DETECTORS: tuple[Detector[Any], ...] = (NoHeartbeat(), SlowInARow(), AccuracyBelow(), DriftAbove())


@lru_cache(maxsize=8)
def detectors_for(settings: JudgeSettings) -> tuple[Detector[Any], ...]:
    """The rows that a person chose, with that person's settings."""
    rows = BRIEF_DETECTORS if settings.rules == "brief" else DETECTORS
    return tuple(row.tuned(settings) for row in rows)
