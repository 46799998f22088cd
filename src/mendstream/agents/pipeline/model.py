"""features in, predictions out: the live model over the batch, or the rule fallback while SAFE_MODE holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from mendstream import __version__
from mendstream.agents.panes import PaneTable, pane_of
from mendstream.agents.pipeline.columns import FrameColumns
from mendstream.agents.pipeline.guard import guarded
from mendstream.contracts import frame as frames
from mendstream.contracts.agent import Batch, Outputs, dead_letter
from mendstream.contracts.frame import Frame
from mendstream.contracts.knobs import LiveConfig, Mode
from mendstream.contracts.models import FeatureReference, Models, Scorer
from mendstream.contracts.pipeline import Pipeline
from mendstream.contracts.records import Counts, DeadReason
from mendstream.contracts.topics import Topic

Array = np.ndarray[Any, np.dtype[Any]]
_BINS = "bins"
"""All features' bins of a pane in one array: one value to commit instead of a dozen."""
KEEP_PANES = 40
"""Panes are sent again for 10 s; later nobody asks."""
_KEEP_LAYOUTS = 8


class ModelState(msgspec.Struct):
    panes: PaneTable
    version: str = ""
    digest: str = ""
    """The model that served last: it goes on while a new one cannot be used."""
    layouts: dict[str, tuple[tuple[str, int], ...]] = {}
    """Version -> (feature, bins) in the order of its bins in one array; of the newest few versions."""


class ModelAgent:
    """Incremental: a commit carries the pane totals that it touched."""

    name = "model"
    reads = (Topic.FEATURES,)
    state_type = ModelState

    def __init__(self, pipeline: Pipeline, models: Models) -> None:
        self.pipeline = pipeline
        self.models = models
        self.probe_input: Array | None = None
        """The newest feature matrix, for probes of the model off the serving turn; not part of any decision."""

    def start(self, partition: int) -> ModelState:
        return ModelState(panes=PaneTable())

    def step(self, state: ModelState, batch: Batch, now: int) -> tuple[ModelState, Outputs]:
        outputs = Outputs(batch.turn)
        before, served = state.panes.revision, (state.digest, *state.layouts)
        scorer = self._scorer(state, batch)
        for frame in frames.merged(batch.frames):
            for part, made, error in guarded(frame, lambda f: self._predict(f, batch.config, scorer)):
                if made is None:
                    dead_letter(
                        outputs, topic=Topic.FEATURES, partition=part.meta.partition, position=-1, stage=self.name,
                        code_version=__version__, reason=DeadReason.STEP_FAILED, detail=repr(error),
                        value=part.encode(), now=now,
                    )  # fmt: skip
                    continue
                part, (columns, mode, seconds) = self._finite(outputs, part, made, now)
                if not part.rows:
                    continue
                self._count(state, part, columns, batch.config, scorer, mode, seconds, now)
                outputs.frames.append(
                    (Topic.PREDICTIONS, batch.partition, self._frame(part, columns, batch, scorer, mode, now))
                )
        change = state.panes.settle(before, pane_of(now) - KEEP_PANES)
        if change is not None or (state.digest, *state.layouts) != served:
            added = {version: laid for version, laid in state.layouts.items() if version not in served[1:]}
            outputs.changes = [change, state.version, state.digest, added]
        return state, outputs

    def apply(self, state: ModelState, changes: Any) -> ModelState:
        change, state.version, state.digest, added = changes
        for version, laid in added.items():
            _lay_out(state, version, tuple((name, bins) for name, bins in laid))
        if change is not None:
            state.panes.redo(change)
        return state

    def counts(self, state: ModelState, after: int) -> tuple[list[Counts], int]:
        found, revision = state.panes.changed("", after)
        return [_named(counts, state.layouts.get(counts.model, ())) for counts in found], revision

    # --- one frame ---------------------------------------------------------------------------------------------------

    def _scorer(self, state: ModelState, batch: Batch) -> Scorer | None:
        """The model that config names, or the one that served before if it cannot be used (outputs say which)."""
        scorer = self._usable(batch.config.model_digest, batch.frames)
        if scorer is None:
            return self._usable(state.digest, batch.frames)
        state.version, state.digest = scorer.card.version, scorer.card.digest
        return scorer

    def _usable(self, digest: str, served: Sequence[Frame]) -> Scorer | None:
        """The model with this digest, if it is at hand and wants no feature that the pipeline does not make."""
        scorer = self.models.get(digest) if digest else None
        if scorer is None or any(not set(scorer.card.features).issubset(f.batch.schema.names) for f in served):
            return None
        return scorer

    def _predict(self, frame: Frame, config: LiveConfig, scorer: Scorer | None) -> tuple[dict[str, Array], Mode, float]:
        columns = FrameColumns(frame, frame.batch.schema.names)
        added: dict[str, Array] = {}
        if config.mode is Mode.SAFE_MODE or scorer is None:
            matrix = None
            added["score"], seconds, mode = self.pipeline.compute_fallback(columns), 0.0, Mode.SAFE_MODE
            if scorer is not None:
                matrix = self._matrix(columns, scorer)
        else:
            matrix = self._matrix(columns, scorer)
            added["score"], seconds = scorer.score(matrix)
            mode = Mode.NORMAL
        shadow = self._usable(config.shadow_digest, (frame,))
        if shadow is not None:
            added["shadow_score"] = shadow.score(self._matrix(columns, shadow))[0]
        if matrix is not None:
            added["matrix"] = matrix
            self.probe_input = matrix[-64:]
        return added, mode, seconds

    def _finite(
        self, outputs: Outputs, part: Frame, made: tuple[dict[str, Array], Mode, float], now: int
    ) -> tuple[Frame, tuple[dict[str, Array], Mode, float]]:
        """Without the rows whose score is no number: a model without an imputer gives such for missing values."""
        columns, mode, seconds = made
        good = np.isfinite(columns["score"])
        if good.all():
            return part, made
        for row in np.flatnonzero(~good).tolist():
            dead_letter(
                outputs, topic=Topic.FEATURES, partition=part.meta.partition, position=-1, stage=self.name,
                code_version=__version__, reason=DeadReason.NOT_FINITE, detail="the model's score is not a number",
                value=part.slice(row, row + 1).encode(), now=now,
            )  # fmt: skip
        kept = Frame(part.batch.filter(pa.array(good)), part.meta)
        return kept, ({name: values[good] for name, values in columns.items()}, mode, seconds)

    def _matrix(self, columns: FrameColumns, scorer: Scorer) -> Array:
        matrix = np.empty((len(columns["event_id"]), len(scorer.card.features)), dtype=np.float32)
        for place, name in enumerate(scorer.card.features):
            matrix[:, place] = columns[name]
        return matrix

    def _frame(
        self, part: Frame, made: dict[str, Array], batch: Batch, scorer: Scorer | None, mode: Mode, now: int
    ) -> Frame:  # fmt: skip
        meta = msgspec.structs.replace(
            part.meta,
            made_us=now,
            config=batch.config.version,
            model=scorer.card.version if scorer is not None else "",
            digest=scorer.card.digest if scorer is not None else "",
            mode=mode.value,
            shadow=batch.config.shadow_version if "shadow_score" in made else "",
        )
        features = {n: part.batch.column(n) for n in part.batch.schema.names if n not in frames.HEAD}
        return frames.derive(part, {**features, **{n: v for n, v in made.items() if n != "matrix"}}, meta)

    # --- counting ----------------------------------------------------------------------------------------------------

    def _count(
        self, state: ModelState, part: Frame, made: dict[str, Array], config: LiveConfig, scorer: Scorer | None,
        mode: Mode, seconds: float, now: int,
    ) -> None:  # fmt: skip
        arm = "live" if mode is Mode.NORMAL else "fallback"
        version = scorer.card.version if scorer is not None else ""
        totals = state.panes.at(pane_of(now), version, config.version, arm)
        totals.n += part.rows
        if scorer is not None and "matrix" in made:
            bins = feature_bins(made["matrix"], scorer.card.features, scorer.card.reference)
            if bins is not None:
                totals.add_hist(_BINS, bins)
                if version not in state.layouts:
                    _lay_out(state, version, layout(scorer.card.features, scorer.card.reference))
        if mode is Mode.NORMAL:
            totals.add_latency(seconds * 1000, part.rows)
        if "shadow_score" in made:
            shadow = state.panes.at(pane_of(now), config.shadow_version, config.version, "shadow")
            shadow.n += part.rows


