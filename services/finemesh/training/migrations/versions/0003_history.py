"""The history of jobs, and what their pauses, their limits of time and the estimate of their end need."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from finemesh.chassis.sql import UtcDateTime

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for column in (
        sa.Column("max_run_seconds", sa.Float, nullable=False, server_default="0"),
        sa.Column("history_size", sa.Integer, nullable=False, server_default="0"),
        sa.Column("state_time", UtcDateTime),
        sa.Column("run_seconds", sa.Float, nullable=False, server_default="0"),
        sa.Column("following", sa.String(16), nullable=False, server_default="CONTINUE"),
        sa.Column("pace", sa.JSON),
    ):
        op.add_column("training_jobs", column)
    op.create_table(
        "training_job_history",
        sa.Column("project", sa.String(63), primary_key=True),
        sa.Column("job_id", sa.String(63), primary_key=True),
        sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("time", UtcDateTime, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("from_state", sa.String(16)),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("step", sa.BigInteger, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("error", sa.JSON),
        sa.Column("actor", sa.String(512), nullable=False),
        sa.ForeignKeyConstraint(
            ["project", "job_id"], ["training_jobs.project", "training_jobs.id"], ondelete="CASCADE"
        ),
    )
