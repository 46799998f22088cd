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
from mendstream.contracts.records import ActionKind, AlertKind, Status, TaskState, VerdictKind

AGENTS = ("ingestion", "feature", "model", "decision", "monitoring", "healing", "policy")
"""Who serves metrics, in the order of their ports from 8001; `monitoring` is the judge."""

STEP_BUCKETS_S = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip
"""Upper edges; the brief's limit of 0.3 s is one, so that the share beyond it is exact."""
RESOLUTION_BUCKETS_S = (1.0, 2.5, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
APPROVAL_BUCKETS_S = (1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 14_400.0, 86_400.0)
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
        name="mendstream_spans_dropped_total", type="counter",
        help="Spans that did not reach the collector of traces; of a process that runs several agents, by its first.",
    ),
    Metric(
        name="mendstream_event_latency_seconds", type="gauge", labels=("quantile",), agents=("monitoring",),
        help="From an event's acceptance to its decision, in the newest closed pane of 250 ms; NaN without events.",
    ),
    Metric(
        name="mendstream_events_served_total", type="counter", labels=("arm",), agents=("monitoring",),
        help="Events that were decided, by who served them; shadow: that a model beside the live one scored.",
    ),
    Metric(
        name="mendstream_events_slow_total", type="counter", labels=("arm",), agents=("monitoring",),
        help="Of those, the ones that took longer than slo.latency_ms from acceptance to decision.",
    ),
    Metric(
        name="mendstream_labels_total", type="counter", labels=("arm",), agents=("monitoring",),
        help="Labels that found their event.",
    ),
    Metric(
        name="mendstream_labels_wrong_total", type="counter", labels=("arm",), agents=("monitoring",),
        help="Of those, the ones that contradict the prediction.",
    ),
    Metric(
        name="mendstream_label_newest_timestamp_seconds", type="gauge", agents=("monitoring",),
        help="When a label last found its event (Unix time); NaN until one has.",
    ),
    Metric(
        name="mendstream_stage_last_heartbeat_timestamp_seconds", type="gauge", labels=("task",),
        agents=("monitoring",), help="When the owner of a pipeline task last gave a sign of life (Unix time).",
    ),
    Metric(
        name="mendstream_tasks", type="gauge", labels=("state",), agents=("monitoring",),
        help="Pipeline tasks in each state.",
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
        name="mendstream_config_version", type="gauge", agents=("monitoring",),
        help="Version of the live config that served last.",
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
        name="mendstream_feature_drift_limit", type="gauge", labels=("feature",), agents=("monitoring",),
        help="PSI above which the drift of a feature is an alarm, at the size of its newest window.",
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
        name="mendstream_incidents_repeated_total", type="counter", labels=("type",), agents=("healing",),
        help="Of those, the ones whose like (type and subject) had ended less than an hour before.",
    ),
    Metric(
        name="mendstream_incidents_ended_total", type="counter", labels=("type", "outcome"), agents=("healing",),
        help="Incidents that ended. mitigated: a remedy cured it; recovered: by itself; person: a person closed it.",
    ),
    Metric(
        name="mendstream_incidents_open", type="gauge", labels=("status",), agents=("healing",),
        help="Incidents that have not ended.",
    ),
    Metric(
        name="mendstream_incidents_escalated", type="gauge", agents=("healing",),
        help="Of those, the ones without a rung left: a person has to close them.",
    ),
    Metric(
        name="mendstream_incident_oldest_timestamp_seconds", type="gauge", agents=("healing",),
        help="When the oldest open incident was detected (Unix time); NaN while none is open.",
    ),
    Metric(
        name="mendstream_approvals_waiting", type="gauge", agents=("healing",),
        help="Proposals that wait for a person.",
    ),
    Metric(
        name="mendstream_approval_oldest_timestamp_seconds", type="gauge", agents=("healing",),
        help="Since when the oldest of them has waited (Unix time); NaN while none waits.",
    ),
    Metric(
        name="mendstream_approval_wait_seconds", type="histogram", agents=("healing",), buckets=APPROVAL_BUCKETS_S,
        help="From asking a person to the answer or the end of the wait.",
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
        name="mendstream_undos_total", type="counter", labels=("action", "result"), agents=("healing",),
        help="Of those, the ones that took a remedy back because it did not help.",
    ),
    Metric(
        name="mendstream_verdicts_total", type="counter", labels=("verdict",), agents=("policy",),
        help="Answers of the AGL to proposals.",
    ),
    Metric(
        name="mendstream_guard_rails_total", type="counter", labels=("policy",), agents=("policy",),
        help="Verdicts that did not simply approve, by the policies that decided them.",
    ),
    Metric(
        name="mendstream_action_budget_left", type="gauge", agents=("policy",),
        help="Remedies that the hour's budget still allowed at the newest verdict; NaN before the first.",
    ),
)  # fmt: skip

OWN_POLICY, NO_POLICY = "own", "none"
POLICIES = (
    "ask-blind", "ask-half-sick", "ask-high-impact", "ask-hourly-budget", "hold-of-another", "mode-ask", "mode-observe",
    "model-bars-another", "model-digest", "model-excluded", "model-moves-threshold", "paused", "promote",
    "promote-unknown", "restart", "restart-storm", "retrain", "retrain-on-bad-data", "rollback", "rollback-unknown",
    "safe-mode-off", "safe-mode-on", "shadow", "threshold", "threshold-clamp", "undo", OWN_POLICY, NO_POLICY,
)  # fmt: skip
"""The shipped policies; `own`: one of the user's, `none`: nothing permitted it, or the proposal expired."""

KNOWN: dict[str, tuple[str, ...]] = {
    "action": tuple(ActionKind),
    "arm": ("live", "fallback", "shadow"),
    "kind": tuple(AlertKind),
    "outcome": ("mitigated", "recovered", "person", "unresolved"),
    "policy": POLICIES,
    "python": (platform.python_version(),),
    "quantile": ("0.5", "0.95"),
    "result": ("SUCCESS", "FAIL"),
    "state": tuple(TaskState),
    "status": (Status.OPEN, Status.MITIGATING),
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
