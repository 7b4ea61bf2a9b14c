"""The tables of the Export service, as its newest migration leaves them."""

from __future__ import annotations

from typing import Final

from sqlalchemy import JSON, BigInteger, Column, Float, Index, Integer, MetaData, String, Table, Text

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
    Index("ix_exports_project_create", "project", "create_time"),
)
