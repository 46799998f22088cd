"""What every learner does alike, in numpy: rows are checked and held out, a model's scores become card parts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mendstream.adapters.models.reference import error_phi, reference_of, wilson_upper
from mendstream.contracts.errors import ModelError
from mendstream.contracts.models import Array, CardParts, ModelCard

HELD_OUT = 0.2
ROWS_MIN = 50


def cut_of(rows: int) -> int:
    """Where the held-out rows begin."""
    return rows - max(1, int(rows * HELD_OUT))


def cleaned(matrix: Array, labels: Array, names: tuple[str, ...]) -> tuple[Array, Array]:
    """(float32 [rows, features], NaN where a value is missing or infinite; int64 [rows], 0 or 1). Raises ModelError."""
    matrix = np.where(np.isfinite(matrix), matrix, np.nan).astype(np.float32)
    classes = (np.asarray(labels) >= 0.5).astype(np.int64)
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
    if len(np.unique(classes[: cut_of(len(matrix))])) < 2:
        raise ModelError(
            "cannot train: all labels of the training rows are of one class",
            hint="choose a window with both outcomes in it",
        )
    return matrix, classes


def parts_of(names: Sequence[str], matrix: Array, classes: Array, scores: Array, live: ModelCard | None) -> CardParts:
    """What the card says of a model that gives these scores; `live`: see `Learner.fit`."""
    cut = cut_of(len(matrix))
    wrong = ((scores[cut:] >= 0.5) != (classes[cut:] == 1)).astype(np.float64)
    floor = live if live is not None and live.rows > len(matrix) else None
    return CardParts(
        features=tuple(names),
        rows=len(matrix),
        metrics=_metrics(scores[cut:], classes[cut:], wrong),
        error_level=round(wilson_upper(int(wrong.sum()), len(wrong)), 6),
        error_phi=error_phi(wrong, floor.error_phi if floor else 1.0),
        reference={
            name: reference_of(matrix[:cut, column], phi_min=_phi_of(floor, name)) for column, name in enumerate(names)
        },
        score_reference=reference_of(
            scores[:cut], phi_min=floor.score_reference.phi if floor and floor.score_reference else 1.0
        ),
    )


def share_right(scores: Array, labels: Array) -> float:
    """Share of right predictions at threshold 0.5."""
    return round(float(np.mean((scores >= 0.5) == (labels >= 0.5))), 6)


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
