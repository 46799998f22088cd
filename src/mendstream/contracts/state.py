"""State is a plain value: a msgspec.Struct, numpy arrays allowed. This is its way to bytes and back (MessagePack)."""

from __future__ import annotations

import typing
from functools import lru_cache
from typing import Any, TypeVar

import msgspec
import numpy as np

S = TypeVar("S")
_ARRAY = 1


def encode(value: Any) -> bytes:
    return _ENCODER.encode(value)


def decode(data: bytes, kind: type[S]) -> S:
    return msgspec.msgpack.decode(data, type=kind, dec_hook=_given, ext_hook=_array)


def decode_plain(data: bytes) -> Any:
    """Without a type: lists, dicts, numbers, strings, bytes and numpy arrays."""
    return msgspec.msgpack.decode(data, ext_hook=_array)


def convert(value: Any, kind: type[S]) -> S:
    """A struct from what `decode_plain` gave for it."""
    return msgspec.convert(value, type=kind, dec_hook=_given)


def _ext(value: Any) -> Any:
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:  # an object's bytes would be its address
        return msgspec.msgpack.Ext(_ARRAY, _head(value.dtype, value.shape) + value.tobytes())
    if isinstance(value, np.generic):
        return value.item()
    raise NotImplementedError(f"{type(value).__name__} is not a plain value")


@lru_cache(maxsize=1024)
def _head(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    head = msgspec.msgpack.encode((dtype.str, shape))
    return len(head).to_bytes(2, "big") + head


def _array(code: int, data: memoryview) -> Any:
    if code != _ARRAY:
        raise ValueError(f"extension {code} is not ours")
    end = 2 + int.from_bytes(data[:2], "big")
    dtype, shape = msgspec.msgpack.decode(data[2:end])
    return np.frombuffer(data[end:], dtype=np.dtype(dtype)).reshape(shape).copy()


def _given(kind: Any, value: Any) -> Any:
    plain = typing.get_origin(kind) or kind  # np.ndarray[...] is no class that a value could be asked about
    if isinstance(value, plain):
        return value
    raise NotImplementedError(f"cannot read {kind}")


_ENCODER = msgspec.msgpack.Encoder(enc_hook=_ext)
