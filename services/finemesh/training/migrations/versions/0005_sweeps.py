"""Sweeps with their trials, and the step at which a job pauses."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from finemesh.chassis.sql import UtcDateTime

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "training_jobs", sa.Column("pause_at_step", sa.BigInteger, nullable=False, server_default="0")
    )
    _create_sweeps()
    op.create_table(
        "sweep_trials",
        sa.Column("project", sa.String(63), primary_key=True),
        sa.Column("sweep_id", sa.String(63), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("assignment", sa.JSON, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("rung", sa.Integer, nullable=False),
        sa.Column("measured", sa.JSON, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.ForeignKeyConstraint(["project", "sweep_id"], ["sweeps.project", "sweeps.id"], ondelete="CASCADE"),
    )


def _create_sweeps() -> None:
    op.create_table(
        "sweeps",
        sa.Column("project", sa.String(63), primary_key=True),
        sa.Column("id", sa.String(63), primary_key=True),
        sa.Column("name", sa.String(512), nullable=False, unique=True),
        sa.Column("display_name", sa.String(200), nullable=False),
        sa.Column("labels", sa.JSON, nullable=False),
        sa.Column("asked", sa.JSON, nullable=False),
        sa.Column("metric", sa.String(200), nullable=False),
        sa.Column("goal", sa.String(16), nullable=False),
        sa.Column("rungs", sa.JSON, nullable=False),
        sa.Column("max_steps", sa.BigInteger, nullable=False),
        sa.Column("max_parallel", sa.Integer, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("max_restarts", sa.Integer, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("best", sa.Integer, nullable=False),
        sa.Column("fraction", sa.Float, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("error", sa.JSON(none_as_null=True)),
        sa.Column("create_time", UtcDateTime, nullable=False),
        sa.Column("end_time", UtcDateTime),
        sa.Column("update_time", UtcDateTime, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("traceparent", sa.String(64), nullable=False),
    )
    op.create_index("ix_sweeps_project_create", "sweeps", ["project", "create_time"])
    op.create_index("ix_sweeps_state", "sweeps", ["state"])
