"""Counts per bin against a reference in; PSI, KS and Jensen-Shannon with the limit for this sample size out."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from mendstream.contracts.models import FeatureReference

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Bins:
    """The references of several features, one after the other."""

    counts: Array
    """float64 [bins of all features]"""
    sizes: Array
    """int64 [features]"""
    phi: Array
    """float64 [features]"""

    @classmethod
    def of(cls, references: list[FeatureReference]) -> Bins:
        return cls(
            counts=np.array([count for r in references for count in r.counts], dtype=np.float64),
            sizes=np.array([len(r.counts) for r in references], dtype=np.int64),
            phi=np.array([max(1.0, r.phi) for r in references]),
        )


@dataclass(frozen=True, slots=True)
class Distances:
    """All float64 [windows, features]."""

    n: Array
    psi: Array
    """Population stability index less what chance alone adds, (K - 1)(1/n + 1/m)."""
    limit: Array
    """`psi` above it is an alarm at this n."""
    ks: Array
    js: Array
    """Jensen-Shannon divergence in bits, 0 to 1, both sides with the same weight: does not depend on n."""

    @property
    def ratio(self) -> Array:
        return np.maximum(self.psi, 0.0) / self.limit


def distances(counts: Array, bins: Bins, *, delta: float, alpha: float) -> Distances:
    """How far each window's counts (int [windows, bins of all features]) are from the reference.

    The limit asks whether PSI is above `delta`, not above 0: n_e PSI is noncentral chi-square with K - 1 degrees of
    freedom and noncentrality n_e delta at worst, n_e = nm / (n + m) / phi. A bin that is empty on both sides is no bin.
    """
    starts = np.concatenate(([0], np.cumsum(bins.sizes)[:-1]))
    c = counts.astype(np.float64)
    n = np.maximum(np.add.reduceat(c, starts, axis=1), 1.0)
    m = np.maximum(np.add.reduceat(bins.counts, starts), 1.0)
    present = (c > 0) | (bins.counts > 0)
    free = np.maximum(np.add.reduceat(present.astype(np.float64), starts, axis=1) - 1.0, 1.0)

    wide_n = np.repeat(n, bins.sizes, axis=1)
    wide_m = np.repeat(m, bins.sizes)
    half = np.repeat(bins.sizes / 2.0, bins.sizes)
    q = (c + 0.5) / (wide_n + half)
    p = (bins.counts + 0.5) / (wide_m + half)
    raw = np.add.reduceat(np.where(present, (q - p) * np.log(q / p), 0.0), starts, axis=1)
    chance = free * (1.0 / n + 1.0 / m)

    # Each feature's differences sum to 0, so one running sum over all of them starts anew at each.
    gap = c / wide_n - bins.counts / wide_m
    ks = np.maximum.reduceat(np.abs(np.cumsum(gap, axis=1)), starts, axis=1)
    mix = (q + p) / 2.0
    js = np.add.reduceat((q * np.log2(q / mix) + p * np.log2(p / mix)) / 2.0, starts, axis=1)

    effective = n * m / (n + m) / bins.phi
    limit = chi2_limit(alpha, free, effective * delta) / effective - chance
    return Distances(n=n, psi=raw - chance, limit=np.maximum(limit, 1e-9), ks=ks, js=np.maximum(js, 0.0))


def chi2_limit(alpha: float, k: Array, shift: Array) -> Array:
    """Upper `alpha` quantile of noncentral chi-square, `k` degrees of freedom, noncentrality `shift`.

    Sankaran's normal approximation (1963): up to 12 % too high for small alpha, so on the safe side, and without scipy.
    """
    z = NormalDist().inv_cdf(1.0 - alpha)
    total = k + shift
    h = 1.0 - 2.0 / 3.0 * total * (k + 3.0 * shift) / (k + 2.0 * shift) ** 2
    p = (k + 2.0 * shift) / total**2
    m = (h - 1.0) * (1.0 - 3.0 * h)
    mean = 1.0 + h * p * (h - 1.0 - 0.5 * (2.0 - h) * m * p)
    spread = h * np.sqrt(2.0 * p) * (1.0 + 0.5 * m * p)
    return total * np.maximum(mean + z * spread, 1e-9) ** (1.0 / h)  # type: ignore[no-any-return]
