"""What the simulated models can do that real ones do only by mishap; what both must do is in tests/contract."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from tests.unit.models.world import NAMES, card, population

from mendstream.adapters.models.versions import CARD_FILE
from mendstream.contracts.errors import ModelError
from mendstream.simulation.models import ModelShelf, SimCatalogue, SimLearner, SimModels

ONNX = b"twelve bytes"
DIGEST = hashlib.sha256(ONNX).hexdigest()


@pytest.fixture
def shelf() -> ModelShelf:
    return ModelShelf()


def test_a_torn_add_leaves_half_a_version_that_nobody_accepts(shelf):
    shelf.torn = True
    with pytest.raises(ModelError, match="the card of model v1 cannot be read"):
        SimCatalogue(shelf).add(ONNX, card("v1"), {"action.json": b"{}"})
    shelf.torn = False
    catalogue = SimCatalogue(shelf)
    assert catalogue.versions() == ("v1",)
    with pytest.raises(ModelError, match="has SHA-256"):
        catalogue.model("v1", DIGEST)
    assert catalogue.add(ONNX, card(catalogue.next_version())).version == "v2"


def test_a_corrupt_or_lost_file_is_refused_also_by_a_process_that_knows_the_card(shelf):
    catalogue = SimCatalogue(shelf)
    for version in ("v1", "v2"):
        catalogue.add(ONNX, card(version))
    shelf.corrupt("v1")
    shelf.lose("v2")
    with pytest.raises(ModelError, match="has SHA-256"):
        catalogue.model("v1", DIGEST)
    with pytest.raises(ModelError, match="cannot be read"):
        catalogue.model("v2", DIGEST)
    shelf.lose("v1", CARD_FILE)
    assert catalogue.fetch("v1").digest == DIGEST
    with pytest.raises(ModelError, match="cannot be read"):
        SimCatalogue(shelf).fetch("v1")


def test_a_call_and_a_fit_take_the_time_that_they_are_given(shelf):
    fitted: list[int] = []
    calls: list[tuple[int, str]] = []

    def took(rows: int, version: str) -> float:
        calls.append((rows, version))
        return 0.35

    trained = SimLearner(fitted.append).fit(*population(200, 1), NAMES, 0)
    assert fitted == [200]
    catalogue = SimCatalogue(shelf)
    held = catalogue.add(trained.onnx, trained.parts.card(version="v1", created_at_us=0, data_window=""))
    scorer = SimModels(catalogue, took).fetch("v1", held.digest)
    assert scorer.score(population(5, 2)[0])[1] == 0.35
    assert scorer.score(np.zeros((0, 3), dtype=np.float32))[1] == 0.0
    assert calls == [(5, "v1")]


def test_a_score_is_the_same_to_the_last_bit_in_any_batch(shelf):
    trained = SimLearner().fit(*population(500, 1), NAMES, 0)
    catalogue = SimCatalogue(shelf)
    held = catalogue.add(trained.onnx, trained.parts.card(version="v1", created_at_us=0, data_window=""))
    scorer = SimModels(catalogue, lambda rows, version: 0.0).fetch("v1", held.digest)
    matrix, _ = population(301, 3)
    whole = scorer.score(matrix)[0].tolist()
    assert [score for part in np.array_split(matrix, 43) for score in scorer.score(part)[0].tolist()] == whole
