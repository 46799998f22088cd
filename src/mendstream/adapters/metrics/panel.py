"""What one agent's committed turns did comes in; its collectors are brought up to date."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from mendstream.adapters.metrics.table import FEATURES_MAX, KNOWN, Collectors
from mendstream.contracts.agent import Outputs
from mendstream.contracts.knobs import Mode
from mendstream.contracts.records import Alert, AlertState, IncidentStep, Record, Status, Verdict, Vitals

_ACTIONS_MAX = 1000
"""Newest actions among which a row that is written again is known."""


class Panel:
    """The metrics of one agent. `turn` runs after every committed turn, up to thousands of times a second."""

    def __init__(self, agent: str) -> None:
        collectors = Collectors(agent)
        self.registry: CollectorRegistry = collectors.registry
        # Bound once: finding a label's child costs more than all that is done with it.
        self._events = collectors.get("events_processed_total", Counter).labels(agent).inc
        self._seconds = collectors.get("processing_latency_seconds", Histogram).labels(agent).observe
        self._errors = collectors.get("errors_total", Counter).labels(agent).inc
        build = {label: KNOWN[label][0] for label in ("version", "python")}
        collectors.get("mendstream_build_info", Gauge).labels(**build).set(1)
        self._see = _watchers(agent, collectors)

    def turn(self, rows: int, seconds: float, outputs: Outputs) -> None:
        self._seconds(seconds)
        if rows:
            self._events(rows)
        if outputs.dead:
            self._errors(len(outputs.dead))
        if self._see:
            for record in outputs.records:
                see = self._see.get(type(record))
                if see is not None:
                    see(record)


def _watchers(agent: str, collectors: Collectors) -> dict[type[Record], Callable[[Any], None]]:
    """Which records of an agent say more than its turns do, and who takes them."""
    match agent:
        case "monitoring":
            alerts = collectors.get("mendstream_alerts_total", Counter)
            return {Vitals: _VitalsWatcher(collectors), Alert: lambda alert: _count_alert(alerts, alert)}
        case "healing":
            return {IncidentStep: _IncidentWatcher(collectors)}
        case "policy":
            verdicts = collectors.get("mendstream_verdicts_total", Counter)
            return {Verdict: lambda verdict: verdicts.labels(verdict.verdict).inc()}
        case _:
            return {}


def _count_alert(alerts: Counter, alert: Alert) -> None:
    if alert.state is AlertState.FIRING:
        alerts.labels(alert.kind).inc()


class _VitalsWatcher:
    def __init__(self, collectors: Collectors) -> None:
        latency = collectors.get("mendstream_event_latency_seconds", Gauge)
        self._p50, self._p95 = (latency.labels(quantile) for quantile in KNOWN["quantile"])
        self._p50.set(math.nan)
        self._p95.set(math.nan)
        self._mode = collectors.get("mendstream_mode", Gauge)
        self._lag = _Newest(collectors.get("mendstream_consumer_lag_records", Gauge))
        self._drift = _Newest(collectors.get("mendstream_feature_drift_score", Gauge))
        self._accuracy = _Newest(collectors.get("mendstream_model_accuracy_ratio", Gauge))

    def __call__(self, vitals: Vitals) -> None:
        self._p50.set(vitals.p50_ms / 1e3 if vitals.n else math.nan)
        self._p95.set(vitals.p95_ms / 1e3 if vitals.n else math.nan)
        self._mode.set(vitals.mode == Mode.SAFE_MODE)
        self._lag.show({task.task: task.backlog for task in vitals.tasks})
        self._accuracy.show({} if vitals.accuracy is None else {vitals.model: vitals.accuracy})
        self._drift.show({row.feature: row.psi for row in vitals.drift[:FEATURES_MAX]})


class _Newest:
    """A gauge with one label that shows the newest values only: what they no longer name is taken out."""

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge
        self._children: dict[str, Gauge] = {}

    def show(self, values: Mapping[str, float]) -> None:
        for label in self._children.keys() - values.keys():
            self._gauge.remove(label)
            del self._children[label]
        for label, value in values.items():
            child = self._children.get(label)
            if child is None:
                child = self._children[label] = self._gauge.labels(label)
            child.set(value)


class _IncidentWatcher:
    def __init__(self, collectors: Collectors) -> None:
        self._opened = collectors.get("mendstream_incidents_total", Counter)
        self._open_now = collectors.get("mendstream_incidents_open", Gauge)
        self._resolution = collectors.get("mendstream_incident_resolution_seconds", Histogram)
        self._actions = collectors.get("mendstream_actions_total", Counter)
        self._open: set[str] = set()
        self._counted: deque[str] = deque(maxlen=_ACTIONS_MAX)

    def __call__(self, step: IncidentStep) -> None:
        head = step.incident
        if step.step == "detection":
            self._opened.labels(head.type).inc()
        if head.status in (Status.RESOLVED, Status.FAILED):
            self._open.discard(head.incident_id)
        else:
            self._open.add(head.incident_id)
        self._open_now.set(len(self._open))
        # The memory is written once, when the incident has ended; a way back from SAFE_MODE repeats RESOLVED after it.
        if step.memory is not None and step.memory.mttr_seconds is not None:
            self._resolution.labels(head.type).observe(step.memory.mttr_seconds)
        self._count_action(step)

    def _count_action(self, step: IncidentStep) -> None:
        row = step.action
        if row is None or row.result is None or row.action_id in self._counted:
            return
        self._counted.append(row.action_id)
        self._actions.labels((row.approved_action or row.proposed_action).kind, row.result).inc()
