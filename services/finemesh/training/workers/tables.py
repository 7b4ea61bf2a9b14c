"""What operators want of nodes, as the newest migration leaves the tables."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, Float, Integer, String, Table

from finemesh.chassis.sql import UtcDateTime
from finemesh.training.tables import METADATA

# Nodes that are drained. A node that is gone never comes back under its id, and its row goes with it.
DRAINS: Final = Table(
    "node_drains",
    METADATA,
    Column("cluster", String(63), primary_key=True),
    Column("node", String(128), primary_key=True),
    Column("leaves_work", Boolean, nullable=False),
    Column("create_time", UtcDateTime, nullable=False),
)

# What the local pools should be.
POOLS: Final = Table(
    "local_pools",
    METADATA,
    Column("cluster", String(63), primary_key=True),
    Column("nodes", Integer, nullable=False),
    Column("cpus", Float, nullable=False),
    Column("memory_bytes", BigInteger, nullable=False),
)
