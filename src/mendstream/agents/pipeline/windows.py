"""Keyed windows: the mean of a column over the last N earlier events of the same key, for a whole batch at once.

Order is kept per key, and the sum is taken in the same order however the events were cut into batches, so the result
does not depend on batching.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import repeat
from typing import Any

import msgspec
import numpy as np

from mendstream.contracts.pipeline import Mean

Array = np.ndarray[Any, np.dtype[Any]]
_AT_ONCE = 16
"""Places that a mean looks back in one go: enough to be fast, and long windows take no more memory than short ones."""


class WindowState(msgspec.Struct):
    """Per key a row in every ring; `seen` is the number of the last batch that touched it."""

    index: dict[str, int] = {}
    rings: dict[str, Array] = {}
    """Window -> float64 [rows, last], oldest first, NaN where nothing was seen or the value is missing."""
    seen: Array = np.zeros(0, dtype=np.int64)
    batches: int = 0


def update(
    state: WindowState, means: Mapping[str, Mean], keys: list[str], columns: Mapping[str, Array], max_keys: int
) -> tuple[dict[str, Array], list[Any]]:
    """(window -> mean before each event, float64 [rows]; what changed, for `redo`)."""
    rows = _rows(state, means, keys, max_keys)
    order = np.argsort(rows, kind="stable")
    starts = _starts(rows[order])
    first = order[starts]
    touched, counts = rows[first], np.concatenate((starts[1:], [len(rows)])) - starts
    results = {}
    for name, mean in means.items():
        results[name] = _mean(state.rings[name], order, touched, counts, columns[mean.column], mean.last)
    # In the order of their rows, new keys last: `redo` gives them the same rows again.
    names = [keys[place] for place in first.tolist()]
    return results, [names, {name: ring[touched] for name, ring in state.rings.items()}]


def redo(state: WindowState, means: Mapping[str, Mean], changes: list[Any], max_keys: int) -> None:
    """Bring `state` to where `update` had brought it when it returned `changes`."""
    names, rings = changes
    rows = _rows(state, means, names, max_keys)
    for name, values in rings.items():
        ring = state.rings.get(name)
        if ring is not None and ring.shape[1] == values.shape[1]:  # else the pipeline's windows are others by now
            ring[rows] = values


def _rows(state: WindowState, means: Mapping[str, Mean], keys: list[str], max_keys: int) -> Array:
    """The row of each key; new keys get one, and the keys unseen for longest make room."""
    state.batches += 1
    _fit(state, means)
    index = state.index
    rows = np.fromiter(map(index.get, keys, repeat(-1)), np.int64, len(keys))
    if (rows < 0).any():
        new = [key for key in dict.fromkeys(keys) if key not in index]
        if len(index) + len(new) > max_keys:
            _evict(state, max(len(index) + len(new) - max_keys, max_keys // 10))
            index = state.index
            new = [key for key in dict.fromkeys(keys) if key not in index]
        start = len(index)
        index.update(zip(new, range(start, start + len(new)), strict=True))
        _grow(state, start + len(new))
        rows = np.fromiter(map(index.__getitem__, keys), np.int64, len(keys))
    state.seen[rows] = state.batches
    return rows


def _fit(state: WindowState, means: Mapping[str, Mean]) -> None:
    """A ring for each window: a pipeline that was changed since begins its new windows empty."""
    for name in set(state.rings) - set(means):
        del state.rings[name]
    for name, mean in means.items():
        if name not in state.rings or state.rings[name].shape[1] != mean.last:
            state.rings[name] = np.full((len(state.seen), mean.last), np.nan)


def _grow(state: WindowState, size: int) -> None:
    held = len(state.seen)
    if size <= held:
        return
    room = max(64, size, held * 2)
    state.seen = np.concatenate([state.seen, np.zeros(room - held, dtype=np.int64)])
    for name, ring in state.rings.items():
        state.rings[name] = np.concatenate([ring, np.full((room - held, ring.shape[1]), np.nan)])


def _evict(state: WindowState, count: int) -> None:
    """Forget the `count` keys that were seen longest ago; ties go by row, so that every replay forgets the same."""
    used = len(state.index)
    gone = set(np.argsort(state.seen[:used], kind="stable")[:count].tolist())
    kept = [(key, row) for key, row in state.index.items() if row not in gone]
    rows = np.array([row for _, row in kept], dtype=np.int64)
    state.index = {key: row for row, (key, _) in enumerate(kept)}
    for name, ring in state.rings.items():
        fresh = np.full_like(ring, np.nan)
        fresh[: len(rows)] = ring[rows]
        state.rings[name] = fresh
    seen = np.zeros_like(state.seen)
    seen[: len(rows)] = state.seen[rows]
    state.seen = seen


def _starts(ranked: Array) -> Array:
    """Where each run of equal values begins."""
    begins = np.ones(len(ranked), dtype=bool)
    np.not_equal(ranked[1:], ranked[:-1], out=begins[1:])
    return np.flatnonzero(begins)


def _mean(ring: Array, order: Array, touched: Array, counts: Array, values: Array, last: int) -> Array:
    """Each key's segment is its ring followed by its new values; a mean looks `last` places back in its segment."""
    n, keys = len(order), len(touched)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]]) + last * np.arange(keys)
    segment = np.repeat(np.arange(keys), counts)
    place = np.arange(n) + last * (segment + 1)
    line = np.empty(n + last * keys)
    line[(starts[:, None] + np.arange(last)).ravel()] = ring[touched].ravel()
    line[place] = np.asarray(values, dtype=np.float64)[order]
    missing = np.isnan(line)
    known = np.where(missing, 0.0, line)
    total, gaps = np.zeros(n), np.zeros(n, dtype=np.int64)
    for first in range(1, last + 1, _AT_ONCE):
        earlier = place - np.arange(first, min(first + _AT_ONCE, last + 1))[:, None]
        addends = known[earlier]
        addends[0] += total
        total = np.add.accumulate(addends)[-1]  # from the newest on, one after the other; a sum would pair them up
        gaps += np.add.reduce(missing[earlier])
    seen = last - gaps
    ends = starts + last + counts
    ring[touched] = line[ends[:, None] - last + np.arange(last)]
    mean = np.full(n, np.nan)
    mean[order] = np.divide(total, seen, out=np.full(n, np.nan), where=seen > 0)
    return mean
