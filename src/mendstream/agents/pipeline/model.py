"""features in, predictions out: the live model over the batch, or the rule fallback while SAFE_MODE holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from mendstream import __version__
from mendstream.agents.panes import PaneTable, pane_of
from mendstream.agents.pipeline.columns import columns_of, widened
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
        self._bins: dict[tuple[str, str], _Bins] = {}
        """By version and digest; made from the model's card when it is first needed."""
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
                # Served when the call came back: a slow one ends in another pane than it began in.
                served_at = now + int(seconds * 1e6)
                self._count(state, part, columns, batch.config, scorer, mode, seconds, served_at)
                outputs.frames.append(
                    (Topic.PREDICTIONS, batch.partition, self._frame(part, columns, batch, scorer, mode, served_at))
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
        added: dict[str, Array] = {}
        if config.mode is Mode.SAFE_MODE or scorer is None:
            matrix = None
            added["score"], seconds, mode = self.pipeline.compute_fallback(columns_of(frame)), 0.0, Mode.SAFE_MODE
            if scorer is not None:
                matrix = self._matrix(frame, scorer)
        else:
            matrix = self._matrix(frame, scorer)
            added["score"], seconds = scorer.score(matrix)
            mode = Mode.NORMAL
        shadow = self._usable(config.shadow_digest, (frame,))
        if shadow is not None:
            added["shadow_score"] = shadow.score(self._matrix(frame, shadow))[0]
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

    def _matrix(self, frame: Frame, scorer: Scorer) -> Array:
        tensor = frame.batch.select(scorer.card.features).to_tensor(null_to_nan=True, row_major=True)
        return tensor.to_numpy().astype(np.float32, copy=False)  # type: ignore[no-any-return]

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
        scores = {name: values for name, values in made.items() if name != "matrix"}
        return widened(part, scores, meta)

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
            bins = self._bins_of(scorer).count(made["matrix"])
            if bins is not None:
                totals.add_hist(_BINS, bins)
                if version not in state.layouts:
                    _lay_out(state, version, layout(scorer.card.features, scorer.card.reference))
        if mode is Mode.NORMAL:
            totals.add_latency(seconds * 1000, part.rows)
        if "shadow_score" in made:
            shadow = state.panes.at(pane_of(now), config.shadow_version, config.version, "shadow")
            shadow.n += part.rows

    def _bins_of(self, scorer: Scorer) -> _Bins:
        made_by = scorer.card.version, scorer.card.digest
        bins = self._bins.get(made_by)
        if bins is None:
            if len(self._bins) >= _KEEP_LAYOUTS:
                self._bins.clear()
            bins = self._bins[made_by] = _Bins(scorer.card.features, scorer.card.reference)
        return bins


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
    return _Bins(names, reference).count(matrix)


class _Bins:
    """The bins of one model, laid out so that all features of a batch are counted in a few calls."""

    def __init__(self, names: tuple[str, ...], reference: dict[str, FeatureReference]) -> None:
        held = [(place, reference[name]) for place, name in enumerate(names) if name in reference]
        self._places = [place for place, _ in held]
        self._all = len(held) == len(names)
        widest = max((len(one.edges) for _, one in held), default=0)
        self._wide = np.uint8 if widest < 256 else np.uint16
        # Edge by feature; what a feature has fewer of is filled with one that nothing lies above.
        self._edges = np.full((widest, len(held), 1), np.inf, dtype=np.float32)
        self._first = np.zeros((len(held), 1), dtype=np.int64)
        self._missing = np.zeros((len(held), 1), dtype=np.int64)
        self._total = 0
        for row, (_, one) in enumerate(held):
            self._edges[: len(one.edges), row, 0] = one.edges
            self._first[row] = self._total
            self._missing[row] = self._total + len(one.edges) + 1
            self._total += len(one.counts)

    def count(self, matrix: Array) -> Array | None:
        """None if no feature has a reference."""
        if not self._places:
            return None
        columns = np.ascontiguousarray((matrix if self._all else matrix[:, self._places]).T)
        # A value's bin is how many edges lie below it.
        below = np.add.reduce((self._edges < columns).view(np.uint8), axis=0, dtype=self._wide)
        index = below + self._first
        missing = np.isnan(columns)
        if missing.any():
            index = np.where(missing, self._missing, index)
        return np.bincount(index.ravel(), minlength=self._total)
