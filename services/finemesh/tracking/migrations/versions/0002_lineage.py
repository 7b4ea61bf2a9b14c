"""What runs are made of and how people group them; their artifacts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from finemesh.chassis.sql import UtcDateTime

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    for name in ("tags", "lineage"):
        op.add_column("runs", sa.Column(name, sa.JSON, nullable=False, server_default="{}"))
    for name in ("notes", "experiment", "parent_run"):
        op.add_column("runs", sa.Column(name, sa.String, nullable=False, server_default=""))
    op.add_column("runs", sa.Column("start_time", UtcDateTime))
    op.create_table(
        "artifacts",
        sa.Column("run", sa.String(256), sa.ForeignKey("runs.name", ondelete="CASCADE"), primary_key=True),
        sa.Column("path", sa.String(512), primary_key=True),
        sa.Column("project", sa.String(63), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("media_type", sa.String(256), nullable=False),
        sa.Column("step", sa.BigInteger),
        sa.Column("create_time", UtcDateTime, nullable=False),
    )
    op.create_index("ix_artifacts_project_sha256", "artifacts", ["project", "sha256"])
