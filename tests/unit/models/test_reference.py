"""References describe the rows that they were made from, and phi says how bursty those are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import binomtest

from mendstream.adapters.models.reference import bin_index, error_phi, reference_of, wilson_upper

COLUMNS = hnp.arrays(np.float32, st.integers(1, 400), elements=st.floats(width=32, allow_infinity=True))


def test_a_smooth_column_gets_sixteen_bins_of_one_size():
    reference = reference_of(np.random.default_rng(0).normal(size=16_000).astype(np.float32))
    assert len(reference.edges) == 15
    assert reference.counts[:16] == (1000,) * 16
    assert reference.counts[16] == 0


def test_a_column_of_few_values_gets_a_bin_for_each():
    column = np.array([2.0, 0.0, 1.0, 1.0, np.nan, 2.0, 2.0], dtype=np.float32)
    reference = reference_of(column)
    assert reference.edges == (0.0, 1.0)
    assert reference.counts == (1, 2, 3, 1)


def test_a_heavy_value_takes_one_bin_not_many():
    column = np.r_[np.zeros(900), np.linspace(1, 2, 100)].astype(np.float32)
    reference = reference_of(column)
    assert reference.edges[0] == 0.0
    assert reference.counts[0] == 900
    assert len(set(reference.edges)) == len(reference.edges)


def test_constant_and_missing_columns_have_a_reference_too():
    assert reference_of(np.full(10, 3.0)).counts == (10, 0)
    empty = reference_of(np.full(10, np.nan))
    assert empty.edges == ()
    assert empty.counts == (0, 10)


@given(COLUMNS)
@settings(deadline=None)
def test_every_row_is_in_exactly_one_bin_and_no_bin_between_edges_is_empty(column):
    reference = reference_of(column)
    assert len(reference.counts) == len(reference.edges) + 2
    assert sum(reference.counts) == len(column)
    assert reference.counts[-1] == np.isnan(column).sum()
    assert all(a < b for a, b in zip(reference.edges, reference.edges[1:], strict=False))
    assert all(count > 0 for count in reference.counts[:-1]) or not np.isfinite(column).any()


@given(COLUMNS)
@settings(deadline=None)
def test_bins_are_open_below_and_closed_above(column):
    edges = np.asarray(reference_of(column).edges)
    for value, index in zip(column, bin_index(column, edges), strict=True):
        if np.isnan(value):
            assert index == len(edges) + 1
        else:
            assert index == sum(value > edge for edge in edges)


def test_independent_rows_have_phi_near_one_and_bursts_have_more():
    dice = np.random.default_rng(3)
    calm = dice.normal(size=20_000)
    assert reference_of(calm).phi < 1.3
    bursts = calm + np.repeat(dice.normal(size=40), 500)
    assert reference_of(bursts).phi > 5


def test_phi_is_never_below_what_is_known_of_the_stream():
    assert reference_of(np.arange(30.0), phi_min=4.2).phi == 4.2


@pytest.mark.parametrize(("bad", "n"), [(10, 100), (0, 100), (100, 100), (1, 3), (412, 4000)])
def test_the_error_bound_is_wilsons(bad, n):
    # A two-sided interval of 98 % has the one-sided bound of 99 % for its upper end.
    expected = binomtest(bad, n).proportion_ci(0.98, method="wilson").high
    assert wilson_upper(bad, n) == pytest.approx(expected, abs=1e-9)


def test_error_bursts_raise_error_phi():
    dice = np.random.default_rng(4)
    assert error_phi((dice.random(9000) < 0.1).astype(float)) < 2.5
    assert error_phi((dice.random(9000) < np.repeat([0.02, 0.3], 4500)).astype(float)) > 20
    assert error_phi(np.zeros(100)) == 1.0
    assert error_phi(np.ones(3), phi_min=2.0) == 2.0
