"""The tables: the brief's four with its columns first and our finer ones after, and the recorder's positions.

All times are the log's, not the writer's, so a projection that is built again has the same rows.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import BigInteger, Double, ForeignKey, MetaData
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from mendstream.adapters.store.columns import Json, Text, UtcDateTime, words
from mendstream.contracts.records import AlertKind, Status

INCIDENT_TYPES = tuple(str(kind) for kind in AlertKind)
"""The kinds that this version knows. The column takes any text: a new detector needs no migration."""
AGL_DECISIONS = ("APPROVED", "DENIED", "MODIFIED")
RESULTS = ("SUCCESS", "FAIL")


class Base(DeclarativeBase):
    # Every constraint has a name, or a later migration could not drop it on SQLite.
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_name)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        str: Text(),
        int: BigInteger(),
        float: Double(),
        datetime: UtcDateTime(),
        dict[str, Any]: Json(),
        list[str]: Json(),
    }


class Incident(Base):
    """One incident as it stands after its newest step."""

    __tablename__ = "incidents"

    incident_id: Mapped[str] = mapped_column(primary_key=True)
    type: Mapped[str]
    detected_at: Mapped[datetime] = mapped_column(index=True)
    resolved_at: Mapped[datetime | None]
    status: Mapped[str] = mapped_column(words("status", *(status.value for status in Status)), index=True)
    metrics_snapshot: Mapped[dict[str, Any]]
    mttr_seconds: Mapped[float | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    subject: Mapped[str]
    cause: Mapped[str]
    outcome: Mapped[str]
    phase: Mapped[str]
    step: Mapped[str]
    """Which of the seven steps was the newest, and what it said."""
    text: Mapped[str]
    seq: Mapped[int]
    """Place of the newest step in the hash chain of incident-log."""


class HealingAction(Base):
    """One proposed action, what was allowed of it and what became of it."""

    __tablename__ = "healing_actions"

    action_id: Mapped[str] = mapped_column(primary_key=True)
    incident_id: Mapped[str] = mapped_column(ForeignKey("incidents.incident_id"), index=True)
    proposed_action: Mapped[dict[str, Any]]
    agl_decision: Mapped[str | None] = mapped_column(words("agl_decision", *AGL_DECISIONS))
    """Empty while a person is asked."""
    approved_action: Mapped[dict[str, Any] | None]
    executed_at: Mapped[datetime | None]
    result: Mapped[str | None] = mapped_column(words("result", *RESULTS))
    """SUCCESS only if done and verified; empty while it is open."""
    created_at: Mapped[datetime] = mapped_column(index=True)
    updated_at: Mapped[datetime]
    kind: Mapped[str]
    target: Mapped[str]
    rung: Mapped[int]
    is_undo: Mapped[bool]
    decided_by: Mapped[str]
    policies: Mapped[list[str]]
    policy_reason: Mapped[str]
    plan: Mapped[dict[str, Any] | None]
    """The data of the newest planning, approval and verification step that named this action."""
    verdict: Mapped[dict[str, Any] | None]
    proof: Mapped[dict[str, Any] | None]


class ConfigRow(Base):
    """One change of the live config that applied: the rows are the history of what was live when."""

    __tablename__ = "config_history"

    config_id: Mapped[str] = mapped_column(primary_key=True)
    changed_by: Mapped[str]
    changes: Mapped[dict[str, Any]]
    reason: Mapped[str]
    incident_id: Mapped[str | None] = mapped_column(index=True)
    """No foreign key: the change may be read before the incident that it belongs to."""
    created_at: Mapped[datetime] = mapped_column(index=True)
    base_version: Mapped[int]
    version: Mapped[int]
    action_id: Mapped[str | None]
    approval: Mapped[str | None]
    forced: Mapped[bool]


class MemoryChunk(Base):
    """What is remembered of one ended incident."""

    __tablename__ = "memory_chunks"

    memory_id: Mapped[str] = mapped_column(primary_key=True)
    incident_type: Mapped[str] = mapped_column(index=True)
    incident_summary: Mapped[str]
    action_taken: Mapped[str]
    outcome: Mapped[str]
    metrics_before: Mapped[dict[str, Any]]
    metrics_after: Mapped[dict[str, Any]]
    mttr_seconds: Mapped[float | None]
    created_at: Mapped[datetime] = mapped_column(index=True)
    incident_id: Mapped[str] = mapped_column(ForeignKey("incidents.incident_id"), index=True)
    cause: Mapped[str]
    features: Mapped[dict[str, Any]]
    """The incident's signature: what similarity is measured on."""


class RecorderPosition(Base):
    """How far one stream is applied; changed in the same transaction as the rows."""

    __tablename__ = "recorder_positions"

    stream: Mapped[str] = mapped_column(primary_key=True)
    incarnation: Mapped[str]
    position: Mapped[int]
    seq: Mapped[int]
    """incident-log: how many records of the chain are applied, and the hash of the last one."""
    hash: Mapped[str]
    live_config: Mapped[dict[str, Any]]
    """config-updates: the fold so far."""
