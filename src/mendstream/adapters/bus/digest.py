"""Bytes in, 64 bits out, which are stored apart from them: so an unclean boot notices what the power cut has torn.

XXH3, because it depends on the place of each byte and costs less than a sum of words in numpy; a crc32 costs five times
as much. A page or a sector that is an older one gives another digest, but for a chance of 2^-64. It is not for use
against people: who forges a value can forge its digest too.
"""

from __future__ import annotations

from xxhash import xxh3_64_intdigest

MASK = (1 << 64) - 1
"""Sums of digests are kept modulo 2^64. They tell a set of values from any other, in whatever order it grew."""


def digest(value: bytes, seed: int = 0) -> int:
    """Of `value`, and of a number beside it that must not be torn either."""
    return xxh3_64_intdigest(value, seed)


def digest_of_row(key: bytes, value: bytes | None) -> int:
    """Of a small row; 0 for one that is not there."""
    return 0 if value is None else xxh3_64_intdigest(key + value)
