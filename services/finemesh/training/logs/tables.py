"""The segments of logs, as the newest migration leaves the table."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, ForeignKeyConstraint, Integer, LargeBinary, String, Table

from finemesh.chassis.sql import UtcDateTime
from finemesh.training.tables import METADATA

# Segments of one attempt do not overlap; gaps are what was dropped.
SEGMENTS: Final = Table(
    "log_segments",
    METADATA,
    Column("project", String(63), primary_key=True),
    Column("job_id", String(63), primary_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("begin", BigInteger, primary_key=True, autoincrement=False),
    Column("end", BigInteger, nullable=False),
    Column("content", LargeBinary, nullable=False),
    Column("create_time", UtcDateTime, nullable=False),
    ForeignKeyConstraint(
        ["project", "job_id"], ["training_jobs.project", "training_jobs.id"], ondelete="CASCADE"
    ),
)
