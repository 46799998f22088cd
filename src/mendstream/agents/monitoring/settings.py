"""What a person may set about judging."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mendstream.contracts.agent import STAGES
from mendstream.contracts.errors import SettingsError
from mendstream.contracts.records import LATENCY_EDGES_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeSettings:
    pipeline: tuple[str, ...] = tuple(f"{stage}/0" for stage in STAGES)
    """The tasks of the pipeline; which process runs each is learnt from pulses."""
    rules: Literal["default", "brief"] = "default"
    """`brief`: the original request's plain thresholds."""
    slo_ms: float = 300.0
    """End-to-end latency that an event may take; one of LATENCY_EDGES_MS."""
    accuracy_floor: float = 0.75
    """Least accuracy of a model of which no card says better; the limit of the brief's rule."""
    false_alarm_s: float = 6 * 3600.0
    """A detector with a proved rate raises at most one false alarm in this time of watching."""
    season_us: int = 2_000_000
    """Wall time of one season of the stream (a replayed day): shorter windows say nothing about drift."""
    drift_delta: float = 0.10
    """PSI that is tolerated for ever."""
    drift_min_n: int = 256
    """Fewer events in a window are no evidence."""
    silence_us: int = 2_000_000
    """A live process without a pulse for this long is stuck."""
    stall_us: int = 4_000_000
    """A task with rows waiting and no committed turn for this long is stuck."""
    pressure_rows: int = 2_000
    """A later stage with this many rows waiting explains why an earlier one does not move."""
    label_ttl_us: int = 120_000_000
    """The joiner's: how long labels may revise a pane."""
    watched: tuple[str, ...] = (*STAGES, "fused")
    """Agents whose processes are judged here; the supervisor watches the others."""

    def __post_init__(self) -> None:
        if self.slo_ms not in LATENCY_EDGES_MS:
            edges = ", ".join(f"{edge:g}" for edge in LATENCY_EDGES_MS)
            raise SettingsError(
                f"slo_ms = {self.slo_ms:g} is no edge of a latency bucket", hint=f"choose one of {edges}"
            )
        if not 0 < self.accuracy_floor < 1:
            raise SettingsError(f"accuracy_floor = {self.accuracy_floor:g} is outside 0 to 1")
