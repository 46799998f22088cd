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
MODEL_FAULTS = {"lost-model", "corrupt-model", "torn-add"}
"""Under which the version that config names may be out of reach; outputs then name the one that served."""


class SameDecision(Invariant):
    """Decided again, after a power cut, an event has the decision that it had: else nobody can rely on any."""

    name = "same input, same decision"

    def __init__(self, machine: Machine, story: Story) -> None:
        super().__init__(machine, story)
        self._made: dict[tuple[str, str, str, str], tuple[str, float]] = {}
        """(event, model, mode, rule) -> (outcome, score); what a power cut took counts too."""

    def appended(self, append: Append) -> None:
        if append.stream.topic is Topic.DECISIONS:
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
            for part in trail.frames[Stream(Topic.PREDICTIONS, p)]:
                self._config(part, trail, hurt)
                self._score(part, features)
                self._decisions(part, decided, trail)

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

    def _score(self, part: Part, features: Mapping[str, Mapping[str, float]]) -> None:
        rows = [features[event_id] for event_id in part.ids if event_id in features]
        found = np.asarray(part.batch.column("score").to_numpy(zero_copy_only=False), dtype=np.float64)
        if len(rows) < len(part.ids):
            self.broken(f"a prediction of {part.ids[0]} or a neighbour has no features")
            return
        if part.meta.get("mode", "NORMAL") == "NORMAL":
            wanted = _model_scores(self.machine, part.meta["model"], rows)
        else:
            wanted = np.array([0.8 if row["excess"] > 0 else 0.2 for row in rows])
        off = np.flatnonzero(~np.isclose(found, wanted, rtol=0, atol=1e-5))
        if len(off):
            row = int(off[0])
            self.broken(f"{part.ids[row]} scored {found[row]} with {part.meta}, and should have {wanted[row]}")

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


def _columns(parts: list[Part]) -> dict[str, dict[str, float]]:
    """Event id -> its features by name."""
    found: dict[str, dict[str, float]] = {}
    for part in parts:
        columns = [part.batch.column(name).to_numpy(zero_copy_only=False).tolist() for name in _FEATURES]
        for event_id, *values in zip(part.ids, *columns, strict=True):
            found[event_id] = dict(zip(_FEATURES, values, strict=True))
    return found


def _model_scores(machine: Machine, version: str, rows: Sequence[Mapping[str, float]]) -> Array:
    """What the version's file says, worked out here."""
    files = machine.shelf.files.get(version) or machine.aside[version]
    held, names = (
        _file(next(content for name, content in sorted(files.items()) if name.endswith(".onnx"))),
        (machine.card(version).features),
    )
    total = np.full(len(rows), held["bias"])
    for n, name in enumerate(names):
        values = np.array([row[name] for row in rows], dtype=np.float32).astype(np.float64)
        values = np.where(np.isnan(values), held["fill"][n], values)
        total += held["weights"][n] * (values - held["middle"][n]) / held["spread"][n]
    with np.errstate(over="ignore"):
        scores: Array = 1 / (1 + np.exp(-total))
    return scores


@lru_cache(maxsize=64)
def _file(content: bytes) -> dict[str, Any]:
    held: dict[str, Any] = msgspec.msgpack.decode(content.split(b"\n", 1)[1])
    return held
