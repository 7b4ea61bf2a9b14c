"""Runs and summaries, and the tables of the chassis."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from finemesh.chassis.migrations import create_chassis_tables_v1
from finemesh.chassis.sql import UtcDateTime

revision = "0001"
down_revision = None


def upgrade() -> None:
    create_chassis_tables_v1(op)  # pyright: ignore[reportArgumentType]  the module stands in for its Operations
    op.create_table(
        "runs",
        sa.Column("name", sa.String(256), primary_key=True),
        sa.Column("project", sa.String(63), nullable=False),
        sa.Column("display_name", sa.String, nullable=False),
        sa.Column("labels", sa.JSON, nullable=False),
        sa.Column("training_job", sa.String(256), nullable=False),
        sa.Column("spec", sa.LargeBinary, nullable=False),
        sa.Column("params", sa.JSON, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("fence", sa.BigInteger, nullable=False),
        sa.Column("summarized", sa.JSON, nullable=False),
        sa.Column("create_time", UtcDateTime, nullable=False),
        sa.Column("end_time", UtcDateTime),
        sa.Column("update_time", UtcDateTime, nullable=False),
    )
    op.create_index("ix_runs_project_create_time", "runs", ["project", "create_time"])
    op.create_table(
        "summaries",
        sa.Column("run", sa.String(256), sa.ForeignKey("runs.name", ondelete="CASCADE"), primary_key=True),
        sa.Column("key", sa.String(256), primary_key=True),
        sa.Column("last_value", sa.Float),
        sa.Column("last_step", sa.BigInteger, nullable=False),
        sa.Column("best_value", sa.Float),
        sa.Column("best_step", sa.BigInteger, nullable=False),
        sa.Column("point_count", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "deleted_runs",
        sa.Column("name", sa.String(256), primary_key=True),
        sa.Column("delete_time", UtcDateTime, nullable=False),
    )
