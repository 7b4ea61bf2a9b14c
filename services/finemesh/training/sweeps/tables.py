"""The tables of sweeps, as the newest migration leaves them."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Float,
    ForeignKeyConstraint,
    Index,
    Integer,
    String,
    Table,
    Text,
)

from finemesh.chassis.sql import UtcDateTime
from finemesh.training.tables import METADATA

SWEEPS: Final = Table(
    "sweeps",
    METADATA,
    Column("project", String(63), primary_key=True),
    Column("id", String(63), primary_key=True),
    Column("name", String(512), nullable=False, unique=True),
    Column("display_name", String(200), nullable=False),
    Column("labels", JSON, nullable=False),
    # As JSON of the contract: spec, parameters and strategy.
    Column("asked", JSON, nullable=False),
    Column("metric", String(200), nullable=False),
    Column("goal", String(16), nullable=False),
    # Steps and trials of each rung.
    Column("rungs", JSON, nullable=False),
    Column("max_steps", BigInteger, nullable=False),
    Column("max_parallel", Integer, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("max_restarts", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("best", Integer, nullable=False),
    Column("fraction", Float, nullable=False),
    Column("message", Text, nullable=False),
    Column("error", JSON(none_as_null=True)),
    Column("create_time", UtcDateTime, nullable=False),
    Column("end_time", UtcDateTime),
    Column("update_time", UtcDateTime, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("traceparent", String(64), nullable=False),
    Index("ix_sweeps_project_create", "project", "create_time"),
    Index("ix_sweeps_state", "state"),
)

TRIALS: Final = Table(
    "sweep_trials",
    METADATA,
    Column("project", String(63), primary_key=True),
    Column("sweep_id", String(63), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("assignment", JSON, nullable=False),
    Column("state", String(16), nullable=False),
    Column("rung", Integer, nullable=False),
    # Numbers as text: JSON has no NaN.
    Column("measured", JSON, nullable=False),
    Column("message", Text, nullable=False),
    ForeignKeyConstraint(["project", "sweep_id"], ["sweeps.project", "sweeps.id"], ondelete="CASCADE"),
)
