"""The tables of the Training service, as its newest migration leaves them."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

from finemesh.chassis.sql import UtcDateTime
from finemesh.chassis.tables import chassis_tables

METADATA: Final = MetaData()
CHASSIS: Final = chassis_tables(METADATA)

JOBS: Final = Table(
    "training_jobs",
    METADATA,
    Column("project", String(63), primary_key=True),
    Column("id", String(63), primary_key=True),
    Column("name", String(512), nullable=False, unique=True),
    Column("display_name", String(200), nullable=False),
    Column("labels", JSON, nullable=False),
    Column("spec", JSON, nullable=False),
    Column("run", String(512), nullable=False),
    Column("output_uri", Text, nullable=False),
    Column("dataset_uri", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("max_restarts", Integer, nullable=False),
    Column("kill_after_step", BigInteger, nullable=False),
    Column("pause_at_step", BigInteger, nullable=False),
    Column("state", String(16), nullable=False),
    Column("fraction", Float, nullable=False),
    Column("message", Text, nullable=False),
    Column("report_time", UtcDateTime),
    Column("step", BigInteger, nullable=False),
    Column("total_steps", BigInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("restarts", Integer, nullable=False),
    Column("not_before", UtcDateTime),
    Column("worker", JSON(none_as_null=True)),
    Column("heartbeat_time", UtcDateTime),
    Column("lease_expire_time", UtcDateTime),
    Column("resume_certificates", JSON, nullable=False),
    Column("row_usage", JSON, nullable=False),
    Column("peak_memory_bytes", BigInteger, nullable=False),
    Column("estimate", JSON(none_as_null=True)),
    Column("micro_batch_size", Integer, nullable=False),
    Column("error", JSON(none_as_null=True)),
    Column("create_time", UtcDateTime, nullable=False),
    Column("start_time", UtcDateTime),
    Column("end_time", UtcDateTime),
    Column("update_time", UtcDateTime, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("max_run_seconds", Float, nullable=False),
    Column("history_size", Integer, nullable=False),
    Column("state_time", UtcDateTime),
    Column("run_seconds", Float, nullable=False),
    Column("following", String(16), nullable=False),
    Column("pace", JSON(none_as_null=True)),
    # Trace of the request that created it: what is done for the job later belongs there too.
    Column("traceparent", String(64), nullable=False),
    Index("ix_training_jobs_project_create", "project", "create_time"),
    Index("ix_training_jobs_state_priority", "state", "priority", "create_time"),
    Index("ix_training_jobs_update", "update_time"),
)

# What each attempt was given, by resource and number of the attempt; its times are those of the attempt. The
# rows outlive their jobs: they are what projects have used.
ALLOCATIONS: Final = Table(
    "allocations",
    METADATA,
    Column("resource", String(512), primary_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("project", String(63), nullable=False, index=True),
    Column("workers", Integer, nullable=False),
    Column("cpus", Float, nullable=False),
    Column("gpus", Float, nullable=False),
    Column("memory_bytes", BigInteger, nullable=False),
    # Node ids with the number of workers on each; empty where the cluster tells nothing of its nodes.
    Column("nodes", JSON, nullable=False),
    # The step that the attempt went on from.
    Column("from_step", BigInteger, nullable=False),
)

QUOTAS: Final = Table(
    "quotas",
    METADATA,
    Column("project", String(63), primary_key=True),
    Column("weight", Float, nullable=False),
    Column("max_gpus", Float),
    Column("max_jobs", Integer),
    Column("max_gpu_hours", Float),
    Column("window_hours", Float, nullable=False),
    Column("update_time", UtcDateTime, nullable=False),
)

# Rows are added in the transaction of what they tell of, and never changed.
HISTORY: Final = Table(
    "training_job_history",
    METADATA,
    Column("project", String(63), primary_key=True),
    Column("job_id", String(63), primary_key=True),
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("kind", String(16), nullable=False),
    Column("time", UtcDateTime, nullable=False),
    Column("state", String(16), nullable=False),
    Column("from_state", String(16)),
    Column("attempt", Integer, nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("message", Text, nullable=False),
    Column("error", JSON(none_as_null=True)),
    Column("actor", String(512), nullable=False),
    ForeignKeyConstraint(
        ["project", "job_id"], ["training_jobs.project", "training_jobs.id"], ondelete="CASCADE"
    ),
)

# What finished jobs took, beside what they were estimated to take. A row outlives its job.
MEASURED_JOBS: Final = Table(
    "measured_jobs",
    METADATA,
    Column("project", String(63), primary_key=True),
    Column("job_id", String(63), primary_key=True),
    Column("figure", String(16), primary_key=True),
    Column("family", String(63), nullable=False),
    Column("method", String(63), nullable=False),
    Column("hardware", String(63), nullable=False),
    Column("forecast", Float, nullable=False),
    Column("low", Float, nullable=False),
    Column("likely", Float, nullable=False),
    Column("high", Float, nullable=False),
    Column("measured", Float, nullable=False),
    Column("end_time", UtcDateTime, nullable=False),
    Index("ix_measured_jobs_alike", "project", "family", "method", "hardware", "end_time"),
)

CHECKPOINTS: Final = Table(
    "checkpoints",
    METADATA,
    Column("project", String(63), primary_key=True),
    Column("job_id", String(63), primary_key=True),
    Column("step", BigInteger, primary_key=True, autoincrement=False),
    Column("uri", Text, nullable=False),
    Column("manifest_sha256", String(64), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("metrics", JSON, nullable=False),
    Column("sample_hash", String(128), nullable=False),
    Column("loss_digest", String(128), nullable=False),
    Column("weights_sha256", String(64), nullable=False),
    Column("best", Boolean, nullable=False),
    Column("create_time", UtcDateTime, nullable=False),
    # The step whose commit let it go; null while it is kept. The row stays: a repeated commit gets the same
    # answer.
    Column("expired_by", BigInteger),
    ForeignKeyConstraint(
        ["project", "job_id"], ["training_jobs.project", "training_jobs.id"], ondelete="CASCADE"
    ),
)
