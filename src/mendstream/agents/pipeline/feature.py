"""raw-events in, features out: keyed windows per entity, then the user's feature function over whole columns."""

from __future__ import annotations

from typing import Any

import msgspec

from mendstream import __version__
from mendstream.agents.pipeline import windows
from mendstream.agents.pipeline.columns import columns_of, widened
from mendstream.agents.pipeline.guard import guarded
from mendstream.contracts import frame as frames
from mendstream.contracts.agent import Batch, Outputs, dead_letter
from mendstream.contracts.errors import UsageError
from mendstream.contracts.frame import Frame
from mendstream.contracts.pipeline import Pipeline
from mendstream.contracts.records import DeadReason
from mendstream.contracts.topics import Topic


class FeatureState(msgspec.Struct):
    windows: windows.WindowState


class FeatureAgent:
    """Incremental: a commit carries the windows of the keys that it touched."""

    name = "feature"
    reads = (Topic.RAW_EVENTS,)
    state_type = FeatureState

    def __init__(self, pipeline: Pipeline, *, max_keys: int = 200_000) -> None:
        """`max_keys`: entities whose windows one task keeps; the ones unseen for longest make room."""
        self.pipeline = pipeline
        self.max_keys = max_keys

    def start(self, partition: int) -> FeatureState:
        return FeatureState(windows=windows.WindowState())

    def step(self, state: FeatureState, batch: Batch, now: int) -> tuple[FeatureState, Outputs]:
        outputs = Outputs(batch.turn)
        changes = []
        for frame in frames.merged(batch.frames):
            means, change = self._windows(state, frame)
            changes.append(change)
            # The windows ride with their rows, so that a frame that has to be cut keeps them in step.
            names = frame.batch.schema.names
            wide = widened(frame, {f"window:{n}": v for n, v in means.items()}, frame.meta)
            for part, made, error in guarded(wide, self._features):
                if made is None:
                    self._refuse(outputs, part, names, error, now)
                else:
                    self._check(part, made)
                    meta = msgspec.structs.replace(part.meta, made_us=now, config=batch.config.version)
                    outputs.frames.append((Topic.FEATURES, batch.partition, frames.derive(part, made, meta)))
        if changes:
            outputs.changes = changes
        return state, outputs

    def apply(self, state: FeatureState, changes: Any) -> FeatureState:
        for change in changes:
            if change:
                windows.redo(state.windows, self.pipeline.windows, change, self.max_keys)
        return state

    def _windows(self, state: FeatureState, frame: Frame) -> tuple[dict[str, windows.Array], list[Any]]:
        means = self.pipeline.windows
        if not means:
            return {}, []
        values = {mean.column: frame.numbers(mean.column) for mean in means.values()}
        return windows.update(state.windows, means, frame.strings("key"), values, self.max_keys)

    def _features(self, frame: Frame) -> dict[str, windows.Array]:
        columns = columns_of(frame)
        means = {name: columns[f"window:{name}"] for name in self.pipeline.windows}
        return self.pipeline.compute_features(columns, means)

    def _check(self, part: Frame, made: dict[str, windows.Array]) -> None:
        """Such columns are no fault of the data, so they are not looked for row by row."""
        for name, values in made.items():
            if values.shape != (part.rows,):
                raise UsageError(
                    f"pipeline {self.pipeline.name}: feature {name!r} has shape {values.shape} for {part.rows} events",
                    hint="a feature is one number per event; np.full(len(column), value) makes a constant one",
                )

    def _refuse(self, outputs: Outputs, part: Frame, names: list[str], error: Exception | None, now: int) -> None:
        row = Frame(part.batch.select(names), part.meta)
        dead_letter(
            outputs, topic=Topic.RAW_EVENTS, partition=part.meta.partition, position=-1, stage=self.name,
            code_version=__version__, reason=DeadReason.STEP_FAILED, detail=repr(error), value=row.encode(), now=now,
        )  # fmt: skip
