"""Whatever file comes in, a scorer gives probabilities or a ModelError."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import numpy as np
import pytest
from tests.unit.models import onnx_files
from tests.unit.models.world import card

from mendstream.adapters.models.catalogue import Catalogue
from mendstream.adapters.models.onnx import LoadedModels, OnnxScorer
from mendstream.contracts.errors import ModelError
from mendstream.contracts.models import Models, Scorer

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


@pytest.mark.parametrize("rows", [0, 1, 2, 1000])
def test_batches_of_any_size_are_scored(tmp_path, rows):
    scores, _ = scorer(tmp_path, onnx_files.linear()).score(np.zeros((rows, 3), dtype=np.float32))
    assert scores.shape == (rows,)


def test_missing_and_infinite_values_do_not_crash(tmp_path):
    matrix = np.array([[np.nan, 1, 2], [np.inf, -np.inf, 0], [1, 2, 3]], dtype=np.float32)
    scores, _ = scorer(tmp_path, onnx_files.linear()).score(matrix)
    assert np.isnan(scores[0])  # this model has no imputer
    assert scores[2] == pytest.approx(EXPECTED, abs=1e-6)


def test_columns_in_another_memory_order_or_type_score_the_same(tmp_path):
    loaded = scorer(tmp_path, onnx_files.linear())
    matrix = np.random.default_rng(1).normal(size=(50, 3))
    plain, _ = loaded.score(matrix.astype(np.float32))
    turned, _ = loaded.score(np.asfortranarray(matrix))
    assert plain.tolist() == turned.tolist()


def test_a_matrix_of_another_width_is_an_error_that_names_the_features(tmp_path):
    with pytest.raises(ModelError, match="wants 3 features") as caught:
        scorer(tmp_path, onnx_files.linear()).score(np.zeros((1, 4), dtype=np.float32))
    assert "a, b, c" in caught.value.hint


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


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    held = Catalogue(tmp_path / "models")
    for number in range(1, 7):
        held.add(onnx_files.linear(), card(f"v{number}", features=("a", "b", f"c{number}")))
    return held


def test_a_fetched_model_is_at_hand_and_others_are_not(catalogue):
    models = LoadedModels(catalogue)
    port: Models = models
    digest = catalogue.fetch("v1").digest
    assert port.get(digest) is None
    loaded = models.fetch("v1", digest)
    assert port.get(digest) is loaded
    assert models.fetch("v1", digest) is loaded
    assert loaded.card.version == "v1"


def test_a_wrong_digest_or_a_corrupt_file_is_not_loaded(catalogue):
    models = LoadedModels(catalogue)
    digest = catalogue.fetch("v1").digest
    with pytest.raises(ModelError, match="has SHA-256"):
        models.fetch("v1", "0" * 64)
    catalogue.path("v1").write_bytes(b"broken")
    with pytest.raises(ModelError, match="has SHA-256"):
        models.fetch("v1", digest)
    with pytest.raises(ModelError, match="cannot be read"):
        models.fetch("v99", digest)
    assert models.get(digest) is None


def test_at_most_four_models_are_kept_and_the_one_in_use_is_among_them(tmp_path):
    catalogue = Catalogue(tmp_path / "models")
    digests = [catalogue.add(onnx_files.linear(width), card(f"v{width}", tuple("abcdefghi"[:width]))).digest
               for width in range(1, 7)]  # fmt: skip
    models = LoadedModels(catalogue)
    for version, digest in enumerate(digests, start=1):
        models.fetch(f"v{version}", digest)
        assert models.get(digests[0]) is not None
    assert [models.get(digest) is not None for digest in digests] == [True, False, False, True, True, True]


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
