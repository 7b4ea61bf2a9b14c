"""Evaluations of items; alert rules, how far each has looked, and what it has fired."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from finemesh.chassis.sql import UtcDateTime

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    _evaluations()
    _alerts()


def _evaluations() -> None:
    op.create_table(
        "evaluations",
        sa.Column("name", sa.String(320), primary_key=True),
        sa.Column("run", sa.String(256), sa.ForeignKey("runs.name", ondelete="CASCADE"), nullable=False),
        sa.Column("split", sa.String(32), nullable=False),
        sa.Column("variant", sa.String(32), nullable=False),
        sa.Column("step", sa.BigInteger, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("dataset", sa.String(512), nullable=False),
        sa.Column("dataset_digest", sa.String(512), nullable=False),
        sa.Column("metrics", sa.JSON, nullable=False),
        sa.Column("item_count", sa.Integer, nullable=False),
        sa.Column("items_sha256", sa.String(64), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("object_key", sa.String(1024), nullable=False),
        sa.Column("create_time", UtcDateTime, nullable=False),
    )
    op.create_index("ix_evaluations_run", "evaluations", ["run", "split", "variant", "step"])


def _alerts() -> None:
    op.create_table(
        "alert_rules",
        sa.Column("name", sa.String(256), primary_key=True),
        sa.Column("project", sa.String(63), nullable=False, index=True),
        sa.Column("display_name", sa.String, nullable=False),
        sa.Column("run", sa.String(256), nullable=False),
        sa.Column("metric", sa.String(256), nullable=False),
        sa.Column("condition", sa.JSON, nullable=False),
        sa.Column("create_time", UtcDateTime, nullable=False),
    )
    op.create_table(
        "alert_states",
        sa.Column(
            "rule", sa.String(256), sa.ForeignKey("alert_rules.name", ondelete="CASCADE"), primary_key=True
        ),
        sa.Column("run", sa.String(256), sa.ForeignKey("runs.name", ondelete="CASCADE"), primary_key=True),
        sa.Column("metric", sa.String(256), primary_key=True),
        sa.Column("state", sa.JSON, nullable=False),
        sa.Column("alert", sa.String(256), nullable=False),
    )
    op.create_table(
        "alerts",
        sa.Column("name", sa.String(256), primary_key=True),
        sa.Column("project", sa.String(63), nullable=False),
        sa.Column("rule", sa.String(256), nullable=False),
        sa.Column("run", sa.String(256), sa.ForeignKey("runs.name", ondelete="CASCADE"), nullable=False),
        sa.Column("metric", sa.String(256), nullable=False),
        sa.Column("step", sa.BigInteger, nullable=False),
        sa.Column("value", sa.Float),
        sa.Column("message", sa.String, nullable=False),
        sa.Column("open", sa.Boolean, nullable=False),
        sa.Column("fire_time", UtcDateTime, nullable=False),
        sa.Column("clear_time", UtcDateTime),
    )
    op.create_index("ix_alerts_project_fire_time", "alerts", ["project", "fire_time"])
