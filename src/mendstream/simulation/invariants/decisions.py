"""The same input under the same model, config and mode is decided alike, and as the model says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np

from mendstream.contracts.models import Array
from mendstream.contracts.records import Decision
from mendstream.contracts.topics import Stream, Topic
from mendstream.simulation.invariants.base import Invariant
from mendstream.simulation.log import Append
from mendstream.simulation.machine import Machine
from mendstream.simulation.story import Story
from mendstream.simulation.trail import Part, Trail

_FEATURES = ("load", "flow", "excess")
_EXCESS = _FEATURES.index("excess")
MODEL_FAULTS = {"lost-model", "corrupt-model", "torn-add"}
"""Under which the version that config names may be out of reach; outputs then name the one that served."""


class SameDecision(Invariant):
    """Decided again, after a power cut, an event has the decision that it had: else nobody can rely on any."""

    name = "same input, same decision"
    topics = (Topic.DECISIONS,)

    def __init__(self, machine: Machine, story: Story) -> None:
        super().__init__(machine, story)
        self._made: dict[tuple[str, str, str, str], tuple[str, float]] = {}
        """(event, model, mode, rule) -> (outcome, score); what a power cut took counts too."""

    def appended(self, append: Append) -> None:
        for record in append.records:
            if isinstance(record, Decision):
                made = record.event_id, record.model, record.mode, record.reason
                says = record.outcome, record.score
                if self._made.setdefault(made, says) != says:
                    self.broken(f"{made} was {self._made[made]}, and is {says}")


class AsTheModelSays(Invariant):
    """Each decision is what its model, mode and threshold make of the event's features: else it is anybody's guess."""

    name = "decisions follow the model"

    def end(self) -> None:
        trail = self.story.trail(self.machine)
        hurt = any(injection.fault in MODEL_FAULTS for _, injection, _ in self.story.injected)
        for p in range(trail.partitions):
            features = _columns(trail.frames[Stream(Topic.FEATURES, p)])
            decided = {decision.event_id: decision for decision in trail.decisions[p]}
            alike: dict[str, list[Part]] = {}
            for part in trail.frames[Stream(Topic.PREDICTIONS, p)]:
                self._config(part, trail, hurt)
                self._decisions(part, decided, trail)
                served = part.meta["model"] if part.meta.get("mode", "NORMAL") == "NORMAL" else ""
                alike.setdefault(served, []).append(part)
            for version, parts in alike.items():
                self._scores(version, parts, features)

    def _config(self, part: Part, trail: Trail, hurt: bool) -> None:
        """The frame's versions and mode are those of the config that it names."""
        meta = part.meta
        config = trail.configs.get(meta.get("config", 0))
        if config is None:
            self.broken(f"{part.ids[0]} was served under config {meta.get('config')}, which nobody made")
            return
        mode, model = meta.get("mode", "NORMAL"), meta.get("model", "")
        if mode != config.mode.value and not (mode == "SAFE_MODE" and not model):
            self.broken(f"{part.ids[0]} was served in {mode}, and config {config.version} says {config.mode}")
        if model != config.model_version and not hurt:
            self.broken(f"{part.ids[0]} was served by {model!r}, config {config.version} has {config.model_version!r}")

    def _scores(self, version: str, parts: Sequence[Part], features: Mapping[str, Sequence[float]]) -> None:
        """All that one version served, or, under an empty name, the rule fallback."""
        ids = [event_id for part in parts for event_id in part.ids]
        missing = next((event_id for event_id in ids if event_id not in features), None)
        if missing is not None:
            self.broken(f"the prediction of {missing} has no features")
            return
        rows = np.array([features[event_id] for event_id in ids], dtype=np.float64)
        found = np.concatenate([part.batch.column("score").to_numpy(zero_copy_only=False) for part in parts])
        wanted = _model_scores(self.machine, version, rows) if version else np.where(rows[:, _EXCESS] > 0, 0.8, 0.2)
        off = np.flatnonzero(~(np.abs(found - wanted) <= 1e-5))
        if len(off):
            row = int(off[0])
            self.broken(f"{ids[row]} scored {found[row]} with {version or 'the rules'}, and should have {wanted[row]}")

    def _decisions(self, part: Part, decided: Mapping[str, Decision], trail: Trail) -> None:
        made_by = part.meta.get("model", ""), part.meta.get("mode", "NORMAL")
        for event_id, score in zip(part.ids, part.batch.column("score").to_pylist(), strict=True):
            decision = decided.get(event_id)
            if decision is None:
                continue  # on its way, or lost: that is for another invariant
            config = trail.configs.get(decision.config)
            positive = config is not None and score >= config.decision_threshold
            wanted = ("service" if positive else "run", score, *made_by)
            found = decision.outcome, decision.score, decision.model, decision.mode
            if found != wanted:
                self.broken(f"{event_id} was decided {found}, and should be {wanted} under config {decision.config}")


def _columns(parts: list[Part]) -> dict[str, tuple[float, ...]]:
    """Event id -> its features, as _FEATURES names them."""
    found: dict[str, tuple[float, ...]] = {}
    for part in parts:
        columns = [part.batch.column(name).to_numpy(zero_copy_only=False).tolist() for name in _FEATURES]
        found.update(zip(part.ids, zip(*columns, strict=True), strict=True))
    return found


def _model_scores(machine: Machine, version: str, rows: Array) -> Array:
    """What the version's file says of features, float64 [rows, _FEATURES]; worked out here."""
    files = machine.shelf.files.get(version) or machine.aside[version]
    held, names = (
        _file(next(content for name, content in sorted(files.items()) if name.endswith(".onnx"))),
        (machine.card(version).features),
    )
    total = np.full(len(rows), held["bias"])
    for n, name in enumerate(names):
        values = rows[:, _FEATURES.index(name)].astype(np.float32).astype(np.float64)
        values = np.where(np.isnan(values), held["fill"][n], values)
        total += held["weights"][n] * (values - held["middle"][n]) / held["spread"][n]
    with np.errstate(over="ignore"):
        scores: Array = 1 / (1 + np.exp(-total))
    return scores


@lru_cache(maxsize=64)
def _file(content: bytes) -> dict[str, Any]:
    held: dict[str, Any] = msgspec.msgpack.decode(content.split(b"\n", 1)[1])
    return held
