"""What operators want of nodes, and the logs of attempts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from finemesh.chassis.sql import UtcDateTime

revision = "0007"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "node_drains",
        sa.Column("cluster", sa.String(63), primary_key=True),
        sa.Column("node", sa.String(128), primary_key=True),
        sa.Column("leaves_work", sa.Boolean, nullable=False),
        sa.Column("create_time", UtcDateTime, nullable=False),
    )
    op.create_table(
        "local_pools",
        sa.Column("cluster", sa.String(63), primary_key=True),
        sa.Column("nodes", sa.Integer, nullable=False),
        sa.Column("cpus", sa.Float, nullable=False),
        sa.Column("memory_bytes", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "log_segments",
        sa.Column("project", sa.String(63), primary_key=True),
        sa.Column("job_id", sa.String(63), primary_key=True),
        sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("begin", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("end", sa.BigInteger, nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.Column("create_time", UtcDateTime, nullable=False),
        sa.ForeignKeyConstraint(
            ["project", "job_id"], ["training_jobs.project", "training_jobs.id"], ondelete="CASCADE"
        ),
    )
