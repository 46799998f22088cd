"""Distances on bins, and the limit of what chance explains."""

import numpy as np
import pytest
from scipy import stats

from mendstream.agents.monitoring.distances import Bins, chi2_limit, distances
from mendstream.contracts.models import FeatureReference


def reference(*counts, phi=1.0):
    return FeatureReference(edges=tuple(float(i) for i in range(len(counts) - 2)), counts=counts, phi=phi)


@pytest.mark.parametrize("k", [4, 16, 31])
@pytest.mark.parametrize("shift", [1.0, 25.0, 100.0, 800.0])
def test_the_limit_is_the_quantile_of_noncentral_chi_square_or_a_little_above(k, shift):
    for alpha in (1e-3, 1e-6, 1e-8):
        ours = float(chi2_limit(alpha, np.array([float(k)]), np.array([shift]))[0])
        exact = stats.ncx2.ppf(1 - alpha, k, shift)
        assert 0.995 < ours / exact < 1.12


def test_distances_are_what_the_formulas_say():
    bins = Bins.of([reference(100, 100, 200, 0), reference(10, 10)])
    counts = np.array([[30, 50, 20, 0, 5, 5]])
    d = distances(counts, bins, delta=0.1, alpha=1e-6)

    q = (np.array([30, 50, 20]) + 0.5) / 102
    p = (np.array([100, 100, 200]) + 0.5) / 402
    chance = 2 * (1 / 100 + 1 / 400)
    assert d.psi[0, 0] == pytest.approx(((q - p) * np.log(q / p)).sum() - chance)
    assert d.ks[0, 0] == pytest.approx(0.30)
    assert d.n.tolist() == [[100.0, 10.0]]
    assert d.ks[0, 1] == 0
    assert d.psi[0, 1] < 0 < d.limit[0, 1]
    assert 0 < d.js[0, 0] < 0.2


def test_the_limit_falls_with_n_and_rises_with_phi():
    small, large = (
        distances(np.array([[n // 4] * 4]), Bins.of([reference(9000, 9000, 9000, 9000)]), delta=0.1, alpha=1e-6)
        for n in (256, 4096)
    )
    bursty = distances(
        np.array([[1024] * 4]), Bins.of([reference(9000, 9000, 9000, 9000, phi=5.0)]), delta=0.1, alpha=1e-6
    )
    assert small.limit[0, 0] > large.limit[0, 0] > 0.1
    assert bursty.limit[0, 0] > large.limit[0, 0]


def test_js_is_one_bit_where_nothing_overlaps():
    d = distances(np.array([[100_000, 0]]), Bins.of([reference(0, 100_000)]), delta=0.1, alpha=1e-6)
    assert d.js[0, 0] == pytest.approx(1.0, abs=0.001)
    assert d.ks[0, 0] == 1.0


def test_samples_of_the_reference_stay_within_the_limit():
    dice = np.random.default_rng(1)
    bins = Bins.of([reference(*[2000] * 17)])
    counts = dice.multinomial(500, [1 / 17] * 17, size=5000)
    d = distances(counts, bins, delta=0.1, alpha=1e-4)
    assert (d.ratio < 1).all()
    assert abs(float(d.psi.mean())) < 0.002, "the bias is taken out"
