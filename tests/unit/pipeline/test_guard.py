"""User code over a frame: single refused rows stand alone, in order; code that refuses all is a bug."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.events import frame

from mendstream.agents.pipeline.guard import guarded
from mendstream.contracts.errors import UsageError
from mendstream.contracts.frame import Frame


def refuse_negative(part: Frame) -> list[int]:
    values = part.numbers("x").tolist()
    if any(value < 0 for value in values):
        raise ValueError(values)
    return values


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=40))
def test_each_row_comes_once_in_order_with_its_result_or_alone_with_its_error(values):
    given_frame = frame({"x": np.array(values)})
    if len(values) > 1 and all(value < 0 for value in values):
        with pytest.raises(UsageError, match=f"each of {len(values)} records"):
            list(guarded(given_frame, refuse_negative))
        return
    seen = []
    for part, result, error in guarded(given_frame, refuse_negative):
        held = part.numbers("x").tolist()
        seen += held
        if error is None:
            assert result == held
            assert min(held) >= 0
        else:
            assert result is None
            assert len(held) == 1
            assert held[0] < 0
    assert seen == values


def test_a_good_frame_is_computed_once():
    calls = []
    parts = list(guarded(frame({"x": np.zeros(100)}), lambda part: calls.append(part.rows)))
    assert (len(parts), calls) == (1, [100])


def test_one_bad_row_among_many_costs_few_more_calls():
    calls = []

    def compute(part: Frame) -> None:
        calls.append(part.rows)
        refuse_negative(part)

    values = np.zeros(1024)
    values[700] = -1
    list(guarded(frame({"x": values}), compute))
    assert len(calls) <= 2 * 10 + 1


def test_a_single_refused_row_is_a_dead_letter_and_no_bug():
    ((part, result, error),) = guarded(frame({"x": np.array([-1.0])}), refuse_negative)
    assert (part.rows, result, type(error)) == (1, None, ValueError)
