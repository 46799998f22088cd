"""What the house knows of a model besides its ONNX file: the card, and the ports by which it is made, kept and used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

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


class CardParts(msgspec.Struct, frozen=True, kw_only=True):
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
    """The model file, as its catalogue keeps it."""
    metrics: dict[str, float]
    parts: CardParts


class Learner(Protocol):
    """Makes a model of labelled rows, oldest first; the last fifth of them is held out to measure it on."""

    def prepare(self) -> None:
        """A fit will follow: what takes time beforehand may begin. Raises ModelError."""

    def rest(self) -> None:
        """Nothing will follow for a while."""

    def fit(
        self, matrix: Array, labels: Array, features: Sequence[str], seed: int, *, live: ModelCard | None = None
    ) -> Trained:
        """float32 [rows, features], NaN where missing; 0 or 1 [rows]. Raises ModelError if it cannot be trained on.

        `live`: the card of the model in service. If that saw more rows, its overdispersion is the least we assume: how
        bursty a stream is, few rows cannot tell.
        """

    def accuracy(self, onnx: bytes, card: ModelCard, matrix: Array, labels: Array) -> float:
        """Share of right predictions at threshold 0.5 on the rows that `fit` holds out. Raises ModelError if the file
        is no model that fits its card.
        """


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


class Catalogue(Cards, Protocol):
    """All versions, each with its file, card and notes. Versions never change, and an added one is there whole."""

    def versions(self) -> tuple[str, ...]:
        """Oldest first."""

    def next_version(self) -> str: ...
    def fetch(self, version: str) -> ModelCard:
        """The card; raises ModelError if it is missing or broken. `card` knows it from then on."""

    def model(self, version: str, digest: str) -> bytes:
        """The model file, checked against `digest` (SHA-256, hexadecimal); raises ModelError."""

    def note(self, version: str, name: str) -> bytes | None:
        """A small file that was added beside the model, or None."""

    def add(self, onnx: bytes, card: ModelCard, notes: Mapping[str, bytes] | None = None) -> ModelCard:
        """Put a version in place, all of it or nothing; returns its card with the digest.

        The same content under the same version is accepted again, any other is refused with ModelError.
        """
