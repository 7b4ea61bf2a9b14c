"""Which GPUs attempts hold."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from finemesh.chassis.sql import UtcDateTime

revision = "0008"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "gpu_leases",
        sa.Column("resource", sa.String(512), primary_key=True),
        sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("gpu", sa.String(128), primary_key=True),
        sa.Column("cluster", sa.String(63), nullable=False),
        sa.Column("node_id", sa.String(128), nullable=False),
        sa.Column("lease_time", UtcDateTime, nullable=False),
    )