def _lay_out(state: ModelState, version: str, laid: tuple[tuple[str, int], ...]) -> None:
    state.layouts[version] = laid
    while len(state.layouts) > _KEEP_LAYOUTS:
        del state.layouts[next(iter(state.layouts))]


def _named(counts: Counts, laid: tuple[tuple[str, int], ...]) -> Counts:
    """Bins by feature, and the latency histogram under its name: this one is the model's own time."""
    hists = dict(counts.hists)
    if "latency" in hists:
        hists["model_ms"] = hists.pop("latency")
    bins = hists.pop(_BINS, None)
    if bins is not None:
        at = 0
        for name, width in laid:
            hists[f"feature:{name}"] = bins[at : at + width]
            at += width
    return msgspec.structs.replace(counts, hists=hists)


def layout(names: tuple[str, ...], reference: dict[str, FeatureReference]) -> tuple[tuple[str, int], ...]:
    """(feature, bins) of the features that have a reference, in the order in which `feature_bins` lays them out."""
    return tuple((name, len(reference[name].counts)) for name in names if name in reference)


def feature_bins(matrix: Array, names: tuple[str, ...], reference: dict[str, FeatureReference]) -> Array | None:
    """Rows per bin, all features one after the other; float32 [rows, features] -> int64 [sum of bins]."""
    indices, offset = [], 0
    for place, name in enumerate(names):
        held = reference.get(name)
        if held is None:
            continue
        column = matrix[:, place]
        index = np.searchsorted(np.asarray(held.edges, dtype=np.float32), column, side="left")
        missing = np.isnan(column)
        if missing.any():
            index[missing] = len(held.edges) + 1
        indices.append(index + offset)
        offset += len(held.counts)
    return np.bincount(np.concatenate(indices), minlength=offset) if indices else None
