"""Whether two plain values are the same: structs, dicts, sets, lists and numpy arrays, NaN equal to NaN."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np


def same(one: Any, other: Any) -> bool:
    return difference(one, other) == ""


def difference(one: Any, other: Any, path: str = "$") -> str:
    """Where the two differ first, or an empty string."""
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        equal = (
            isinstance(one, np.ndarray)
            and isinstance(other, np.ndarray)
            and one.dtype == other.dtype
            and np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
        )
        return "" if equal else f"{path}: {one!r} is not {other!r}"
    if isinstance(one, msgspec.Struct) and type(one) is type(other):
        names = one.__struct_fields__
        return _first(difference(getattr(one, n), getattr(other, n), f"{path}.{n}") for n in names)
    if isinstance(one, dict) and isinstance(other, dict):
        if one.keys() != other.keys():
            return f"{path}: keys differ by {one.keys() ^ other.keys()}"
        return _first(difference(one[key], other[key], f"{path}[{key!r}]") for key in one)
    if isinstance(one, list | tuple) and type(one) is type(other):
        if len(one) != len(other):
            return f"{path}: {len(one)} and {len(other)} long"
        return _first(difference(a, b, f"{path}[{n}]") for n, (a, b) in enumerate(zip(one, other, strict=True)))
    if isinstance(one, float) and isinstance(other, float) and one != one and other != other:
        return ""
    return "" if one == other and type(one) is type(other) else f"{path}: {one!r} is not {other!r}"


def _first(differences: Any) -> str:
    return next((found for found in differences if found), "")
