"""The tables that the chassis keeps in every service's database. The service's migrations create them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import JSON, BigInteger, Column, Index, Integer, LargeBinary, MetaData, String, Table

from finemesh.chassis.sql import UtcDateTime

# SQLite counts up only a column that is exactly INTEGER.
BIG_COUNTER: Final = BigInteger().with_variant(Integer, "sqlite")


@dataclass(frozen=True, slots=True)
class ChassisTables:
    outbox: Table
    outbox_lease: Table
    inbox: Table
    requests: Table
    attempts: Table
    clusters: Table


def chassis_tables(metadata: MetaData) -> ChassisTables:
    """The tables as they are today, added to `metadata`. Call once per MetaData."""
    return ChassisTables(
        outbox=_outbox(metadata),
        outbox_lease=Table(
            "outbox_lease",
            metadata,
            Column("id", Integer, primary_key=True, autoincrement=False),
            Column("owner", String(64), nullable=False),
            Column("expire_time", UtcDateTime, nullable=False),
        ),
        inbox=Table(
            "inbox",
            metadata,
            Column("consumer", String(128), primary_key=True),
            Column("event_id", String(128), primary_key=True),
            Column("create_time", UtcDateTime, nullable=False, index=True),
        ),
        requests=Table(
            "requests",
            metadata,
            Column("project", String(63), primary_key=True),
            Column("method", String(128), primary_key=True),
            Column("request_id", String(128), primary_key=True),
            Column("fingerprint", String(64), nullable=False),
            Column("resource", String(512), nullable=False),
            Column("create_time", UtcDateTime, nullable=False, index=True),
        ),
        attempts=_attempts(metadata),
        clusters=Table(
            "clusters",
            metadata,
            Column("id", String(63), primary_key=True),
            Column("capacity", JSON, nullable=False),
            Column("last_seen_time", UtcDateTime, nullable=False),
        ),
    )


def _outbox(metadata: MetaData) -> Table:
    table = Table(
        "outbox",
        metadata,
        Column("sequence", BIG_COUNTER, primary_key=True, autoincrement=True),
        Column("id", String(128), nullable=False, unique=True),
        Column("resource", String(512), nullable=False),
        Column("subject", String(512), nullable=False),
        Column("headers", JSON, nullable=False),
        Column("payload", LargeBinary, nullable=False),
        Column("create_time", UtcDateTime, nullable=False),
        Column("publish_time", UtcDateTime, index=True),
        sqlite_autoincrement=True,  # never reuse the sequence of a pruned row
    )
    unpublished = table.c.publish_time.is_(None)
    Index("ix_outbox_unpublished", table.c.sequence, sqlite_where=unpublished, postgresql_where=unpublished)
    return table


def _attempts(metadata: MetaData) -> Table:
    table = Table(
        "attempts",
        metadata,
        Column("resource", String(512), primary_key=True),
        Column("attempt", Integer, primary_key=True, autoincrement=False),
        Column("fence", BigInteger, nullable=False),
        Column("cluster", String(63), nullable=False, index=True),
        Column("state", String(16), nullable=False),
        Column("directive", String(16), nullable=False),
        Column("directive_time", UtcDateTime, nullable=False),
        Column("command", LargeBinary, nullable=False),
        # When it is lost unless renewed; while WAITING, when its command is due.
        Column("lease_expire_time", UtcDateTime, nullable=False),
        Column("create_time", UtcDateTime, nullable=False),
        Column("start_time", UtcDateTime),
        Column("end_time", UtcDateTime),
        Column("outcome", String(16)),
        Column("error", JSON),
    )
    live = table.c.state != "ENDED"
    # The database itself refuses a second live attempt at a resource.
    Index("uq_attempts_live", table.c.resource, unique=True, sqlite_where=live, postgresql_where=live)
    Index("ix_attempts_due", table.c.lease_expire_time, sqlite_where=live, postgresql_where=live)
    return table
