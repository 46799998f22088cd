"""Training: labelled rows in the order of time come in; an ONNX file, its held-out metrics and card parts go out.

scikit-learn and skl2onnx are imported inside: 2.2 s and 140 MB that only the trainer's process pays.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from mendstream.adapters.models.onnx import OnnxScorer
from mendstream.adapters.models.reference import error_phi, reference_of, wilson_upper
from mendstream.contracts.errors import ModelError
from mendstream.contracts.models import Array, FeatureReference, ModelCard

HELD_OUT = 0.2
ROWS_MIN = 50
INPUT = "features"
_PARITY = 1e-3
"""The ONNX file computes in float32; more than this apart from scikit-learn is a wrong conversion."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CardParts:
    """What training knows of the card."""

    features: tuple[str, ...]
    rows: int
    metrics: dict[str, float]
    error_level: float
    error_phi: float
    reference: dict[str, FeatureReference]
    score_reference: FeatureReference

    def card(
        self,
        *,
        version: str,
        created_at_us: int,
        data_window: str,
        source: str = "trainer",
        data_from_us: int = 0,
        data_until_us: int = 0,
    ) -> ModelCard:
        """The card; the catalogue fills the digest in."""
        return ModelCard(
            version=version,
            digest="",
            created_at_us=created_at_us,
            features=self.features,
            data_window=data_window,
            rows=self.rows,
            metrics=self.metrics,
            error_level=self.error_level,
            error_phi=self.error_phi,
            reference=self.reference,
            score_reference=self.score_reference,
            source=source,
            data_from_us=data_from_us,
            data_until_us=data_until_us,
        )


class Trained(NamedTuple):
    onnx: bytes
    metrics: dict[str, float]
    parts: CardParts


def train(matrix: Array, labels: Array, names: Sequence[str], seed: int, *, live: ModelCard | None = None) -> Trained:
    """Median imputation, scaling, logistic regression; the last fifth of the rows is held out. Raises ModelError.

    matrix: float32 [rows, features], NaN where missing, oldest row first; labels: 0 or 1 [rows].
    `live`: the card of the model in service. If that saw more rows, its overdispersion is the least we assume: how
    bursty a stream is, few rows cannot tell.
    """
    names = tuple(names)
    matrix = np.where(np.isfinite(matrix), matrix, np.nan).astype(np.float32)
    classes = (np.asarray(labels) >= 0.5).astype(np.int64)
    _check(matrix, classes, names)
    cut = _cut(len(matrix))
    pipeline = _fit(matrix[:cut], classes[:cut], seed)
    onnx = _convert(pipeline, len(names))
    scores = _scores(onnx, names, matrix, pipeline)
    wrong = ((scores[cut:] >= 0.5) != (classes[cut:] == 1)).astype(np.float64)
    floor = live if live is not None and live.rows > len(matrix) else None
    metrics = _metrics(scores[cut:], classes[cut:], wrong)
    parts = CardParts(
        features=names,
        rows=len(matrix),
        metrics=metrics,
        error_level=round(wilson_upper(int(wrong.sum()), len(wrong)), 6),
        error_phi=error_phi(wrong, floor.error_phi if floor else 1.0),
        reference={
            name: reference_of(matrix[:cut, column], phi_min=_phi_of(floor, name)) for column, name in enumerate(names)
        },
        score_reference=reference_of(
            scores[:cut], phi_min=floor.score_reference.phi if floor and floor.score_reference else 1.0
        ),
    )
    return Trained(onnx, metrics, parts)


def warm() -> None:
    """Import what training needs, and run through it once."""
    rows = np.arange(4 * ROWS_MIN, dtype=np.float32)
    train(np.column_stack([rows % 7, rows % 5]), (rows % 7 > 3).astype(np.float64), ("a", "b"), 0)


def accuracy_of(onnx: OnnxScorer, matrix: Array, labels: Array) -> float:
    """Share of right predictions at threshold 0.5 on the rows that `train` holds out."""
    cut = _cut(len(matrix))
    scores, _ = onnx.score(matrix[cut:])
    return round(float(np.mean((scores >= 0.5) == (labels[cut:] >= 0.5))), 6)


