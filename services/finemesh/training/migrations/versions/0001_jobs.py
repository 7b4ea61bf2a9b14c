"""Jobs and checkpoints."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from alembic.operations import Operations

from finemesh.chassis.migrations import create_chassis_tables_v1
from finemesh.chassis.sql import UtcDateTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_chassis_tables_v1(Operations(op.get_context()))
    _create_jobs()
    _create_checkpoints()


def _create_jobs() -> None:
    op.create_table(
        "training_jobs",
        sa.Column("project", sa.String(63), primary_key=True),
        sa.Column("id", sa.String(63), primary_key=True),
        sa.Column("name", sa.String(512), nullable=False, unique=True),
        sa.Column("display_name", sa.String(200), nullable=False),
        sa.Column("labels", sa.JSON, nullable=False),
        sa.Column("spec", sa.JSON, nullable=False),
        sa.Column("run", sa.String(512), nullable=False),
        sa.Column("output_uri", sa.Text, nullable=False),
        sa.Column("dataset_uri", sa.Text, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("max_restarts", sa.Integer, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("fraction", sa.Float, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("report_time", UtcDateTime),
        sa.Column("step", sa.BigInteger, nullable=False),
        sa.Column("total_steps", sa.BigInteger, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("restarts", sa.Integer, nullable=False),
        sa.Column("not_before", UtcDateTime),
        sa.Column("worker", sa.JSON(none_as_null=True)),
        sa.Column("heartbeat_time", UtcDateTime),
        sa.Column("lease_expire_time", UtcDateTime),
        sa.Column("resume_certificates", sa.JSON, nullable=False),
        sa.Column("row_usage", sa.JSON, nullable=False),
        sa.Column("peak_memory_bytes", sa.BigInteger, nullable=False),
        sa.Column("error", sa.JSON(none_as_null=True)),
        sa.Column("create_time", UtcDateTime, nullable=False),
        sa.Column("start_time", UtcDateTime),
        sa.Column("end_time", UtcDateTime),
        sa.Column("update_time", UtcDateTime, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("traceparent", sa.String(64), nullable=False),
    )
    op.create_index("ix_training_jobs_project_create", "training_jobs", ["project", "create_time"])
    op.create_index("ix_training_jobs_state_priority", "training_jobs", ["state", "priority", "create_time"])


def _create_checkpoints() -> None:
    op.create_table(
        "checkpoints",
        sa.Column("project", sa.String(63), primary_key=True),
        sa.Column("job_id", sa.String(63), primary_key=True),
        sa.Column("step", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("uri", sa.Text, nullable=False),
        sa.Column("manifest_sha256", sa.String(64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("metrics", sa.JSON, nullable=False),
        sa.Column("sample_hash", sa.String(128), nullable=False),
        sa.Column("best", sa.Boolean, nullable=False),
        sa.Column("create_time", UtcDateTime, nullable=False),
        sa.Column("expired_by", sa.BigInteger),
        sa.ForeignKeyConstraint(
            ["project", "job_id"], ["training_jobs.project", "training_jobs.id"], ondelete="CASCADE"
        ),
    )


def downgrade() -> None:
    raise RuntimeError("schemas only move forward: restore a backup to go back")
