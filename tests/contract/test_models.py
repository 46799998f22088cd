"""What every learner, scorer and shelf of loaded models has to keep, whatever they compute with."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from tests.support.models_kept import WORLDS
from tests.unit.models.world import NAMES, START_US, population

from mendstream.adapters.models.versions import MODEL_FILE
from mendstream.contracts.errors import ModelError
from mendstream.contracts.models import Learner, ModelCard, Models, Scorer, Trained

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(params=WORLDS)
def world(request, tmp_path):
    return request.param(tmp_path)


@pytest.fixture
def learner(world) -> Learner:
    return world.learner


@pytest.fixture
def catalogue(world):
    return world.catalogue()


def added(catalogue, trained: Trained, version: str = "v1") -> ModelCard:
    return catalogue.add(trained.onnx, trained.parts.card(version=version, created_at_us=START_US, data_window="test"))


@pytest.fixture
def scorer(world, learner, catalogue) -> Scorer:
    card = added(catalogue, learner.fit(*population(1000, 1), NAMES, 0))
    return world.models(catalogue).fetch("v1", card.digest)


# --- scoring ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [0, 1, 2, 1000])
def test_a_batch_of_any_size_gets_a_probability_a_row(scorer, rows):
    scores, seconds = scorer.score(population(rows, 2)[0])
    assert scores.shape == (rows,)
    assert scores.dtype == np.float64
    assert ((scores >= 0) & (scores <= 1)).all()
    assert (0 < seconds < 1) if rows else seconds == 0


def test_a_score_does_not_depend_on_the_rows_around_it(scorer):
    matrix, _ = population(300, 3)
    whole, _ = scorer.score(matrix)
    apart = np.concatenate([scorer.score(part)[0] for part in np.array_split(matrix, 37)])
    np.testing.assert_allclose(apart, whole, rtol=0, atol=1e-6)


def test_columns_in_another_memory_order_or_type_score_the_same(scorer):
    matrix = np.random.default_rng(1).normal(size=(50, 3))
    plain, _ = scorer.score(matrix.astype(np.float32))
    turned, _ = scorer.score(np.asfortranarray(matrix))
    assert plain.tolist() == turned.tolist()


def test_infinite_values_do_not_crash_it(scorer):
    scores, _ = scorer.score(np.array([[np.inf, -np.inf, 0], [1, 2, 3]], dtype=np.float32))
    assert np.isfinite(scores[1])


def test_a_matrix_of_another_width_is_an_error_that_names_the_features(scorer):
    for wrong in (np.zeros((1, 4)), np.zeros((1, 2)), np.zeros(3)):
        with pytest.raises(ModelError, match="wants 3 features") as caught:
            scorer.score(wrong.astype(np.float32))
        assert "a, b, c" in caught.value.hint


# --- models at hand --------------------------------------------------------------------------------------------------


def test_a_fetched_model_is_at_hand_and_others_are_not(world, learner, catalogue):
    card = added(catalogue, learner.fit(*population(200, 1), NAMES, 0))
    models = world.models(catalogue)
    port: Models = models
    assert port.get(card.digest) is None
    assert port.get("0" * 64) is None
    loaded = models.fetch("v1", card.digest)
    assert port.get(card.digest) is loaded
    assert models.fetch("v1", card.digest) is loaded
    assert loaded.card == card
    assert world.models(catalogue).get(card.digest) is None  # another process has to fetch it itself


def test_a_wrong_digest_or_a_broken_or_missing_file_is_not_loaded(world, learner, catalogue):
    card = added(catalogue, learner.fit(*population(200, 1), NAMES, 0))
    models = world.models(catalogue)
    with pytest.raises(ModelError, match="has SHA-256"):
        models.fetch("v1", "0" * 64)
    with pytest.raises(ModelError, match="cannot be read"):
        models.fetch("v99", card.digest)
    world.write("v1", MODEL_FILE, b"broken")
    with pytest.raises(ModelError, match="has SHA-256"):
        models.fetch("v1", card.digest)
    world.lose("v1", MODEL_FILE)
    with pytest.raises(ModelError, match="cannot be read"):
        models.fetch("v1", card.digest)
    assert models.get(card.digest) is None


def test_what_is_no_model_or_one_of_another_width_is_not_loaded(world, learner, catalogue):
    trained = learner.fit(*population(200, 1), NAMES, 0)
    card = trained.parts.card(version="v1", created_at_us=START_US, data_window="test")
    wider = msgspec.structs.replace(card, version="v2", features=(*NAMES, "d"))
    models = world.models(catalogue)
    for held in (
        catalogue.add(b"no model at all", card),
        catalogue.add(trained.onnx, wider),
        catalogue.add(trained.onnx[:-40], msgspec.structs.replace(card, version="v3")),
    ):
        with pytest.raises(ModelError) as caught:
            models.fetch(held.version, held.digest)
        assert caught.value.hint
        assert models.get(held.digest) is None


def test_few_models_are_kept_and_the_one_in_use_is_among_them(world, learner, catalogue):
    digests = [
        added(catalogue, learner.fit(*population(200, n), NAMES, 0), f"v{n}").digest for n in range(1, 6)
    ]  # fmt: skip
    models = world.models(catalogue, kept=3)
    for n, digest in enumerate(digests, start=1):
        models.fetch(f"v{n}", digest)
        assert models.get(digests[0]) is not None
    assert [models.get(digest) is not None for digest in digests] == [True, False, False, True, True]


# --- learning --------------------------------------------------------------------------------------------------------


def scores_of(world, trained: Trained, matrix: np.ndarray) -> np.ndarray:
    catalogue = world.catalogue()
    card = added(catalogue, trained, catalogue.next_version())
    return world.models(catalogue).fetch(card.version, card.digest).score(matrix)[0]


def share_right(world, trained: Trained, matrix: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean((scores_of(world, trained, matrix) >= 0.5) == (labels == 1)))


def test_what_was_learnt_holds_for_rows_it_has_not_seen(world, learner):
    assert share_right(world, learner.fit(*population(2000, 1), NAMES, 0), *population(2000, 2)) > 0.95


def test_a_model_of_the_old_population_is_worse_on_a_new_one_and_a_new_model_is_not(world, learner):
    shifted = population(2000, 5, 2.0)
    assert share_right(world, learner.fit(*population(2000, 1), NAMES, 0), *shifted) < 0.75
    assert share_right(world, learner.fit(*population(1000, 6, 2.0), NAMES, 0), *shifted) > 0.95


def test_missing_values_are_filled_in_by_the_model_itself(world, learner):
    trained = learner.fit(*population(1000, 1), NAMES, 0)
    assert np.isfinite(scores_of(world, trained, np.full((5, 3), np.nan, dtype=np.float32))).all()


def test_the_metrics_are_those_of_the_held_out_rows(world, learner):
    matrix, labels = population(1000, 1)
    trained = learner.fit(matrix, labels, NAMES, 0)
    right = share_right(world, trained, matrix[800:], labels[800:])
    assert trained.metrics["accuracy"] == pytest.approx(right, abs=1e-6)
    assert trained.metrics["held_out_rows"] == 200
    assert trained.metrics["auc"] > 0.95
    assert trained.parts.metrics == trained.metrics
    assert 1 - right < trained.parts.error_level < 1 - right + 0.06
    assert trained.parts.error_phi >= 1


def test_the_accuracy_of_a_given_file_is_that_on_the_held_out_rows(learner):
    trained = learner.fit(*population(1000, 1), NAMES, 0)
    card = trained.parts.card(version="v1", created_at_us=START_US, data_window="test")
    matrix, labels = population(1000, 1)
    assert learner.accuracy(trained.onnx, card, matrix, labels) == trained.metrics["accuracy"]
    labels[:800] = 1 - labels[:800]
    assert learner.accuracy(trained.onnx, card, matrix, labels) == trained.metrics["accuracy"]
    with pytest.raises(ModelError) as caught:
        learner.accuracy(b"no model", card, matrix, labels)
    assert caught.value.hint


def test_the_card_survives_its_json_and_describes_the_training_rows(learner):
    trained = learner.fit(*population(4000, 1), NAMES, 0)
    card = trained.parts.card(version="v1", created_at_us=START_US, data_window="test", data_until_us=7)
    assert msgspec.json.decode(msgspec.json.encode(card), type=ModelCard) == card
    assert tuple(card.reference) == NAMES
    assert sum(card.reference["a"].counts) == 3200
    missing = np.isnan(population(4000, 1)[0][:3200, 2]).sum()
    assert card.reference["c"].counts[-1] == missing
    assert sum(card.score_reference.counts) == 3200
    assert card.rows == 4000


def test_the_same_rows_give_the_same_file_and_others_another(learner):
    trained = learner.fit(*population(500, 1), NAMES, 0)
    assert learner.fit(*population(500, 1), NAMES, 0).onnx == trained.onnx
    assert learner.fit(*population(500, 2), NAMES, 0).onnx != trained.onnx


def test_preparing_and_resting_change_nothing_of_what_is_learnt(learner):
    first = learner.fit(*population(500, 1), NAMES, 0)
    learner.rest()
    learner.prepare()
    learner.prepare()
    assert learner.fit(*population(500, 1), NAMES, 0) == first
    learner.rest()


def test_infinities_columns_without_values_and_constants_can_be_trained_on(learner):
    matrix, labels = population(500, 3)
    matrix[0, 0], matrix[1, 1] = np.inf, -np.inf
    wide = np.column_stack([matrix, np.full(500, np.nan), np.full(500, 7.0)])
    found = learner.fit(wide, labels, (*NAMES, "never", "always"), 0)
    assert found.metrics["accuracy"] > 0.9
    assert found.parts.reference["never"].counts == (0, 400)


def test_a_larger_live_card_lends_its_overdispersion(learner):
    card = learner.fit(*population(4000, 1), NAMES, 0).parts.card(version="v1", created_at_us=1, data_window="test")
    reference = {name: msgspec.structs.replace(held, phi=6.5) for name, held in card.reference.items()}
    live = msgspec.structs.replace(card, error_phi=5.5, reference=reference)
    few = learner.fit(*population(1000, 5), NAMES, 0, live=live)
    assert few.parts.error_phi >= 5.5
    assert few.parts.reference["b"].phi == 6.5
    more = learner.fit(*population(5000, 5), NAMES, 0, live=live)
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
def test_what_cannot_be_trained_on_is_said(learner, rows, labels, names, says):
    with pytest.raises(ModelError, match=says) as caught:
        learner.fit(population(rows, 6)[0], np.array(labels), names, 0)
    assert caught.value.hint
