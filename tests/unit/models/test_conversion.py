"""The ONNX file that is written by hand says what scikit-learn says, and to the last bit what skl2onnx's would."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from skl2onnx import to_onnx as by_skl2onnx
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tests.unit.models.world import NAMES, card, population

from mendstream.adapters.models.conversion import Learnt, to_onnx
from mendstream.adapters.models.onnx import OnnxScorer
from mendstream.adapters.models.training import train

pytestmark = pytest.mark.timeout(60)


def test_the_scores_are_those_of_the_file_that_skl2onnx_writes():
    matrix, labels = population(3000, 1)
    cut = 2400
    pipeline = make_pipeline(
        SimpleImputer(strategy="median", keep_empty_features=True),
        StandardScaler(),
        LogisticRegression(max_iter=300, random_state=0),
    ).fit(matrix[:cut], labels[:cut].astype(int))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = by_skl2onnx(pipeline, matrix[:1], options={"zipmap": False}).SerializeToString()
    ours = train(matrix, labels, NAMES, 0).onnx
    assert np.isnan(matrix).any()
    assert (scores(ours, matrix) == scores(theirs, matrix)).all()


def test_each_number_is_where_it_belongs():
    learnt = Learnt(
        fill=np.array([1.0, 2.0, 3.0]),
        offset=np.array([0.5, 0.0, -1.0]),
        scale=np.array([2.0, 1.0, 0.5]),
        weights=np.array([0.3, -0.7, 1.1]),
        bias=-0.2,
    )
    rows = np.array([[np.nan, 1.0, 2.0], [0.0, np.nan, np.nan]], dtype=np.float32)
    filled = np.where(np.isnan(rows), learnt.fill, rows)
    wanted = 1 / (1 + np.exp(-((filled - learnt.offset) * learnt.scale @ learnt.weights + learnt.bias)))
    assert scores(to_onnx(learnt), rows) == pytest.approx(wanted, abs=1e-6)


def scores(onnx: bytes, matrix: np.ndarray) -> np.ndarray:
    return OnnxScorer.of_bytes(onnx, card("v1"), "test").score(matrix)[0]
