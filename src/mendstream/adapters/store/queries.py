"""What the command line asks of the store: incidents, their actions, mean times to repair, similar cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import sqrt
from statistics import fmean, pstdev
from typing import Any, NamedTuple

from sqlalchemy import func, select

from mendstream.adapters.store import database
from mendstream.adapters.store.models import Base, ConfigRow, HealingAction, Incident, MemoryChunk
from mendstream.contracts.records import Status

MEMORIES_MAX = 1000
"""The newest of a type that similarity looks at."""
_STRANGERS = 2.0
"""Mean squared distance of two unrelated values, in squared standard deviations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentFile:
    """One incident with all that belongs to it, oldest first. Its steps are in incident-log."""

    incident: Incident
    actions: Sequence[HealingAction]
    changes: Sequence[ConfigRow]
    memory: MemoryChunk | None


@dataclass(frozen=True, slots=True)
class Mttr:
    type: str
    avg_mttr: float
    count: int


class Similar(NamedTuple):
    memory: MemoryChunk
    distance: float
    """In standard deviations a feature: 0 is the same case, 1.4 is what two strangers have."""


def incidents(url: str, limit: int = 20, open_only: bool = False) -> Sequence[Incident]:
    """The newest incidents first."""
    query = select(Incident).order_by(Incident.detected_at.desc(), Incident.incident_id.desc()).limit(limit)
    if open_only:
        query = query.where(Incident.status.in_((Status.OPEN.value, Status.MITIGATING.value)))
    with database.reading(url) as session:
        return session.scalars(query).all()


def incident(url: str, incident_id: str) -> IncidentFile | None:
    """None if there is no such incident."""
    with database.reading(url) as session:
        found = session.get(Incident, incident_id)
        if found is None:
            return None
        actions = select(HealingAction).where(HealingAction.incident_id == incident_id)
        changes = select(ConfigRow).where(ConfigRow.incident_id == incident_id)
        memories = select(MemoryChunk).where(MemoryChunk.incident_id == incident_id)
        return IncidentFile(
            incident=found,
            actions=session.scalars(actions.order_by(HealingAction.created_at, HealingAction.action_id)).all(),
            changes=session.scalars(changes.order_by(ConfigRow.version)).all(),
            memory=session.scalars(memories.order_by(MemoryChunk.created_at.desc()).limit(1)).first(),
        )


def average_mttr(url: str) -> Sequence[Mttr]:
    """Per type, of the resolved incidents alone."""
    mean = func.avg(Incident.mttr_seconds)
    query = select(Incident.type, mean, func.count()).where(Incident.status == Status.RESOLVED.value)
    with database.reading(url) as session:
        found = session.execute(query.group_by(Incident.type).order_by(Incident.type)).all()
    return [Mttr(kind, average, count) for kind, average, count in found]


def similar_memories(url: str, incident_type: str, features: Mapping[str, float], k: int = 3) -> Sequence[Similar]:
    """The `k` remembered incidents of one type that are nearest by their features; the newer one of equals first.

    Memories that share no feature with `features` are left out.
    """
    query = select(MemoryChunk).where(MemoryChunk.incident_type == incident_type)
    with database.reading(url) as session:
        found = session.scalars(query.order_by(MemoryChunk.created_at.desc()).limit(MEMORIES_MAX)).all()
    near = [memory for memory in found if memory.features.keys() & features.keys()]
    scales = _scales([features, *(memory.features for memory in near)])
    ranked = [Similar(memory, _distance(features, memory.features, scales)) for memory in near]
    return sorted(ranked, key=lambda similar: similar.distance)[:k]


def plain(row: Base) -> dict[str, Any]:
    """A row as JSON can have it: columns by name, times in ISO 8601 (UTC)."""
    values = {column.name: getattr(row, column.name) for column in row.__table__.columns}
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in values.items()}


def _scales(cases: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Standard deviation of each feature over the cases that have it, so that units do not matter.

    At least a tenth of the feature's size: of two cases, any difference would be all the spread that there is.
    """
    names = {name for case in cases for name in case}
    return {name: _scale([case[name] for case in cases if name in case]) for name in names}


def _scale(values: Sequence[float]) -> float:
    return max(pstdev(values), fmean(map(abs, values)) / 10)


def _distance(a: Mapping[str, float], b: Mapping[str, float], scales: Mapping[str, float]) -> float:
    """Root mean square over the features of both. One that only one of them has counts as between strangers, or a
    case with one matching feature would beat a case with ten that nearly match."""
    names = a.keys() | b.keys()
    return sqrt(sum(_squared(name, a, b, scales) for name in names) / len(names))


def _squared(name: str, a: Mapping[str, float], b: Mapping[str, float], scales: Mapping[str, float]) -> float:
    if name not in a or name not in b:
        return _STRANGERS
    scale = scales[name]
    return ((a[name] - b[name]) / scale) ** 2 if scale else 0.0
