"""The four tables of the brief and the recorder's positions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from mendstream.adapters.store import columns

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "incidents",
        sa.Column("incident_id", sa.String(), nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("detected_at", columns.UtcDateTime(), nullable=False),
        sa.Column("resolved_at", columns.UtcDateTime()),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("metrics_snapshot", columns.Json(), nullable=False),
        sa.Column("mttr_seconds", sa.Double()),
        sa.Column("created_at", columns.UtcDateTime(), nullable=False),
        sa.Column("updated_at", columns.UtcDateTime(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("cause", sa.String(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("phase", sa.String(), nullable=False),
        sa.Column("step", sa.String(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("incident_id", name="pk_incidents"),
    )
    op.create_index("ix_incidents_detected_at", "incidents", ["detected_at"])
    op.create_index("ix_incidents_status", "incidents", ["status"])

    op.create_table(
        "healing_actions",
        sa.Column("action_id", sa.String(), nullable=False),
        sa.Column("incident_id", sa.String(), nullable=False),
        sa.Column("proposed_action", columns.Json(), nullable=False),
        sa.Column("agl_decision", sa.String(32)),
        sa.Column("approved_action", columns.Json()),
        sa.Column("executed_at", columns.UtcDateTime()),
        sa.Column("result", sa.String(32)),
        sa.Column("created_at", columns.UtcDateTime(), nullable=False),
        sa.Column("updated_at", columns.UtcDateTime(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("target", sa.String(), nullable=False),
        sa.Column("rung", sa.BigInteger(), nullable=False),
        sa.Column("is_undo", sa.Boolean(), nullable=False),
        sa.Column("decided_by", sa.String(), nullable=False),
        sa.Column("policies", columns.Json(), nullable=False),
        sa.Column("policy_reason", sa.String(), nullable=False),
        sa.Column("plan", columns.Json()),
        sa.Column("verdict", columns.Json()),
        sa.Column("proof", columns.Json()),
        sa.PrimaryKeyConstraint("action_id", name="pk_healing_actions"),
        sa.ForeignKeyConstraint(
            ["incident_id"], ["incidents.incident_id"], name="fk_healing_actions_incident_id_incidents"
        ),
    )
    op.create_index("ix_healing_actions_created_at", "healing_actions", ["created_at"])
    op.create_index("ix_healing_actions_incident_id", "healing_actions", ["incident_id"])

    op.create_table(
        "config_history",
        sa.Column("config_id", sa.String(), nullable=False),
        sa.Column("changed_by", sa.String(), nullable=False),
        sa.Column("changes", columns.Json(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("incident_id", sa.String()),
        sa.Column("created_at", columns.UtcDateTime(), nullable=False),
        sa.Column("base_version", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("action_id", sa.String()),
        sa.Column("approval", sa.String()),
        sa.Column("forced", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("config_id", name="pk_config_history"),
    )
    op.create_index("ix_config_history_created_at", "config_history", ["created_at"])
    op.create_index("ix_config_history_incident_id", "config_history", ["incident_id"])

    op.create_table(
        "memory_chunks",
        sa.Column("memory_id", sa.String(), nullable=False),
        sa.Column("incident_type", sa.String(), nullable=False),
        sa.Column("incident_summary", sa.String(), nullable=False),
        sa.Column("action_taken", sa.String(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("metrics_before", columns.Json(), nullable=False),
        sa.Column("metrics_after", columns.Json(), nullable=False),
        sa.Column("mttr_seconds", sa.Double()),
        sa.Column("created_at", columns.UtcDateTime(), nullable=False),
        sa.Column("incident_id", sa.String(), nullable=False),
        sa.Column("cause", sa.String(), nullable=False),
        sa.Column("features", columns.Json(), nullable=False),
        sa.PrimaryKeyConstraint("memory_id", name="pk_memory_chunks"),
        sa.ForeignKeyConstraint(
            ["incident_id"], ["incidents.incident_id"], name="fk_memory_chunks_incident_id_incidents"
        ),
    )
    op.create_index("ix_memory_chunks_created_at", "memory_chunks", ["created_at"])
    op.create_index("ix_memory_chunks_incident_id", "memory_chunks", ["incident_id"])
    op.create_index("ix_memory_chunks_incident_type", "memory_chunks", ["incident_type"])

    op.create_table(
        "recorder_positions",
        sa.Column("stream", sa.String(), nullable=False),
        sa.Column("incarnation", sa.String(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.String(), nullable=False),
        sa.Column("live_config", columns.Json(), nullable=False),
        sa.PrimaryKeyConstraint("stream", name="pk_recorder_positions"),
    )


def downgrade() -> None:
    for table in ("recorder_positions", "memory_chunks", "config_history", "healing_actions", "incidents"):
        op.drop_table(table)
