"""How many rows a step may get: whatever it costs per row and per call, it learns to keep to the target."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mendstream.runtime.slices import Slicer

TARGET_S = 0.1
MOST = 2000
START = 128


def run(slicer: Slicer, call_s: float, row_s: float, steps: int = 30, waiting: int = 10**9) -> list[int]:
    """The rows of each step while `waiting` rows are there."""
    sizes = []
    for _ in range(steps):
        rows = min(slicer.rows, waiting)
        sizes.append(rows)
        slicer.saw(rows, call_s + row_s * rows)
    return sizes


@pytest.mark.parametrize("most", [1, 100, MOST])
def test_without_experience_a_batch_is_small(most):
    """It may be a model that takes milliseconds a row, in front of a backlog: nobody could stop the first step."""
    assert Slicer(most=most).rows == min(START, most)


def test_a_cheap_step_is_whole_from_the_second_on():
    assert run(Slicer(most=MOST), 0.001, 5e-6) == [START] + [MOST] * 29


def test_a_cost_per_row_is_cut_to_the_target_at_once():
    sizes = run(Slicer(most=MOST), 0.0, 0.002)
    assert sizes[0] == START
    assert max(sizes[1:]) <= 50


@pytest.mark.parametrize("cold_s", [0.03, 0.06, 0.4, 3.0])
def test_a_first_step_that_is_slow_because_nothing_is_warm_costs_a_few_small_ones(cold_s):
    slicer = Slicer(most=MOST)
    slicer.saw(START, cold_s)
    assert run(slicer, 0.0005, 1e-6)[4:] == [MOST] * 26


def test_a_cost_per_call_leaves_the_batches_whole():
    """Cutting would only multiply the calls."""
    sizes = run(Slicer(most=MOST), 0.4, 1e-6)
    assert sizes[3:] == [MOST] * len(sizes[3:])


def test_a_slow_call_on_single_rows_does_not_hold_the_batches_at_one():
    slicer = Slicer(most=MOST)
    for _ in range(20):
        slicer.saw(1, 0.4)
    assert run(slicer, 0.4, 1e-6)[-1] == MOST


def test_a_fault_that_comes_and_goes_is_noticed_within_a_few_steps():
    slicer = Slicer(most=MOST)
    run(slicer, 0.0005, 1e-6)
    assert max(run(slicer, 0.0, 0.002, steps=10)[3:]) <= 60
    assert max(run(slicer, 0.0005, 1e-6, steps=20)) == MOST


@given(call_s=st.floats(0, TARGET_S / 4), row_s=st.floats(1e-6, 0.09))
def test_a_step_keeps_to_the_target_whatever_a_row_costs(call_s, row_s):
    sizes = run(Slicer(most=MOST), call_s, row_s)
    learnt = [rows for rows in sizes[5:] if rows != 4]  # a single row may be tried as four
    assert all(call_s + row_s * rows <= max(TARGET_S * 1.3, call_s + row_s) for rows in learnt)
    if call_s + row_s * MOST <= TARGET_S:
        assert sizes[-1] == MOST


@given(call_s=st.floats(TARGET_S * 0.6, 5.0))
def test_where_the_call_takes_the_target_already_batches_become_whole(call_s):
    assert run(Slicer(most=MOST), call_s, 1e-7)[-1] == MOST


@given(
    steps=st.lists(st.tuples(st.integers(1, MOST), st.floats(0, 100)), max_size=50),
    most=st.integers(1, MOST),
)
def test_it_always_allows_at_least_one_row_and_at_most_the_limit(steps, most):
    slicer = Slicer(most=most)
    for rows, seconds in steps:
        slicer.saw(rows, seconds)
        assert 1 <= slicer.rows <= most


@pytest.mark.parametrize("waiting", [1, 5, 20])
def test_few_rows_at_a_time_teach_nothing_wrong(waiting):
    """At a low rate batches are small and of one size; when a backlog comes it is not taken row by row."""
    slicer = Slicer(most=MOST)
    run(slicer, 0.002, 1e-5, waiting=waiting)
    assert run(slicer, 0.002, 1e-5, steps=5)[-1] == MOST
