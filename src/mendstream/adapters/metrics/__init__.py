"""Prometheus metrics: one table of them, one registry and one HTTP port an agent. What a turn did comes in."""

from mendstream.adapters.metrics.meter import Meter
from mendstream.adapters.metrics.table import METRICS, Metric

__all__ = ["METRICS", "Meter", "Metric"]
