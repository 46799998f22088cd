"""Models without sklearn, ONNX and disk: rows in, a file of a few bytes out, and a scorer that is plain arithmetic.

The rules of a catalogue and of a process's kept models are the real ones; what is simulated is the disk below them,
the fit, and the time that computing takes.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec
import numpy as np

from mendstream.adapters.models.kept import KEPT, KeptModels
from mendstream.adapters.models.learning import cleaned, cut_of, parts_of, share_right
from mendstream.adapters.models.versions import CARD_FILE, MODEL_FILE, Versions
from mendstream.contracts.errors import ModelError
from mendstream.contracts.models import Array, Catalogue, ModelCard, Trained

# --- the catalogue ---------------------------------------------------------------------------------------------------


class ModelShelf:
    """The files of every version. The world holds it, so it outlives every process."""

    def __init__(self, at: Callable[[str], None] = lambda point: None) -> None:
        """`at`: called where a process that adds a version may die: at `adding` nothing is there yet, at `added` all
        of it is. What it raises is that death.
        """
        self.files: dict[str, dict[str, bytes]] = {}
        self.full = False
        """Fault: nothing more can be written."""
        self.torn = False
        """Fault: of what is added, half of the model's file arrives and no card."""
        self._at = at

    def put(self, version: str, files: Mapping[str, bytes]) -> None:
        self._at("adding")
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        held = dict(files)
        if self.torn:
            held[MODEL_FILE] = held[MODEL_FILE][: len(held[MODEL_FILE]) // 2]
            del held[CARD_FILE]
        self.files[version] = held
        self._at("added")

    def corrupt(self, version: str, name: str = MODEL_FILE) -> None:
        """Fault: the last byte of a file is another."""
        content = self.files[version][name]
        self.files[version][name] = content[:-1] + bytes([content[-1] ^ 1])

    def lose(self, version: str, name: str = MODEL_FILE) -> None:
        """Fault: a file is gone."""
        del self.files[version][name]


class SimCatalogue(Versions):
    """`contracts.models.Catalogue`: one process's view of the shelf."""

    where = "the simulated shelf"

    def __init__(self, shelf: ModelShelf) -> None:
        super().__init__()
        self._shelf = shelf

    def _names(self) -> Iterable[str]:
        return self._shelf.files

    def _holds(self, version: str) -> bool:
        return version in self._shelf.files

    def _read(self, version: str, name: str) -> bytes:
        try:
            return self._shelf.files[version][name]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from None

    def _put(self, version: str, files: Mapping[str, bytes]) -> None:
        self._shelf.put(version, files)


# --- learning --------------------------------------------------------------------------------------------------------


class _Line(msgspec.Struct, frozen=True):
    """A straight line through standardised features. As bytes, it is the model's file."""

    fill: list[float]
    """What stands for a missing value."""
    middle: list[float]
    spread: list[float]
    weights: list[float]
    bias: float


_HEAD = b"mendstream line 1\n"
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Line).decode


class SimLearner:
    """`contracts.models.Learner`: linear discriminant analysis, in closed form."""

    def __init__(self, took: Callable[[int], None] = lambda rows: None) -> None:
        """`took`: lets the time pass that a fit on so many rows takes."""
        self._took = took

    def prepare(self) -> None: ...
    def rest(self) -> None: ...
    def fit(
        self, matrix: Array, labels: Array, features: Sequence[str], seed: int, *, live: ModelCard | None = None
    ) -> Trained:
        names = tuple(features)
        matrix, classes = cleaned(matrix, labels, names)
        cut = cut_of(len(matrix))
        line = _discriminant(matrix[:cut].astype(np.float64), classes[:cut])
        self._took(len(matrix))
        parts = parts_of(names, matrix, classes, _scores(line, matrix), live)
        return Trained(_HEAD + _encode(line), parts.metrics, parts)

    def accuracy(self, onnx: bytes, card: ModelCard, matrix: Array, labels: Array) -> float:
        cut = cut_of(len(matrix))
        return share_right(_scores(_line_of(onnx, card), matrix[cut:]), labels[cut:])


