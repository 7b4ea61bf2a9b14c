"""The tables of the Export service, as its newest migration leaves them."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
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

EXPORTS: Final = Table(
    "exports",
    METADATA,
    Column("project", String(63), primary_key=True),
    Column("id", String(63), primary_key=True),
    Column("name", String(512), nullable=False, unique=True),
    Column("display_name", String(200), nullable=False),
    Column("labels", JSON, nullable=False),
    Column("training_job", String(512), nullable=False),
    Column("choice", String(16), nullable=False),
    Column("format", String(32), nullable=False),
    Column("source", JSON, nullable=False),
    Column("output_uri", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("parity", JSON(none_as_null=True)),
    Column("size_bytes", BigInteger, nullable=False),
    Column("manifest_sha256", String(64), nullable=False),
    Column("fraction", Float, nullable=False),
    Column("message", Text, nullable=False),
    Column("report_time", UtcDateTime),
    Column("attempt", Integer, nullable=False),
    Column("restarts", Integer, nullable=False),
    Column("error", JSON(none_as_null=True)),
    Column("create_time", UtcDateTime, nullable=False),
    Column("start_time", UtcDateTime),
    Column("end_time", UtcDateTime),
    Column("update_time", UtcDateTime, nullable=False),
    Column("revision", BigInteger, nullable=False),
    # Trace of the request that created it: what is done for the export later belongs there too.
    Column("traceparent", String(64), nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("group_id", String(63), nullable=False),
    Column("content_key", String(64), nullable=False),
    Column("waits_for", String(63), nullable=False),
    Column("made_by", String(512), nullable=False),
    Column("files", JSON(none_as_null=True)),
    Column("expire_time", UtcDateTime),
    Column("pinned", Boolean, nullable=False),
    Column("download_count", BigInteger, nullable=False),
    Column("link_count", BigInteger, nullable=False),
    Column("last_download_time", UtcDateTime),
    Index("ix_exports_project_create", "project", "create_time"),
    Index("ix_exports_project_content", "project", "content_key"),
    Index("ix_exports_state_waits", "state", "waits_for"),
    Index("ix_exports_output", "output_uri"),
)

# What lies on the object store and belongs to nobody any more: deleted once `due_time` has come.
GARBAGE: Final = Table(
    "garbage",
    METADATA,
    Column("uri", String(1024), primary_key=True),
    Column("due_time", UtcDateTime, primary_key=True),
)

RETENTIONS: Final = Table(
    "retentions",
    METADATA,
    Column("project", String(63), primary_key=True),
    Column("keep_last", Integer),
    Column("max_age_seconds", Float),
    Column("update_time", UtcDateTime, nullable=False),
)
