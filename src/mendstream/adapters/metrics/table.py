"""Every metric in one table: the collectors and the page of the docs are made from it.

Label values come from configuration and from closed lists, never from events: no id of an event, key or incident.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Literal, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.metrics import MetricWrapperBase

from mendstream import __version__
from mendstream.contracts.records import ActionKind, AlertKind, VerdictKind

AGENTS = ("ingestion", "feature", "model", "decision", "monitoring", "healing", "policy")
"""Who serves metrics, in the order of their ports from 8001; `monitoring` is the judge."""

STEP_BUCKETS_S = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip
"""Upper edges; the brief's limit of 0.3 s is one, so that the share beyond it is exact."""
RESOLUTION_BUCKETS_S = (1.0, 2.5, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
FEATURES_MAX = 50
"""Most features whose drift is shown: the pipeline's first ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    name: str
    type: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    agents: tuple[str, ...] = AGENTS
    """Who serves it."""
    buckets: tuple[float, ...] = ()


METRICS: tuple[Metric, ...] = (
    Metric(
        name="events_processed_total", type="counter", labels=("agent",),
        help="Rows that the agent's committed turns took in.",
    ),
    Metric(
        name="processing_latency_seconds", type="histogram", labels=("agent",), buckets=STEP_BUCKETS_S,
        help="Seconds that one step of the agent took, whatever its number of rows.",
    ),
    Metric(
        name="errors_total", type="counter", labels=("agent",),
        help="Records that the agent could not use and put into dead-letters.",
    ),
    Metric(
        name="mendstream_build_info", type="gauge", labels=("version", "python"),
        help="Always 1; the labels tell what runs.",
    ),
    Metric(
        name="mendstream_event_latency_seconds", type="gauge", labels=("quantile",), agents=("monitoring",),
        help="From an event's acceptance to its decision, in the newest closed pane of 250 ms; NaN without events.",
    ),
    Metric(
        name="mendstream_consumer_lag_records", type="gauge", labels=("task",), agents=("monitoring",),
        help="Rows that wait at the inputs of a pipeline task.",
    ),
    Metric(
        name="mendstream_mode", type="gauge", agents=("monitoring",),
        help="1 while the pipeline serves in SAFE_MODE, 0 in NORMAL.",
    ),
    Metric(
        name="mendstream_model_accuracy_ratio", type="gauge", labels=("version",), agents=("monitoring",),
        help="Share of right predictions among the newest labels of the live model; absent without labels.",
    ),
    Metric(
        name="mendstream_feature_drift_score", type="gauge", labels=("feature",), agents=("monitoring",),
        help=f"PSI of a feature's newest window against the live model's reference; the first {FEATURES_MAX} features.",
    ),
    Metric(
        name="mendstream_alerts_total", type="counter", labels=("kind",), agents=("monitoring",),
        help="Alerts that began to fire.",
    ),
    Metric(
        name="mendstream_incidents_total", type="counter", labels=("type",), agents=("healing",),
        help="Incidents that were opened.",
    ),
    Metric(
        name="mendstream_incidents_open", type="gauge", agents=("healing",),
        help="Incidents that have not ended; after a restart of healing, each one from its next step on.",
    ),
    Metric(
        name="mendstream_incident_resolution_seconds", type="histogram", labels=("type",), agents=("healing",),
        buckets=RESOLUTION_BUCKETS_S,
        help="From detection to RESOLVED with proof; incidents that ended as FAILED are not in it.",
    ),
    Metric(
        name="mendstream_actions_total", type="counter", labels=("action", "result"), agents=("healing",),
        help="Remedies and undos with a result; SUCCESS only if done and verified.",
    ),
    Metric(
        name="mendstream_verdicts_total", type="counter", labels=("verdict",), agents=("policy",),
        help="Answers of the AGL to proposals.",
    ),
)  # fmt: skip

KNOWN: dict[str, tuple[str, ...]] = {
    "action": tuple(ActionKind),
    "kind": tuple(AlertKind),
    "python": (platform.python_version(),),
    "quantile": ("0.5", "0.95"),
    "result": ("SUCCESS", "FAIL"),
    "type": tuple(AlertKind),
    "verdict": tuple(VerdictKind),
    "version": (__version__,),
}
"""The values of closed labels. A counter of theirs is there from the start, at 0, or its first increase is unseen."""

T = TypeVar("T", bound=MetricWrapperBase)


class Collectors:
    """The collectors of one agent, in a registry of their own."""

    def __init__(self, agent: str) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series a counter, that nobody reads
        self.registry = CollectorRegistry()
        self._made: dict[str, MetricWrapperBase] = {}
        for metric in METRICS:
            if agent in metric.agents:
                self._made[metric.name] = _make(metric, agent, self.registry)

    def get(self, name: str, kind: type[T]) -> T:
        found = self._made[name]
        assert isinstance(found, kind)
        return found


def _make(metric: Metric, agent: str, registry: CollectorRegistry) -> MetricWrapperBase:
    made: Counter | Gauge | Histogram
    match metric.type:
        case "counter":
            made = Counter(metric.name, metric.help, metric.labels, registry=registry)
        case "gauge":
            made = Gauge(metric.name, metric.help, metric.labels, registry=registry)
        case "histogram":
            made = Histogram(metric.name, metric.help, metric.labels, buckets=metric.buckets, registry=registry)
    if metric.type != "gauge":  # a gauge's child that was never set would claim a 0
        for values in _known(metric.labels, agent):
            made.labels(*values)
    return made


def _known(labels: tuple[str, ...], agent: str) -> Iterator[tuple[str, ...]]:
    """All combinations of the labels' known values; none for a metric without labels: it is there anyhow."""
    if labels:
        yield from product(*((agent,) if label == "agent" else KNOWN.get(label, ()) for label in labels))
