"""Whatever ONNX file comes in, a scorer gives probabilities or a ModelError; see also tests/contract/test_models.py."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import msgspec
import numpy as np
import pytest
from tests.unit.models import onnx_files
from tests.unit.models.world import card

from mendstream import demo
from mendstream.adapters.models.onnx import OnnxScorer
from mendstream.contracts.errors import ModelError
from mendstream.contracts.models import ModelCard, Scorer

EXPECTED = 1 / (1 + np.exp(-(4.0 + 0.5 * (1 + 2 + 3))))


def scorer(tmp_path: Path, onnx: bytes, features: tuple[str, ...] = ("a", "b", "c")) -> OnnxScorer:
    path = tmp_path / "model.onnx"
    path.write_bytes(onnx)
    return OnnxScorer(path, card(features=features, digest=hashlib.sha256(onnx).hexdigest()))


@pytest.mark.parametrize("columns", [2, 1, 0])
def test_every_shape_of_probabilities_gives_the_one_of_class_1(tmp_path, columns):
    loaded: Scorer = scorer(tmp_path, onnx_files.linear(columns=columns))
    scores, seconds = loaded.score(np.array([[1, 2, 3], [0, 0, 0]], dtype=np.float32))
    assert scores.dtype == np.float64
    assert scores.shape == (2,)
    assert scores[0] == pytest.approx(EXPECTED, abs=1e-6)
    assert 0 < seconds < 1


@pytest.mark.parametrize("rows", [1, 2, 3, 7])
def test_a_row_has_one_score_however_its_batch_is_cut(rows):
    place = Path(demo.__file__).parent / "models" / "v1"
    shipped = OnnxScorer(place / "model.onnx", msgspec.json.decode((place / "card.json").read_bytes(), type=ModelCard))
    matrix = np.random.default_rng(1).normal(size=(2100, 12))
    whole, _ = shipped.score(matrix)
    parts = [shipped.score(matrix[at : at + rows])[0] for at in range(0, len(matrix), rows)]
    assert np.concatenate(parts).tolist() == whole.tolist()


def test_missing_and_infinite_values_do_not_crash(tmp_path):
    matrix = np.array([[np.nan, 1, 2], [np.inf, -np.inf, 0], [1, 2, 3]], dtype=np.float32)
    scores, _ = scorer(tmp_path, onnx_files.linear()).score(matrix)
    assert np.isnan(scores[0])  # this model has no imputer
    assert scores[2] == pytest.approx(EXPECTED, abs=1e-6)


@pytest.mark.parametrize(
    ("onnx", "says"),
    [
        (b"no model at all", "no model that ONNX Runtime can load"),
        (onnx_files.linear()[:-40], "no model that ONNX Runtime can load"),
        (onnx_files.linear(width=5), r"shape \[None, 5\]"),
        (onnx_files.linear(rows=1), r"shape \[1, 3\]"),
        (onnx_files.linear(kind=11), r"takes tensor\(double\)"),
        (onnx_files.two_inputs(), "has 2 inputs"),
        (onnx_files.labels_only(), "no tensor of float probabilities"),
        (onnx_files.linear(columns=3), r"probabilities of shape \(3, 3\)"),
        (onnx_files.linear(sigmoid=False), "gives 4 where a probability"),
    ],
    ids=["not-onnx", "cut", "other-width", "one-row", "double", "two-inputs", "no-probabilities", "classes", "logits"],
)
def test_a_file_that_does_not_fit_is_refused_when_it_is_loaded(tmp_path, onnx, says):
    with pytest.raises(ModelError, match=says) as caught:
        scorer(tmp_path, onnx)
    assert caught.value.hint


def test_empty_missing_and_foreign_files_are_refused(tmp_path):
    with pytest.raises(ModelError, match="is empty"):
        scorer(tmp_path, b"")
    with pytest.raises(ModelError, match="cannot be read"):
        OnnxScorer(tmp_path / "none.onnx", card(digest="0" * 64))
    (tmp_path / "model.onnx").write_bytes(onnx_files.linear())
    with pytest.raises(ModelError, match="has SHA-256"):
        OnnxScorer(tmp_path / "model.onnx", card(digest="0" * 64))


def test_several_threads_score_with_one_model(tmp_path):
    loaded = scorer(tmp_path, onnx_files.linear())
    found: list[float] = []

    def work() -> None:
        found.extend(float(loaded.score(np.array([[1, 2, 3]], dtype=np.float32))[0][0]) for _ in range(50))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(found) == 200
