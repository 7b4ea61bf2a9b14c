"""Datasets, validation reports, uploads."""

import sqlalchemy as sa
from alembic import op

from finemesh.chassis.migrations import create_chassis_tables_v1
from finemesh.chassis.sql import UtcDateTime

revision = "0001"
down_revision = None


def _life() -> list[sa.Column[object]]:
    return [
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("fraction", sa.Float, nullable=False),
        sa.Column("message", sa.String(512), nullable=False),
        sa.Column("report_time", UtcDateTime),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("error", sa.JSON),
        sa.Column("create_time", UtcDateTime, nullable=False),
        sa.Column("update_time", UtcDateTime, nullable=False),
        sa.Column("start_time", UtcDateTime),
        sa.Column("end_time", UtcDateTime),
        sa.Column("revision", sa.Integer, nullable=False),
    ]


def upgrade() -> None:
    create_chassis_tables_v1(op)  # pyright: ignore[reportArgumentType]  alembic.op is the module form of Operations
    op.create_table(
        "datasets",
        sa.Column("project", sa.String(63), primary_key=True),
        sa.Column("id", sa.String(63), primary_key=True),
        sa.Column("display_name", sa.String(256), nullable=False),
        sa.Column("labels", sa.JSON, nullable=False),
        sa.Column("origin_case", sa.String(16), nullable=False),
        sa.Column("origin", sa.JSON, nullable=False),
        sa.Column("format", sa.String(32), nullable=False),
        sa.Column("summary", sa.JSON),
        *_life(),
    )
    op.create_index("ix_datasets_project_create_time", "datasets", ["project", "create_time"])
    op.create_table(
        "validation_reports",
        sa.Column("project", sa.String(63), primary_key=True),
        sa.Column("dataset", sa.String(63), primary_key=True),
        sa.Column("id", sa.String(63), primary_key=True),
        sa.Column("options", sa.JSON, nullable=False),
        sa.Column("result", sa.JSON),
        *_life(),
    )
    op.create_table(
        "uploads",
        sa.Column("project", sa.String(63), primary_key=True),
        sa.Column("id", sa.String(63), primary_key=True),
        sa.Column("filename", sa.String(512), nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("create_time", UtcDateTime, nullable=False),
        sa.Column("expire_time", UtcDateTime, nullable=False),
    )
