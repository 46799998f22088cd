"""Training gives an ONNX file that keeps what was learnt, and a card that tells the truth about it."""

from __future__ import annotations

import time

import msgspec
import numpy as np
import pytest
from tests.unit.models.world import NAMES, START_US, population

from mendstream.adapters.models.onnx import OnnxScorer
from mendstream.adapters.models.training import Trained, accuracy_of, train, warm
from mendstream.contracts.errors import ModelError

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def trained() -> Trained:
    return train(*population(4000, 1), NAMES, seed=0)


def loaded(trained: Trained) -> OnnxScorer:
    card = trained.parts.card(version="v1", created_at_us=START_US, data_window="test")
    return OnnxScorer.of_bytes(trained.onnx, card, "test")


def test_the_onnx_file_scores_rows_it_has_not_seen(trained):
    matrix, labels = population(2000, 2)
    scores, _ = loaded(trained).score(matrix)
    assert np.mean((scores >= 0.5) == (labels == 1)) > 0.95
    assert ((scores >= 0) & (scores <= 1)).all()


def test_missing_values_are_filled_in_by_the_file_itself(trained):
    scores, _ = loaded(trained).score(np.full((5, 3), np.nan, dtype=np.float32))
    assert np.isfinite(scores).all()


def test_the_metrics_are_those_of_the_held_out_rows(trained):
    matrix, labels = population(4000, 1)
    scores, _ = loaded(trained).score(matrix[3200:])
    right = float(np.mean((scores >= 0.5) == (labels[3200:] == 1)))
    assert trained.metrics["accuracy"] == pytest.approx(right, abs=1e-6)
    assert trained.metrics["held_out_rows"] == 800
    assert trained.metrics["auc"] > 0.95
    assert accuracy_of(loaded(trained), matrix, labels) == pytest.approx(right, abs=1e-6)
    assert 1 - right < trained.parts.error_level < 1 - right + 0.03
    assert trained.parts.error_phi >= 1


def test_the_card_survives_its_json_and_describes_the_training_rows(trained):
    card = trained.parts.card(version="v1", created_at_us=START_US, data_window="test", data_until_us=7)
    assert msgspec.json.decode(msgspec.json.encode(card), type=type(card)) == card
    assert tuple(card.reference) == NAMES
    assert sum(card.reference["a"].counts) == 3200
    missing = np.isnan(population(4000, 1)[0][:3200, 2]).sum()
    assert card.reference["c"].counts[-1] == missing
    assert sum(card.score_reference.counts) == 3200
    assert card.rows == 4000


def test_the_same_rows_give_the_same_file(trained):
    assert train(*population(4000, 1), NAMES, seed=0).onnx == trained.onnx


def test_infinities_columns_without_values_and_constants_can_be_trained_on():
    matrix, labels = population(500, 3)
    matrix[0, 0], matrix[1, 1] = np.inf, -np.inf
    wide = np.column_stack([matrix, np.full(500, np.nan), np.full(500, 7.0)])
    found = train(wide, labels, (*NAMES, "never", "always"), seed=0)
    assert found.metrics["accuracy"] > 0.9
    assert found.parts.reference["never"].counts == (0, 400)


def test_a_larger_live_card_lends_its_overdispersion(trained):
    card = trained.parts.card(version="v1", created_at_us=START_US, data_window="test")
    reference = {name: msgspec.structs.replace(held, phi=6.5) for name, held in card.reference.items()}
    live = msgspec.structs.replace(card, error_phi=5.5, reference=reference)
    matrix, labels = population(1000, 5)
    few = train(matrix, labels, NAMES, seed=0, live=live)
    assert few.parts.error_phi >= 5.5
    assert few.parts.reference["b"].phi == 6.5
    more = train(*population(5000, 5), NAMES, seed=0, live=live)
    assert more.parts.reference["b"].phi < 2


@pytest.mark.parametrize(
    ("rows", "labels", "names", "says"),
    [
        (20, [0.0, 1.0] * 10, NAMES, "20 labelled rows"),
        (200, [1.0] * 200, NAMES, "one class"),
        (200, [1.0] * 160 + [0.0] * 40, NAMES, "one class"),
        (200, [0.0, 1.0] * 100, ("a", "b"), "do not fit together"),
        (200, [0.0, 1.0], NAMES, "do not fit together"),
    ],
)
def test_what_cannot_be_trained_on_is_said(rows, labels, names, says):
    with pytest.raises(ModelError, match=says) as caught:
        train(population(rows, 6)[0], np.array(labels), names, seed=0)
    assert caught.value.hint


def test_twenty_thousand_rows_of_twelve_features_take_less_than_a_second_and_a_half():
    dice = np.random.default_rng(7)
    matrix = dice.normal(size=(20_000, 12)).astype(np.float32)
    matrix[dice.random(matrix.shape) < 0.02] = np.nan
    labels = (np.nan_to_num(matrix).sum(axis=1) > 0).astype(np.float64)
    warm()
    started = time.process_time()
    train(matrix, labels, [f"f{i}" for i in range(12)], seed=0)
    assert time.process_time() - started < 1.5
