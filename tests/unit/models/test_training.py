"""What is scikit-learn's own of training; what every learner keeps is in tests/contract/test_models.py."""

from __future__ import annotations

import time

import numpy as np
import pytest

from mendstream.adapters.models.training import train

pytestmark = pytest.mark.timeout(60)


def test_twenty_thousand_rows_of_twelve_features_take_less_than_a_second_and_a_half():
    dice = np.random.default_rng(7)
    matrix = dice.normal(size=(20_000, 12)).astype(np.float32)
    matrix[dice.random(matrix.shape) < 0.02] = np.nan
    labels = (np.nan_to_num(matrix).sum(axis=1) > 0).astype(np.float64)
    names = [f"f{i}" for i in range(12)]
    train(matrix[:200], labels[:200], names, seed=0)  # imports what it needs
    started = time.process_time()
    train(matrix, labels, names, seed=0)
    assert time.process_time() - started < 1.5
