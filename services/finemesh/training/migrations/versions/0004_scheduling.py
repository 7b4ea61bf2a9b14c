"""What attempts are given, quotas of projects, and an index by which what has changed is found."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    allocations = op.create_table(
        "allocations",
        sa.Column("resource", sa.String(512), primary_key=True),
        sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("project", sa.String(63), nullable=False),
        sa.Column("workers", sa.Integer, nullable=False),
        sa.Column("cpus", sa.Float, nullable=False),
        sa.Column("gpus", sa.Float, nullable=False),
        sa.Column("memory_bytes", sa.BigInteger, nullable=False),
        sa.Column("nodes", sa.JSON, nullable=False),
        sa.Column("from_step", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_allocations_project", "allocations", ["project"])
    op.create_table(
        "quotas",
        sa.Column("project", sa.String(63), primary_key=True),
        sa.Column("weight", sa.Float, nullable=False),
        sa.Column("max_gpus", sa.Float),
        sa.Column("max_jobs", sa.Integer),
        sa.Column("max_gpu_hours", sa.Float),
        sa.Column("window_hours", sa.Float, nullable=False),
        sa.Column("update_time", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("ix_training_jobs_update", "training_jobs", ["update_time"])
    rows = [_allocation(*row) for row in op.get_bind().execute(sa.text(_ATTEMPTS))]
    if rows:
        op.bulk_insert(allocations, rows)


_ATTEMPTS = """
    SELECT attempts.resource, attempts.attempt, training_jobs.project, training_jobs.spec
    FROM attempts JOIN training_jobs ON training_jobs.name = attempts.resource
"""


def _allocation(resource: str, attempt: int, project: str, spec: Any) -> dict[str, Any]:
    held = (json.loads(spec) if isinstance(spec, str) else spec)["resources"]
    return {
        "resource": resource,
        "attempt": attempt,
        "project": project,
        "workers": held["workers"] or max(1, held["gpus"]),
        "cpus": held["cpus"],
        "gpus": held["gpus"],
        "memory_bytes": held["memory_bytes"],
        "nodes": {},
        "from_step": 0,
    }
