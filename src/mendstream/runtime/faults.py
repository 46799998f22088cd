"""Faults of the chaos wing where they act: read from config-updates, obeyed only where chaos is enabled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mendstream.contracts.models import Array, ModelCard, Models, Scorer
from mendstream.contracts.ports import Bus
from mendstream.contracts.records import Fault, Scalar, decode_each
from mendstream.contracts.topics import CONFIG, Topic

REGIMES = ("drift", "neutral-drift", "no-labels", "poison")
"""Faults that the demo's source acts out, by name."""


class Faults:
    """The faults that are in now. Where chaos is disabled there are none, whatever the log says."""

    def __init__(self, bus: Bus, *, enabled: bool) -> None:
        self._bus = bus
        self._enabled = enabled
        self._position = 0
        self._on: dict[str, dict[str, Scalar]] = {}

    def refresh(self) -> None:
        """Read what came since the last call."""
        if not self._enabled:
            return
        for block in self._bus.read(CONFIG, self._position, max_rows=5000, max_bytes=4 << 20):
            for record in decode_each(Topic.CONFIG_UPDATES, bytes(block.value)):
                if isinstance(record, Fault):
                    self._on.pop(record.name, None)
                    if record.on:
                        self._on[record.name] = record.params
            self._position = block.next

    def get(self, name: str) -> dict[str, Scalar] | None:
        """The fault's parameters, or None while it is out."""
        return self._on.get(name)

    def regime(self) -> str:
        """What the source is to act out: names of REGIMES with commas, or `normal`."""
        return ",".join(name for name in REGIMES if name in self._on) or "normal"

    def around(self, models: Models, sleep: Callable[[float], None]) -> Models:
        """The same models, slow while the fault `slow-model` is in: `sleep` takes seconds."""
        return _FaultyModels(models, self, sleep) if self._enabled else models


class _FaultyModels:
    def __init__(self, models: Models, faults: Faults, sleep: Callable[[float], None]) -> None:
        self._models = models
        self._faults = faults
        self._sleep = sleep

    def get(self, digest: str) -> Scorer | None:
        scorer = self._models.get(digest)
        return None if scorer is None else _FaultyScorer(scorer, self._faults, self._sleep)


class _FaultyScorer:
    """Latency is added inside the model's call, where a slow model has it."""

    def __init__(self, scorer: Scorer, faults: Faults, sleep: Callable[[float], None]) -> None:
        self._scorer = scorer
        self._faults = faults
        self._sleep = sleep

    @property
    def card(self) -> ModelCard:
        return self._scorer.card

    def score(self, matrix: Array) -> tuple[Array, float]:
        slow = self._faults.get("slow-model")
        extra = 0.0
        if slow is not None:
            extra = (_ms(slow, "call_ms") + _ms(slow, "row_ms") * len(matrix)) / 1000
            self._sleep(extra)
        scores, seconds = self._scorer.score(matrix)
        return scores, seconds + extra


def _ms(params: dict[str, Scalar], name: str) -> float:
    value: Any = params.get(name, 0)
    return float(value)