def _discriminant(matrix: Array, classes: Array) -> _Line:
    known = ~np.isnan(matrix).all(axis=0)
    fill = np.zeros(matrix.shape[1])
    fill[known] = np.nanmedian(matrix[:, known], axis=0)
    matrix = np.where(np.isnan(matrix), fill, matrix)
    middle, spread = matrix.mean(axis=0), matrix.std(axis=0)
    spread[spread == 0] = 1.0
    matrix = (matrix - middle) / spread
    no, yes = matrix[classes == 0], matrix[classes == 1]
    apart = np.concatenate([no - no.mean(axis=0), yes - yes.mean(axis=0)])
    # No call of BLAS: it may start threads for a large matrix.
    together = np.einsum("ni,nj->ij", apart, apart) / len(apart) + 1e-3 * np.eye(matrix.shape[1])
    weights = np.linalg.solve(together, yes.mean(axis=0) - no.mean(axis=0))
    bias = np.log(len(yes) / len(no)) - (weights * (yes.mean(axis=0) + no.mean(axis=0))).sum() / 2
    return _Line(fill.tolist(), middle.tolist(), spread.tolist(), weights.tolist(), float(bias))


def _line_of(onnx: bytes, card: ModelCard) -> _Line:
    """Raises ModelError if it is no model, or wants another number of features than its card names."""
    try:
        if not onnx.startswith(_HEAD):
            raise msgspec.DecodeError("it does not begin like one")
        line = _decode(onnx[len(_HEAD) :])
    except msgspec.DecodeError as error:
        raise ModelError(f"model {card.version} cannot be loaded: {error}", hint="train it again") from error
    if len(line.weights) != len(card.features):
        raise ModelError(
            f"model {card.version} takes {len(line.weights)} features, its card names {len(card.features)}",
            hint=f"its card names these features: {', '.join(card.features)}",
        )
    return line


def _scores(line: _Line, matrix: Array) -> Array:
    """Probability of the positive class; float64 [rows]."""
    total = np.full(len(matrix), line.bias)
    # Column by column: a row's score must not depend, in its last bit, on the rows around it.
    with np.errstate(invalid="ignore"):  # one infinity less another is no number, and such a score is refused later
        for column, fill in enumerate(line.fill):
            values = matrix[:, column].astype(np.float64)
            values = np.where(np.isnan(values), fill, values)
            total += line.weights[column] * ((values - line.middle[column]) / line.spread[column])
    scores: Array = 1 / (1 + np.exp(-np.clip(total, -500, 500)))
    return scores


# --- computing -------------------------------------------------------------------------------------------------------

Took = Callable[[int, str], float]
"""(rows, version) -> the seconds that a call takes; whoever simulates lets them pass, and may make a model slow."""


class SimScorer:
    """`contracts.models.Scorer`."""

    def __init__(self, onnx: bytes, card: ModelCard, took: Took) -> None:
        self._line = _line_of(onnx, card)
        self._card = card
        self._took = took

    @property
    def card(self) -> ModelCard:
        return self._card

    def score(self, matrix: Array) -> tuple[Array, float]:
        if matrix.ndim != 2 or matrix.shape[1] != len(self._card.features):
            raise ModelError(
                f"model {self._card.version} wants {len(self._card.features)} features, "
                f"the matrix has shape {matrix.shape}",
                hint=f"its features, in order: {', '.join(self._card.features)}",
            )
        if not len(matrix):
            return np.zeros(0), 0.0
        scores = _scores(self._line, matrix.astype(np.float32))
        return scores, self._took(len(matrix), self._card.version)


class SimModels(KeptModels[SimScorer]):
    """The models of one process, from its catalogue."""

    def __init__(self, catalogue: Catalogue, took: Took, kept: int = KEPT) -> None:
        super().__init__(kept)
        self._catalogue = catalogue
        self._took = took

    def _load(self, version: str, digest: str) -> SimScorer:
        onnx = self._catalogue.model(version, digest)
        return SimScorer(onnx, self._catalogue.fetch(version), self._took)
