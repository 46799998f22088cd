"""Reference distributions for model cards: columns of numbers come in; edges, counts and overdispersion go out.

Formulas: docs of detection. `phi` says how much more a statistic moves on real blocks of rows than on independent rows.
"""

from __future__ import annotations

import math

import numpy as np

from mendstream.contracts.models import Array, FeatureReference

BINS = 16
SCALES = (128, 256, 512, 1024, 2048)
"""Rows of a block; every one with at least BLOCKS_MIN blocks counts, the worst of them is phi."""
BLOCKS_MIN = 8
ERROR_BLOCK = 900
Z99 = 2.3263478740408408
"""Standard normal quantile at 0.99, one-sided."""


def reference_of(values: Array, bins: int = BINS, phi_min: float = 1.0) -> FeatureReference:
    """Quantile bins of one column (in the order of time) and a last bin for missing values; shape [rows]."""
    edges = _edges(values, bins)
    index = bin_index(values, edges)
    counts = np.bincount(index, minlength=len(edges) + 2)
    return FeatureReference(
        edges=tuple(edges.tolist()), counts=tuple(counts.tolist()), phi=round(max(phi_min, _phi(index, counts)), 3)
    )


def bin_index(values: Array, edges: Array) -> Array:
    """The bin of each value: (edges[b-1], edges[b]]; missing ones in the last; shape [rows]."""
    index: Array = np.searchsorted(edges, values, side="left")
    index[np.isnan(values)] = len(edges) + 1
    return index


def wilson_upper(bad: int, n: int, z: float = Z99) -> float:
    """Upper bound of a share from `bad` of `n` (Wilson's score interval, one-sided)."""
    share, square = bad / n, z * z
    middle = share + square / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + square / (4 * n * n))
    return min(1.0, (middle + spread) / (1 + square / n))


def error_phi(wrong: Array, phi_min: float = 1.0) -> float:
    """Variance of block means of an error stream, over that of independent errors; at least `phi_min`; shape [rows]."""
    block = min(ERROR_BLOCK, len(wrong) // BLOCKS_MIN)
    share = float(wrong.mean()) if len(wrong) else 0.0
    if block < 1 or share in (0.0, 1.0):
        return phi_min
    blocks = len(wrong) // block
    means = wrong[: blocks * block].reshape(blocks, block).mean(axis=1)
    return round(max(phi_min, float(means.var(ddof=1)) / (share * (1 - share) / block)), 3)


def _edges(values: Array, bins: int) -> Array:
    """Distinct upper edges that are values of the column, below its maximum: no bin of the reference is empty."""
    present = np.sort(values[np.isfinite(values)])
    if not len(present):
        return np.zeros(0)
    distinct = np.unique(present)
    if len(distinct) <= bins:
        return distinct[:-1].astype(np.float64)
    quantiles = present[np.arange(1, bins) * len(present) // bins - 1]
    edges = np.unique(quantiles).astype(np.float64)
    below: Array = edges[edges < present[-1]]
    return below


def _phi(index: Array, counts: Array) -> float:
    """max(1, mean z, q95(z) / 1.6) with z = n PSI / (bins - 1) per block, n = n_e of block and reference."""
    rows, bins, worst = len(index), len(counts), 1.0
    if bins < 2:
        return worst
    p = (counts + 0.5) / (rows + bins / 2)
    for scale in SCALES:
        blocks = rows // scale
        if blocks < BLOCKS_MIN:
            break
        cells = np.repeat(np.arange(blocks) * bins, scale) + index[: blocks * scale]
        q = (np.bincount(cells, minlength=blocks * bins).reshape(blocks, bins) + 0.5) / (scale + bins / 2)
        z = scale * rows / (scale + rows) * ((q - p) * np.log(q / p)).sum(axis=1) / (bins - 1)
        worst = max(worst, float(z.mean()), float(np.quantile(z, 0.95)) / 1.6)
    return worst
