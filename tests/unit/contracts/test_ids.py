"""murmur2 as Kafka has it, for a whole column at once."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mendstream.contracts.ids import murmur2, partition_of, partitions_of

# From Kafka's own tests (org.apache.kafka.common.utils.UtilsTest).
KAFKA = {
    "21": -973932308,
    "foobar": -790332482,
    "a-little-bit-long-string": -985981536,
    "a-little-bit-longer-string": -1486304829,
    "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
}


def plain(key: bytes) -> int:
    """MurmurHash2, written down byte by byte."""
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    h = 0x9747B28C ^ len(key)
    at = 0
    while len(key) - at >= 4:
        k = key[at] | key[at + 1] << 8 | key[at + 2] << 16 | key[at + 3] << 24
        k = (k * m) & mask
        k ^= k >> 24
        k = (k * m) & mask
        h = ((h * m) & mask) ^ k
        at += 4
    left = len(key) - at
    if left == 3:
        h ^= key[at + 2] << 16
    if left >= 2:
        h ^= key[at + 1] << 8
    if left >= 1:
        h = ((h ^ key[at]) * m) & mask
    h ^= h >> 13
    h = (h * m) & mask
    return h ^ (h >> 15)


@pytest.mark.parametrize(("key", "expected"), KAFKA.items())
def test_hashes_are_those_of_kafka(key, expected):
    assert murmur2(pa.array([key])).view(np.int32).tolist() == [expected]
    assert plain(key.encode()) == expected & 0xFFFFFFFF


def test_a_column_is_hashed_row_by_row():
    assert murmur2(pa.array(list(KAFKA))).view(np.int32).tolist() == list(KAFKA.values())


keys = st.lists(st.one_of(st.text(max_size=12), st.text(min_size=250, max_size=260)), max_size=12)


@given(keys, st.integers(0, 5))
def test_any_strings_of_any_lengths_hash_as_the_plain_formula_says(keys, offset):
    column = pa.array(["x"] * offset + keys, type=pa.string()).slice(offset)
    assert murmur2(column).tolist() == [plain(key.encode()) for key in keys]


@given(keys, st.integers(0, 5))
def test_a_large_column_hashes_as_the_plain_formula_says_too(keys, offset):
    many = keys + [f"key-{n}" for n in range(40)]
    column = pa.array(["x"] * offset + many, type=pa.string()).slice(offset)
    assert murmur2(column).tolist() == [plain(key.encode()) for key in many]


def test_other_string_types_hash_the_same():
    assert murmur2(pa.array(["foobar"], type=pa.large_string())).tolist() == murmur2(pa.array(["foobar"])).tolist()


def test_an_empty_column_has_no_hashes():
    assert murmur2(pa.array([], type=pa.string())).tolist() == []
    assert partitions_of(pa.array([], type=pa.string()), 3).tolist() == []


@given(keys, st.integers(1, 50))
def test_a_partition_is_the_positive_hash_modulo_their_number(keys, partitions):
    found = partitions_of(pa.array(keys, type=pa.string()), partitions).tolist()
    assert found == [(plain(key.encode()) & 0x7FFFFFFF) % partitions for key in keys]


@given(st.text(max_size=300), st.integers(1, 50))
def test_one_key_has_the_partition_that_it_has_in_a_column(key, partitions):
    assert partition_of(key, partitions) == partitions_of(pa.array([key], type=pa.string()), partitions)[0]


def test_keys_spread_evenly():
    counts = np.bincount(partitions_of(pa.array([f"key-{n}" for n in range(6000)]), 6))
    assert counts.min() > 900
    assert counts.max() < 1100
