"""ONNX Runtime behind the `Scorer` and `Models` ports: a matrix comes in, probabilities and their time go out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as failures

from mendstream.adapters.models.catalogue import Catalogue, read_model
from mendstream.adapters.models.kept import KEPT, KeptModels
from mendstream.contracts.errors import ModelError
from mendstream.contracts.models import Array, ModelCard

# ONNX Runtime's exceptions have no common base of their own.
_REFUSED = (
    failures.Fail,
    failures.InvalidArgument,
    failures.InvalidGraph,
    failures.InvalidProtobuf,
    failures.NoModel,
    failures.NoSuchFile,
    failures.NotFound,
    failures.NotImplemented,
    failures.RuntimeException,
)
_TRIAL_ROWS = 3  # neither 1 nor 2: a column, a pair of columns and a plain vector must not look alike


class OnnxScorer:
    """One loaded model. Safe for use by several threads; raises ModelError where the file does not fit the card.

    Missing values (NaN) reach the model as they are: models of our trainer fill them in, a model of your own may not,
    and then gives NaN.
    """

    def __init__(self, path: Path, card: ModelCard) -> None:
        self._load(read_model(path, card.digest, "see `mendstream models list`"), card, str(path))

    @classmethod
    def of_bytes(cls, onnx: bytes, card: ModelCard, place: str) -> OnnxScorer:
        """From bytes whose digest was checked; `place` is for messages."""
        scorer = cls.__new__(cls)
        scorer._load(onnx, card, place)
        return scorer

    @property
    def card(self) -> ModelCard:
        return self._card

    def score(self, matrix: Array) -> tuple[Array, float]:
        started = time.perf_counter()
        if matrix.ndim != 2 or matrix.shape[1] != self._width:
            raise ModelError(
                f"model {self._card.version} wants {self._width} features, the matrix has shape {matrix.shape}",
                hint=f"its features, in order: {', '.join(self._card.features)}",
            )
        if not len(matrix):
            return np.zeros(0), 0.0
        rows = np.ascontiguousarray(matrix, dtype=np.float32)
        if len(rows) == 1:
            # A matrix of one row is multiplied by another routine, which rounds otherwise: the same event would have
            # another score alone than among others, and how a batch is cut must not matter.
            rows = np.repeat(rows, 2, axis=0)
        scores = self._positive(self._session.run(self._outputs, {self._input: rows})[0])[: len(matrix)]
        return scores, time.perf_counter() - started

    def _load(self, onnx: bytes, card: ModelCard, place: str) -> None:
        self._card = card
        self._width = len(card.features)
        try:
            self._session = ort.InferenceSession(onnx, sess_options=_options(), providers=["CPUExecutionProvider"])
        except _REFUSED as error:
            raise ModelError(
                f"{place} is no model that ONNX Runtime can load: {_first_line(error)}",
                hint="the file is corrupt or of a newer ONNX version; convert it again (`mendstream train` does)",
            ) from error
        self._input = self._checked_input(place)
        self._outputs = [self._checked_output(place)]
        self._try_out(place)

    def _checked_input(self, place: str) -> str:
        inputs = self._session.get_inputs()
        wanted = f"one float32 input of shape [rows, {self._width}] ({', '.join(self._card.features)})"
        hint = "train it on the pipeline's features, or mend the feature list on its card"
        if len(inputs) != 1:
            raise ModelError(f"{place} has {len(inputs)} inputs ({_names(inputs)}); wanted: {wanted}", hint=hint)
        shape = inputs[0].shape
        # A side that the file leaves open is a name or None; whether an open width fits, the trial call tells.
        fits = len(shape) == 2 and not isinstance(shape[0], int)
        fits = fits and (shape[1] == self._width or not isinstance(shape[1], int))
        if inputs[0].type != "tensor(float)" or not fits:
            raise ModelError(f"{place} takes {inputs[0].type} of shape {shape}; wanted: {wanted}", hint=hint)
        return str(inputs[0].name)

    def _checked_output(self, place: str) -> str:
        outputs = self._session.get_outputs()
        floats = [out.name for out in outputs if out.type == "tensor(float)"]
        if not floats:
            raise ModelError(
                f"{place} gives no tensor of float probabilities (outputs: {_names(outputs)})",
                hint='convert with options={"zipmap": False}, so that probabilities come as one tensor',
            )
        return "probabilities" if "probabilities" in floats else str(floats[-1])

    def _try_out(self, place: str) -> None:
        """One call, so that a model that cannot compute is refused before it is live; it warms the session up too."""
        try:
            scores, _ = self.score(np.zeros((_TRIAL_ROWS, self._width), dtype=np.float32))
        except _REFUSED as error:
            raise ModelError(
                f"{place} cannot score {self._width} features: {_first_line(error)}",
                hint=f"its card names these features: {', '.join(self._card.features)}",
            ) from error
        if bool(np.any((scores < 0) | (scores > 1))):
            raise ModelError(
                f"{place} gives {scores[0]:g} where a probability between 0 and 1 is wanted",
                hint="end the model with a sigmoid or softmax",
            )

    def _positive(self, output: Any) -> Array:
        """The probability of class 1, float64 [rows]."""
        values: Array = np.asarray(output, dtype=np.float64)
        match values.shape:
            case (_,):
                return values
            case (_, 1):
                return values[:, 0]
            case (_, 2):
                return values[:, 1]
        raise ModelError(
            f"model {self._card.version} gives probabilities of shape {values.shape}, wanted is [rows, 2] or [rows]",
            hint="models here tell two classes apart",
        )


class LoadedModels(KeptModels[OnnxScorer]):
    """The models of one process, from its catalogue."""

    def __init__(self, catalogue: Catalogue, kept: int = KEPT) -> None:
        super().__init__(kept)
        self._catalogue = catalogue

    def _load(self, version: str, digest: str) -> OnnxScorer:
        onnx = self._catalogue.model(version, digest)
        return OnnxScorer.of_bytes(onnx, self._catalogue.fetch(version), str(self._catalogue.path(version)))


def _options() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4  # fatal only: what is wrong comes back as an exception
    return options


def _names(nodes: list[Any]) -> str:
    return ", ".join(f"{node.name}: {node.type}" for node in nodes) or "none"


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200]
