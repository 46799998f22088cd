"""Training: labelled rows in the order of time come in; an ONNX file, its held-out metrics and card parts go out.

scikit-learn is imported inside: 2 s and 100 MB that only the process of a training pays (apart.py).
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mendstream.adapters.models.conversion import Learnt, to_onnx
from mendstream.adapters.models.learning import ROWS_MIN, cleaned, cut_of, parts_of, share_right
from mendstream.adapters.models.onnx import OnnxScorer
from mendstream.contracts.errors import ModelError
from mendstream.contracts.models import Array, ModelCard, Trained

_PARITY = 1e-3
"""The ONNX file computes in float32; more than this apart from scikit-learn is a wrong conversion."""


class SklearnLearner:
    """`contracts.models.Learner`."""

    def prepare(self) -> None:
        """Import what training needs, and run through it once."""
        rows = np.arange(4 * ROWS_MIN, dtype=np.float32)
        train(np.column_stack([rows % 7, rows % 5]), (rows % 7 > 3).astype(np.float64), ("a", "b"), 0)

    def rest(self) -> None:
        """What is imported stays: `apart.LearnerApart` lets go of it."""

    def fit(
        self, matrix: Array, labels: Array, features: Sequence[str], seed: int, *, live: ModelCard | None = None
    ) -> Trained:
        return train(matrix, labels, features, seed, live=live)

    def accuracy(self, onnx: bytes, card: ModelCard, matrix: Array, labels: Array) -> float:
        cut = cut_of(len(matrix))
        scores, _ = OnnxScorer.of_bytes(onnx, card, f"model {card.version}").score(matrix[cut:])
        return share_right(scores, labels[cut:])


def train(matrix: Array, labels: Array, names: Sequence[str], seed: int, *, live: ModelCard | None = None) -> Trained:
    """Median imputation, scaling, logistic regression; see `Learner.fit`. Raises ModelError."""
    names = tuple(names)
    matrix, classes = cleaned(matrix, labels, names)
    cut = cut_of(len(matrix))
    pipeline = _fit(matrix[:cut], classes[:cut], seed)
    onnx = to_onnx(_learnt(pipeline))
    scores = _scores(onnx, names, matrix, pipeline)
    parts = parts_of(names, matrix, classes, scores, live)
    return Trained(onnx, parts.metrics, parts)


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


def _learnt(pipeline: Any) -> Learnt:
    imputer, scaler, regression = (step for _, step in pipeline.steps)
    return Learnt(
        fill=imputer.statistics_,
        offset=scaler.mean_,
        scale=1 / scaler.scale_,
        weights=regression.coef_[0],
        bias=float(regression.intercept_[0]),
    )


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


def _bare_card(names: tuple[str, ...]) -> ModelCard:
    return ModelCard(
        version="new", digest="", created_at_us=0, features=names, data_window="", rows=0, metrics={},
        error_level=0.0, error_phi=1.0, reference={},
    )  # fmt: skip


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """scikit-learn warns about what is harmless: a slow last step, a feature without a value."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
