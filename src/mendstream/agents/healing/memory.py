"""What an incident looks like in numbers, what probably caused it, and which earlier ones were most alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import pstdev
from typing import NamedTuple
from zlib import crc32

from mendstream.agents.healing import served
from mendstream.agents.healing.params import SECOND_US, HealingParams
from mendstream.agents.healing.state import Case, HealingState, Incident
from mendstream.contracts.records import Alert, AlertKind, Scalar, TaskState

_BUCKETS = 16
_FEATURE = "is:feature/"
_HOT = "is:"
_NAMED = ("cause", "reason")
_LOAD = 1.5


class Similar(NamedTuple):
    case: Case
    distance: float


def similar(memories: Sequence[Case], incident_type: str, features: dict[str, float], k: int = 3) -> list[Similar]:
    """The `k` cases of that type most alike, by standardised distance over shared features; of equals the newest."""
    known = [case for case in memories if case.incident_type == incident_type]
    scale = _scales([case.features for case in known] + [features])
    ranked = sorted((_distance(case.features, features, scale), -age, case) for age, case in enumerate(known))
    return [Similar(case, distance) for distance, _, case in ranked[:k]]


def told(found: Similar) -> str:
    """A similar case in a few words for people."""
    case = found.case
    time = f" in {case.mttr_seconds:.1f} s" if case.mttr_seconds is not None else ""
    if case.outcome == "mitigated":
        return f"like {case.incident_id}: {case.action_taken} worked{time}"
    return f"like {case.incident_id}: {case.action_taken or 'no action'}, {case.outcome}{time}"


def signature(state: HealingState, alert: Alert, now: int) -> dict[str, float]:
    """The incident in numbers at the time of `alert`."""
    features: dict[str, float] = {"value": _finite(alert.value), "over_limit": _ratio(alert.value, alert.limit)}
    features["minutes_since_change"] = min((now - _changed_at(state)) / (60 * SECOND_US), 60.0)
    for name, value in alert.evidence.items():
        if isinstance(value, str):
            if name in ("feature", "feature_1"):
                features[_bucket(value)] = 1.0
            elif name in _NAMED:
                features[f"{_HOT}{name}/{value}"] = 1.0
        elif value is not None and not name.endswith(("pid", "generation", "_us")):
            features[f"evidence:{name}"] = _finite(float(value))
    vitals = state.vitals
    if vitals is None:
        return features
    last = served.recent(state.marks, 2 * SECOND_US)
    features |= {
        "slow_share": last.slow_share,
        "p95_ms_log": math.log1p(max(vitals.p95_ms, 0.0)),
        "rate_log": math.log1p(max(vitals.rate, 0.0)),
        "backlog_log": math.log1p(max(vitals.backlog, 0)),
        "tasks_down": float(sum(task.state is not TaskState.OK for task in vitals.tasks)),
        "safe_mode": float(vitals.mode != "NORMAL"),
    }
    if vitals.accuracy is not None:
        features["accuracy"] = vitals.accuracy
    if vitals.drift:
        worst = max(vitals.drift, key=lambda row: row.psi)
        features["psi_max"] = _finite(worst.psi)
        features["drifting"] = float(sum(row.psi > row.limit for row in vitals.drift))
        if not any(name.startswith(_FEATURE) for name in features):
            features[_bucket(worst.feature)] = 1.0
    return features


def cause_of(state: HealingState, incident: Incident, params: HealingParams) -> str:
    """deploy, data, drift, infrastructure or load: what changed last comes first."""
    if incident.kind == AlertKind.AGENT_DOWN:
        return "infrastructure"
    if incident.kind == AlertKind.DATA_DRIFT:
        return "drift"
    if len(state.history) > 1 and 0 <= incident.detected_at_us - state.history[-1].at_us <= params.deploy_us:
        return "deploy"
    if incident.kind == AlertKind.PERF_DROP:
        drifting = any(other.kind == AlertKind.DATA_DRIFT and not other.back for other in state.incidents.values())
        return "drift" if drifting else "data"
    vitals = state.vitals
    before = (state.marks[-1].until_us - state.marks[0].until_us) / SECOND_US if len(state.marks) > 1 else 0.0
    if vitals is not None and before > 0:
        mean_rate = (state.marks[-1].total.n - state.marks[0].total.n) / before
        if mean_rate > 0 and vitals.rate > _LOAD * mean_rate:
            return "load"
    return "infrastructure"


def snapshot(state: HealingState) -> dict[str, Scalar]:
    """The newest vitals as the few numbers that people ask for."""
    vitals = state.vitals
    if vitals is None:
        return {}
    return {
        "rate": vitals.rate,
        "p50_ms": vitals.p50_ms,
        "p95_ms": vitals.p95_ms,
        "slow_share": round(served.recent(state.marks, 2 * SECOND_US).slow_share, 4),
        "accuracy": vitals.accuracy,
        "labels": vitals.labels,
        "psi_max": max((row.psi for row in vitals.drift), default=None),
        "backlog": vitals.backlog,
        "mode": vitals.mode,
        "model": vitals.model,
        "config": vitals.config,
    }


def _bucket(feature: str) -> str:
    """Which feature moved most, hashed, so that any number of features makes a few names."""
    return f"{_FEATURE}{crc32(feature.encode()) % _BUCKETS}"


def _changed_at(state: HealingState) -> int:
    return max(state.changed_at_us, state.history[-1].at_us if state.history else 0)


def _scales(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    columns: dict[str, list[float]] = {}
    for features in rows:
        for name, value in features.items():
            columns.setdefault(name, []).append(value)
    # A feature that never varied tells nothing apart; the floor keeps noise in it from counting as a difference.
    return {name: max(pstdev(values), 0.05 * max(map(abs, values)), 1e-9) for name, values in columns.items()}


def _distance(mine: dict[str, float], other: dict[str, float], scale: dict[str, float]) -> float:
    """Root mean square over shared features; what only one of them is counts as 1 against 0."""
    total, shared = 0.0, 0
    for name in mine.keys() | other.keys():
        if name.startswith(_HOT):
            difference = mine.get(name, 0.0) - other.get(name, 0.0)
        elif name in mine and name in other:
            difference = min(abs(mine[name] - other[name]) / scale.get(name, max(abs(mine[name]), 1.0)), 10.0)
        else:
            continue
        total += difference * difference
        shared += 1
    return math.sqrt(total / shared) if shared else math.inf


def _ratio(value: float, limit: float) -> float:
    return _finite(value / limit) if limit else 0.0


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 0.0
