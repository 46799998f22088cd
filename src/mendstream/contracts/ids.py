"""Keys to partitions: murmur2 as Kafka's default partitioner computes it, for a whole column at once."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pyarrow as pa

Array = np.ndarray[Any, np.dtype[Any]]
_SEED = np.uint32(0x9747B28C)
_M = np.uint32(0x5BD1E995)
_R = np.uint32(24)
_WIDE = 256
"""Bytes; longer keys are hashed one by one, for one of a megabyte would make the whole batch as wide."""

_FEW = 32
"""Rows; fewer are hashed sooner one by one than a matrix of them is laid out."""


def murmur2(keys: pa.Array) -> Array:
    """32-bit murmur2 (seed 0x9747b28c) of the UTF-8 bytes of each string; shape [rows], uint32.

    Source of the formula: Austin Appleby's MurmurHash2; seed and byte order as in Kafka's `Utils.murmur2`.
    """
    if len(keys) < _FEW:
        return np.array([_hash((key or "").encode()) for key in keys.to_pylist()], dtype=np.uint32)
    keys = keys.cast(pa.string()) if keys.type != pa.string() else keys
    offsets = np.frombuffer(keys.buffers()[1], dtype=np.int32)[keys.offset : keys.offset + len(keys) + 1]
    data = np.frombuffer(keys.buffers()[2] or b"", dtype=np.uint8)
    start = offsets[:-1].astype(np.int64)
    length = np.diff(offsets).astype(np.int64)
    long = np.flatnonzero(length > _WIDE)
    h = _hashes(data, start, np.where(length > _WIDE, 0, length))
    for row in long.tolist():
        h[row] = _hash(data[start[row] : start[row] + length[row]].tobytes())
    return h


def _hashes(data: Array, start: Array, length: Array) -> Array:
    width = int(length.max(initial=0))
    blocks = (width + 3) // 4
    # Rows as a padded matrix of 4-byte words: one pass over the words serves all rows.
    index = start[:, None] + np.arange(blocks * 4)
    inside = np.arange(blocks * 4) < length[:, None]
    padded = np.where(inside, data[np.minimum(index, max(len(data) - 1, 0))] if len(data) else 0, 0).astype(np.uint8)
    words = padded.view("<u4") if blocks else np.zeros((len(start), 0), dtype=np.uint32)
    whole = length // 4
    with np.errstate(over="ignore"):
        h = _SEED ^ length.astype(np.uint32)
        for b in range(blocks):
            k = words[:, b] * _M
            k ^= k >> _R
            k *= _M
            h = np.where(b < whole, (h * _M) ^ k, h)
        if blocks:
            tail = words[np.arange(len(words)), np.minimum(whole, blocks - 1)]
            h = np.where(length % 4 > 0, (h ^ tail) * _M, h)
        h ^= h >> np.uint32(13)
        h *= _M
        h ^= h >> np.uint32(15)
    return h


def _hash(key: bytes) -> int:
    """The same for one key."""
    m, mask = int(_M), 0xFFFFFFFF
    h = int(_SEED) ^ len(key)
    whole = len(key) // 4 * 4
    for (k,) in struct.iter_unpack("<I", key[:whole]):
        k = k * m & mask
        h = (h * m & mask) ^ ((k ^ k >> 24) * m & mask)
    if tail := key[whole:]:
        h = (h ^ int.from_bytes(tail, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15


def partitions_of(keys: pa.Array, partitions: int) -> Array:
    """The partition of each key: murmur2 without its sign bit, modulo `partitions`; shape [rows], int64."""
    return (murmur2(keys) & np.uint32(0x7FFFFFFF)).astype(np.int64) % partitions


def partition_of(key: str, partitions: int) -> int:
    """The same for one key."""
    return (_hash(key.encode()) & 0x7FFFFFFF) % partitions
