"""What one agent's committed turns did comes in; its collectors are brought up to date."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from mendstream.adapters.metrics.incidents import IncidentWatcher
from mendstream.adapters.metrics.table import FEATURES_MAX, KNOWN, NO_POLICY, OWN_POLICY, POLICIES, Collectors
from mendstream.contracts.agent import Outputs
from mendstream.contracts.knobs import Mode
from mendstream.contracts.records import (
    Alert,
    AlertState,
    IncidentStep,
    Record,
    Served,
    TaskState,
    TaskVital,
    Verdict,
    VerdictKind,
    Vitals,
)


class Panel:
    """The metrics of one agent. `turn` runs after every committed turn, up to thousands of times a second."""

    def __init__(self, agent: str) -> None:
        collectors = Collectors(agent)
        self.registry: CollectorRegistry = collectors.registry
        # Bound once: finding a label's child costs more than all that is done with it.
        self._events = collectors.get("events_processed_total", Counter).labels(agent).inc
        self._seconds = collectors.get("processing_latency_seconds", Histogram).labels(agent).observe
        self._errors = collectors.get("errors_total", Counter).labels(agent).inc
        self.lost_spans: Callable[[float], None] = collectors.get("mendstream_spans_dropped_total", Counter).inc
        build = {label: KNOWN[label][0] for label in ("version", "python")}
        collectors.get("mendstream_build_info", Gauge).labels(**build).set(1)
        self._see = _watchers(agent, collectors)

    def recall(self, records: Iterable[Record]) -> None:
        """What an earlier process put out, oldest first: shown where it still holds, and counted by nobody again."""
        see = self._see.get(IncidentStep)
        if isinstance(see, IncidentWatcher):
            see.recall(record for record in records if isinstance(record, IncidentStep))

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
            return {IncidentStep: IncidentWatcher(collectors)}
        case "policy":
            return {Verdict: _VerdictWatcher(collectors)}
        case _:
            return {}


def _count_alert(alerts: Counter, alert: Alert) -> None:
    if alert.state is AlertState.FIRING:
        alerts.labels(alert.kind).inc()


class _VerdictWatcher:
    def __init__(self, collectors: Collectors) -> None:
        self._verdicts = collectors.get("mendstream_verdicts_total", Counter)
        self._guards = collectors.get("mendstream_guard_rails_total", Counter)
        self._left = collectors.get("mendstream_action_budget_left", Gauge)
        self._left.set(math.nan)

    def __call__(self, verdict: Verdict) -> None:
        self._verdicts.labels(verdict.verdict).inc()
        if verdict.verdict is not VerdictKind.APPROVED:
            for policy in verdict.policies or (NO_POLICY,):
                self._guards.labels(policy if policy in POLICIES else OWN_POLICY).inc()
        done, limit = verdict.facts.get("house.actions_1h"), verdict.facts.get("house.actions_1h_limit")
        if isinstance(done, int) and isinstance(limit, int):
            self._left.set(max(0, limit - done))


class _VitalsWatcher:
    def __init__(self, collectors: Collectors) -> None:
        latency = collectors.get("mendstream_event_latency_seconds", Gauge)
        self._p50, self._p95 = (latency.labels(quantile) for quantile in KNOWN["quantile"])
        self._p50.set(math.nan)
        self._p95.set(math.nan)
        self._mode = collectors.get("mendstream_mode", Gauge)
        self._config = collectors.get("mendstream_config_version", Gauge)
        self._served = _ServedCounter(collectors)
        self._heard = _Newest(collectors.get("mendstream_stage_last_heartbeat_timestamp_seconds", Gauge))
        states = collectors.get("mendstream_tasks", Gauge)
        self._states = {state: states.labels(state) for state in TaskState}
        self._lag = _Newest(collectors.get("mendstream_consumer_lag_records", Gauge))
        self._drift = _Newest(collectors.get("mendstream_feature_drift_score", Gauge))
        self._limit = _Newest(collectors.get("mendstream_feature_drift_limit", Gauge))
        self._accuracy = _Newest(collectors.get("mendstream_model_accuracy_ratio", Gauge))

    def __call__(self, vitals: Vitals) -> None:
        self._p50.set(vitals.p50_ms / 1e3 if vitals.n else math.nan)
        self._p95.set(vitals.p95_ms / 1e3 if vitals.n else math.nan)
        self._mode.set(vitals.mode == Mode.SAFE_MODE)
        self._config.set(vitals.config)
        self._served.count(vitals.served, vitals.at_us / 1e6)
        self._show_tasks(vitals.tasks, vitals.at_us)
        self._accuracy.show({} if vitals.accuracy is None else {vitals.model: vitals.accuracy})
        drift = vitals.drift[:FEATURES_MAX]
        self._drift.show({row.feature: row.psi for row in drift})
        self._limit.show({row.feature: row.limit for row in drift})

    def _show_tasks(self, tasks: Iterable[TaskVital], at_us: int) -> None:
        seen = [task for task in tasks if task.state is not TaskState.UNSEEN]
        self._lag.show({task.task: task.backlog for task in seen})
        self._heard.show({task.task: at_us / 1e6 - task.pulse_age_ms / 1e3 for task in seen})
        for state, shown in self._states.items():
            shown.set(sum(task.state is state for task in tasks))


class _ServedCounter:
    """Totals since the log began come in; what has been added since the last look is counted."""

    def __init__(self, collectors: Collectors) -> None:
        names = ("events_served", "events_slow", "labels", "labels_wrong")
        self._counters = [collectors.get(f"mendstream_{name}_total", Counter) for name in names]
        self._newest_label = collectors.get("mendstream_label_newest_timestamp_seconds", Gauge)
        self._newest_label.set(math.nan)
        self._last: dict[tuple[str, str, int, str], tuple[int, int, int, int]] | None = None

    def count(self, rows: Iterable[Served], at_s: float) -> None:
        now = {
            (row.task, row.model, row.config, row.arm): (row.n, row.slow, row.labels, row.errors)
            for row in rows
            if row.arm in KNOWN["arm"]
        }
        # What the log holds from before this process began is no news of now.
        before = now if self._last is None else self._last
        self._last = now
        for key, totals in now.items():
            held = before.get(key)
            if totals == held:
                continue
            added = [new - old for new, old in zip(totals, held or (0, 0, 0, 0), strict=True)]
            for counter, more in zip(self._counters, added, strict=True):
                if more > 0:
                    counter.labels(key[3]).inc(more)
            if added[2] > 0:
                self._newest_label.set(at_s)


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