def _cut(rows: int) -> int:
    """Where the held-out rows begin."""
    return rows - max(1, int(rows * HELD_OUT))


def _check(matrix: Array, classes: Array, names: tuple[str, ...]) -> None:
    if matrix.ndim != 2 or matrix.shape[1] != len(names) or len(matrix) != len(classes):
        raise ModelError(
            f"cannot train: {matrix.shape} values, {len(classes)} labels and {len(names)} names do not fit together",
            hint="one column a feature name, one label a row",
        )
    if len(matrix) < ROWS_MIN:
        raise ModelError(
            f"cannot train on {len(matrix)} labelled rows; at least {ROWS_MIN} are needed",
            hint="wait for more feedback, or choose a longer window",
        )
    if len(np.unique(classes[: _cut(len(matrix))])) < 2:
        raise ModelError(
            "cannot train: all labels of the training rows are of one class",
            hint="choose a window with both outcomes in it",
        )


def _fit(matrix: Array, classes: Array, seed: int) -> Any:
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    pipeline = make_pipeline(
        SimpleImputer(strategy="median", keep_empty_features=True),
        StandardScaler(),
        LogisticRegression(max_iter=300, random_state=seed),
    )
    # One thread: the pipeline needs the other cores, and the matrices are small.
    with threadpool_limits(1), _quiet():
        pipeline.fit(matrix, classes)
    return pipeline


def _convert(pipeline: Any, width: int) -> bytes:
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType

    with _quiet():
        model = to_onnx(pipeline, initial_types=[(INPUT, FloatTensorType([None, width]))], options={"zipmap": False})
    return model.SerializeToString()  # type: ignore[no-any-return]


def _scores(onnx: bytes, names: tuple[str, ...], matrix: Array, pipeline: Any) -> Array:
    """What the ONNX file itself says of every row, compared with scikit-learn on some of them."""
    scorer = OnnxScorer.of_bytes(onnx, _bare_card(names), "the newly converted model")
    scores, _ = scorer.score(matrix)
    step = max(1, len(matrix) // 256)
    wanted = pipeline.predict_proba(matrix[::step])[:, 1]
    apart = float(np.abs(scores[::step] - wanted).max())
    if not apart <= _PARITY:
        raise ModelError(
            f"the converted model is {apart:.3g} apart from scikit-learn's",
            hint="feature values too large for float32? scale them in the feature function",
        )
    return scores


def _metrics(scores: Array, classes: Array, wrong: Array) -> dict[str, float]:
    clipped = np.clip(scores, 1e-7, 1 - 1e-7)
    loss = -np.mean(np.where(classes == 1, np.log(clipped), np.log(1 - clipped)))
    found = {
        "accuracy": 1.0 - wrong.mean(),
        "log_loss": loss,
        "brier": np.mean((scores - classes) ** 2),
        "positive_share": classes.mean(),
        "score_mean": scores.mean(),
        "held_out_rows": float(len(wrong)),
    }
    area = _auc(scores, classes)
    if area is not None:
        found["auc"] = area
    return {name: round(float(value), 6) for name, value in found.items()}


def _auc(scores: Array, classes: Array) -> float | None:
    """Area under the ROC curve from ranks, ties at their mean; None where one class is missing."""
    positive = int(classes.sum())
    negative = len(classes) - positive
    if not positive or not negative:
        return None
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return float((ranks[classes == 1].sum() - positive * (positive + 1) / 2) / (positive * negative))


def _phi_of(card: ModelCard | None, name: str) -> float:
    held = card.reference.get(name) if card else None
    return held.phi if held else 1.0


def _bare_card(names: tuple[str, ...]) -> ModelCard:
    return ModelCard(
        version="new", digest="", created_at_us=0, features=names, data_window="", rows=0, metrics={},
        error_level=0.0, error_phi=1.0, reference={},
    )  # fmt: skip


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """scikit-learn and skl2onnx warn about what is checked here (parity) or harmless (a slow last step)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
