"""State to bytes and back: structs, containers, numpy arrays of any shape and type."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tests.support.same import difference

from mendstream.contracts import state as states

Array = np.ndarray[Any, np.dtype[Any]]
dtypes = st.sampled_from(["<f8", "<f4", "<i8", "<i4", "|u1", "|b1", "<U3", ">i2"])
arrays = dtypes.flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)


class Inner(msgspec.Struct):
    n: int = 0
    counts: dict[str, Array] = {}


class Held(msgspec.Struct):
    array: Array
    inner: Inner
    pairs: set[tuple[str, str]] = set()
    lists: list[Inner] = []
    raw: bytes = b""
    maybe: float | None = None
    parts: tuple[tuple[str, int], ...] = ()


shorts = st.text(max_size=3)
inners = st.builds(
    Inner, n=st.integers(-(2**63), 2**63 - 1), counts=st.dictionaries(shorts, arrays, max_size=3)
)  # fmt: skip
helds = st.builds(
    Held,
    array=arrays,
    inner=inners,
    pairs=st.sets(st.tuples(shorts, shorts), max_size=4),
    lists=st.lists(st.builds(Inner, n=st.integers(0, 9)), max_size=3),
    raw=st.binary(max_size=9),
    maybe=st.none() | st.floats(),
    parts=st.lists(st.tuples(shorts, st.integers(0, 9)), max_size=3).map(tuple),
)


@given(helds)
def test_a_state_comes_back_as_it_was(held):
    assert difference(held, states.decode(states.encode(held), Held)) == ""


@given(arrays)
def test_an_array_comes_back_without_a_type_and_may_be_written_to(array):
    (back,) = states.decode_plain(states.encode([array]))
    assert difference(np.asarray(array), back) == ""
    assert back.flags.writeable
    assert back.flags.aligned


@given(helds)
def test_a_struct_can_be_made_of_what_came_back_without_a_type(held):
    assert difference(held, states.convert(states.decode_plain(states.encode(held)), Held)) == ""


def test_an_array_that_is_a_view_is_written_as_it_looks():
    array = np.arange(12).reshape(3, 4)
    for view in (array.T, array[:, ::2], array[::-1]):
        assert difference(np.ascontiguousarray(view), states.decode_plain(states.encode(view))) == ""


def test_numpys_numbers_are_plain_numbers():
    assert states.decode_plain(states.encode([np.int64(7), np.float32(0.5), np.bool_(True)])) == [7, 0.5, True]


@pytest.mark.parametrize("value", [object(), np.array([object()]), np.array(["x", 1], dtype=object), 1j])
def test_what_is_no_plain_value_is_refused(value):
    with pytest.raises((NotImplementedError, TypeError)):
        states.encode([value])


def test_an_array_is_not_read_where_a_number_is_wanted():
    with pytest.raises(msgspec.ValidationError):
        states.decode(states.encode({"n": np.zeros(3)}), Inner)
