"""What Tracking reads from its environment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from finemesh.chassis.service import ServiceConfig
from finemesh.tracking.summarizer import DEFAULT_INTERVAL_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackingConfig(ServiceConfig):
    """`FINEMESH_…` by field name.

    Attributes:
        data_dir: folder of this service alone; the points are in `points.duckdb` in it.
        points_memory_bytes: limit of DuckDB's memory.
        points_threads: threads of DuckDB.
        summary_interval_seconds: how long summaries may lag behind points while nobody asks for them.
        segment_interval_seconds: how often what was logged goes to the object store, as segments of which
            the points can be rebuilt.
        points_retention_days: how long after its end the points of a run are kept; what summarises them
            stays. 0: for ever.
        sql_timeout_seconds: for a query of SQL, from its start to its end.
        sql_cpu_seconds: for a query of SQL, of processor time.
        sql_memory_bytes: for the rows and the work of a query of SQL; two run at once.
    """

    data_dir: Path
    points_memory_bytes: int = 256 << 20
    points_threads: int = 2
    summary_interval_seconds: float = DEFAULT_INTERVAL_SECONDS
    sql_timeout_seconds: float = 60.0
    sql_cpu_seconds: int = 20
    sql_memory_bytes: int = 512 << 20
    segment_interval_seconds: float = 30.0
    points_retention_days: float = 0.0
