"""What a query of SQL may read: the tables that a query's process is given, and the views over them.

docs/reference/run-sql.md describes the columns. A table is filled when a name that needs it stands in the
query.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import pyarrow as pa

_TIME: Final = pa.timestamp("us", tz="UTC")
_RUN: Final = pa.field("run", pa.string())
_KEY: Final = pa.field("key", pa.string())

TABLES: Final[Mapping[str, pa.Schema]] = {
    "runs": pa.schema(
        [
            _RUN,
            *((name, pa.string()) for name in ("id", "display_name", "state", "training_job")),
            *((name, pa.string()) for name in ("experiment", "parent_run", "notes")),
            ("attempt", pa.int32()),
            *((name, _TIME) for name in ("create_time", "start_time", "end_time", "update_time")),
        ]
    ),
    "params": pa.schema([_RUN, ("name", pa.string()), ("value", pa.string())]),
    "labels": pa.schema([_RUN, ("name", pa.string()), ("value", pa.string())]),
    "tags": pa.schema([_RUN, ("tag", pa.string())]),
    "summaries": pa.schema(
        [
            _RUN,
            _KEY,
            ("goal", pa.string()),
            ("last_value", pa.float64()),
            ("last_step", pa.int64()),
            ("best_value", pa.float64()),
            ("best_step", pa.int64()),
            ("min_value", pa.float64()),
            ("max_value", pa.float64()),
            ("point_count", pa.int64()),
        ]
    ),
    "evaluations": pa.schema(
        [
            _RUN,
            *((name, pa.string()) for name in ("name", "split", "variant")),
            ("step", pa.int64()),
            ("attempt", pa.int32()),
            ("dataset", pa.string()),
            ("metrics", pa.list_(pa.string())),
            ("item_count", pa.int32()),
            ("create_time", _TIME),
        ]
    ),
    "artifacts": pa.schema(
        [
            _RUN,
            ("path", pa.string()),
            ("sha256", pa.string()),
            ("size_bytes", pa.int64()),
            ("media_type", pa.string()),
            ("step", pa.int64()),
            ("create_time", _TIME),
        ]
    ),
    # A name a point would be most of what is sent and held.
    "internal.point_runs": pa.schema([pa.field("run_key", pa.int32()), _RUN]),
    "internal.points": pa.schema(
        [
            pa.field("run_key", pa.int32()),
            ("metric_key", pa.int32()),
            ("step", pa.int64()),
            ("time", _TIME),
            ("value", pa.float64()),
            ("attempt", pa.int16()),
        ]
    ),
    "internal.point_metrics": pa.schema([pa.field("metric_key", pa.int32()), _KEY]),
}
VIEWS: Final[Mapping[str, str]] = {
    "metrics": "SELECT key, any_value(goal) AS goal, count(*) AS run_count, sum(point_count)::BIGINT AS"
    " point_count FROM summaries GROUP BY key",
    "points": "SELECT run, key, step, time, value, attempt FROM internal.points"
    " JOIN internal.point_runs USING (run_key) JOIN internal.point_metrics USING (metric_key)",
}
POINTS: Final = "points"
_NEEDED: Final[Mapping[str, str]] = {"metrics": "summaries"}


def named(query: str) -> frozenset[str]:
    """The tables that a query may need, and `points`: those whose names stand in it, wherever."""
    words = {word.lower() for word in re.findall(r"\w+", query)}
    needed = words | {table for view, table in _NEEDED.items() if view in words}
    return frozenset(needed & {*TABLES, POINTS})
