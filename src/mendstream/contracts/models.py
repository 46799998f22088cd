"""What the house knows of a model besides its ONNX file: the card, and the port through which agents compute."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import msgspec

if TYPE_CHECKING:  # the supervisor reads cards and needs no numpy
    import numpy as np

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"


class FeatureReference(msgspec.Struct, frozen=True, kw_only=True):
    """The frozen distribution of one feature that drift is measured against.

    Bin b holds values in (edges[b-1], edges[b]]; the first starts at minus, the last ends at plus infinity. One more
    bin at the end holds missing values. So len(counts) == len(edges) + 2.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    phi: float = 1.0
    """Overdispersion of PSI on real blocks (>= 1)."""


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """Beside each model file, as card.json."""

    version: str
    digest: str
    """SHA-256 of the ONNX file, hexadecimal."""
    created_at_us: int
    features: tuple[str, ...]
    data_window: str
    """What it was trained on, for people."""
    rows: int
    metrics: dict[str, float]
    """`accuracy` on held-out rows, and what else the trainer measured."""
    error_level: float
    """Upper 99 % bound of the error share on held-out rows."""
    error_phi: float
    """Overdispersion of error counts in blocks (>= 1)."""
    reference: dict[str, FeatureReference]
    score_reference: FeatureReference | None = None
    source: str = "trainer"
    """`bundled`, `trainer` or `user`."""
    run_id: str = ""
    """The MLflow run, if it was logged."""
    data_from_us: int = 0
    data_until_us: int = 0
    """Event-log time of the training rows; proof of cure uses later ones only."""


class Scorer(Protocol):
    """A loaded model: computation without I/O."""

    @property
    def card(self) -> ModelCard: ...
    def score(self, matrix: Array) -> tuple[Array, float]:
        """float32 [rows, features] -> (probability of the positive class, float64 [rows]; seconds it took)."""


class Models(Protocol):
    """The models that this process has at hand; the driver fetches them outside the turn."""

    def get(self, digest: str) -> Scorer | None: ...


class Cards(Protocol):
    """The cards of the versions that were or are live; fetched outside the turn like the models."""

    def card(self, version: str) -> ModelCard | None: ...
