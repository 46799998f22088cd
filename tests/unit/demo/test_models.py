"""The bundled models: the first one is good, the second one is not, and a healthy stream looks like their reference."""

import hashlib
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from mendstream.adapters.models.onnx import OnnxScorer
from mendstream.adapters.models.reference import bin_index
from mendstream.agents.pipeline.feature import FeatureAgent
from mendstream.agents.pipeline.ingestion import IngestionAgent
from mendstream.contracts.agent import Batch
from mendstream.contracts.frame import HEAD
from mendstream.contracts.knobs import LiveConfig
from mendstream.contracts.models import ModelCard
from mendstream.contracts.topics import Topic
from mendstream.demo import source
from mendstream.demo.pipeline import flights

MODELS = Path(source.__file__).parent / "models"
EVENTS = 17_000


class NoClock:
    def now_us(self):
        return 0


def scorer(folder):
    card = msgspec.json.decode((MODELS / folder / "card.json").read_bytes(), type=ModelCard)
    return OnnxScorer(MODELS / folder / "model.onnx", card)


def served(regime):
    """(features by name, labels with NaN where unknown) of a new stream, from its first event on."""
    stream = source.FlightsSource(77, 0, lambda: regime, NoClock())
    lines, feedback, _ = stream.poll(0, EVENTS, 1 << 40)
    ingestion, feature = IngestionAgent(flights), FeatureAgent(flights)
    _, out = ingestion.step(ingestion.start(0), Batch(turn="t", partition=0, config=LiveConfig(), lines=lines), 0)
    frames = [frame for _, _, frame in out.frames]
    batch = Batch(turn="t", partition=0, config=LiveConfig(), frames=frames, topics=[Topic.RAW_EVENTS])
    _, out = feature.step(feature.start(0), batch, 0)
    (frame,) = [frame for _, _, frame in out.frames]
    labels = np.full(EVENTS, np.nan)
    for line in feedback:
        known = msgspec.json.decode(line.value)
        labels[int(known["event_id"][1:])] = known["label"]
    return {name: frame.numbers(name) for name in frame.batch.schema.names[len(HEAD) :]}, labels


@pytest.fixture(scope="module")
def normal():
    return served("normal")


def accuracy(model, stream):
    features, labels = stream
    scores, _ = model.score(np.column_stack(list(features.values())))
    known = ~np.isnan(labels)
    return float(np.mean((scores >= 0.5)[known] == (labels[known] > 0.5)))


def psi(reference, values):
    counts = np.array(reference.counts)
    found = np.bincount(bin_index(values.astype(np.float64), np.array(reference.edges)), minlength=len(counts))
    p = (counts + 0.5) / (counts.sum() + len(counts) / 2)
    q = (found + 0.5) / (found.sum() + len(counts) / 2)
    return float(((q - p) * np.log(q / p)).sum())


@pytest.mark.parametrize(("folder", "version"), [("v1", "v1"), ("v2-bad", "v2")])
def test_a_card_belongs_to_its_file_and_to_the_pipeline(folder, version, normal):
    card = scorer(folder).card
    assert card.version == version
    assert card.digest == hashlib.sha256((MODELS / folder / "model.onnx").read_bytes()).hexdigest()
    assert card.features == tuple(normal[0]) == tuple(card.reference)
    assert all(len(bins.counts) == len(bins.edges) + 2 for bins in card.reference.values())


def test_the_first_model_is_right_nine_times_of_ten(normal):
    model = scorer("v1")
    assert accuracy(model, normal) == pytest.approx(0.90, abs=0.01)
    assert 1 - accuracy(model, normal) < model.card.error_level


def test_the_bad_model_is_worse_by_a_tenth_and_held_to_the_good_ones_level(normal):
    good, bad = scorer("v1"), scorer("v2-bad")
    assert 0.05 <= accuracy(good, normal) - accuracy(bad, normal) <= 0.15
    assert 1 - accuracy(bad, normal) > bad.card.error_level + 0.05
    assert bad.card.metrics["accuracy"] < good.card.metrics["accuracy"]


def test_a_new_stream_looks_like_the_reference_from_its_first_day_on(normal):
    card = scorer("v1").card
    for name, values in normal[0].items():
        for start in range(0, EVENTS - 2_048, 2_048):
            assert psi(card.reference[name], values[start : start + 2_048]) < 0.08, (name, start)


def test_drift_costs_accuracy_and_shows_in_the_features():
    features, labels = served("drift")
    model = scorer("v1")
    assert accuracy(model, (features, labels)) < 0.84
    assert psi(model.card.reference["distance"], features["distance"][:2_048]) > 0.5


def test_neutral_drift_shows_in_the_features_and_costs_nothing():
    features, labels = served("neutral-drift")
    model = scorer("v1")
    assert accuracy(model, (features, labels)) > 0.88
    assert psi(model.card.reference["distance"], features["distance"][:2_048]) > 0.5


@pytest.mark.slow
def test_the_bundled_files_are_what_the_tool_builds():
    tool = Path(__file__).parents[3] / "tools" / "build_demo_models.py"
    done = subprocess.run([sys.executable, tool, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
