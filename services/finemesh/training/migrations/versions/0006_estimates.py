"""What jobs were estimated to take, and what they took."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from finemesh.chassis.sql import UtcDateTime

revision = "0006"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("training_jobs", sa.Column("estimate", sa.JSON(none_as_null=True)))
    op.add_column(
        "training_jobs", sa.Column("micro_batch_size", sa.Integer, nullable=False, server_default="0")
    )
    op.create_table(
        "measured_jobs",
        sa.Column("project", sa.String(63), primary_key=True),
        sa.Column("job_id", sa.String(63), primary_key=True),
        sa.Column("figure", sa.String(16), primary_key=True),
        *(sa.Column(name, sa.String(63), nullable=False) for name in ("family", "method", "hardware")),
        *(
            sa.Column(name, sa.Float, nullable=False)
            for name in ("forecast", "low", "likely", "high", "measured")
        ),
        sa.Column("end_time", UtcDateTime, nullable=False),
    )
    op.create_index(
        "ix_measured_jobs_alike", "measured_jobs", ["project", "family", "method", "hardware", "end_time"]
    )
