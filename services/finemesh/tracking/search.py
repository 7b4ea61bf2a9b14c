"""What lists of runs may be filtered and ordered by. docs/reference/run-filters.md tells users."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Column, ColumnElement, Float, Table, case, cast, select

from finemesh.chassis.filtering import Field, Keyed, Kind
from finemesh.chassis.paging import Listing
from finemesh.tracking.domain import RunState

# How a number is written as a parameter; SQLite calls back into Python for it, PostgreSQL does not.
_NUMBER: Final = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_STATISTICS: Final = {
    "last": "last_value",
    "best": "best_value",
    "min": "min_value",
    "max": "max_value",
    "last_step": "last_step",
    "best_step": "best_step",
    "count": "point_count",
}


def listing(runs: Table, summaries: Table) -> Listing:
    """How runs are listed; newest first unless a request says otherwise."""
    texts = ("name", "display_name", "training_job", "experiment", "parent_run")
    return Listing(
        {
            **{name: Field(runs.c[name]) for name in texts},
            "state": Field(runs.c.state, Kind.ENUM, tuple(RunState)),
            "create_time": Field(runs.c.create_time, Kind.TIME),
            "update_time": Field(runs.c.update_time, Kind.TIME),
            "tags": Field(runs.c.tags, Kind.LABELS),
            "labels": Field(runs.c.labels, Kind.LABELS),
            "params": Keyed(_params(runs), orders=(True, False)),
            "metrics": Keyed(_metrics(runs, summaries)),
        }
    )


def _params(runs: Table) -> Any:
    def resolve(parts: Sequence[str], number: bool) -> Field:
        if not parts:
            raise ValueError('write params and the name of one, e.g. params.method or params."lora.rank"')
        key = ".".join(parts)
        if '"' in key:  # which SQLite's paths into JSON cannot write
            raise ValueError("a parameter with a quotation mark in its name cannot be searched for")
        text = runs.c.params[key].as_string()
        if not number:
            return Field(text)
        return Field(case((text.regexp_match(_NUMBER), cast(text, Float))), Kind.NUMBER)

    return resolve


def _metrics(runs: Table, summaries: Table) -> Any:
    def resolve(parts: Sequence[str], _number: bool) -> Field:
        if not parts:
            raise ValueError(f'write metrics."name" and one of {", ".join(_STATISTICS)}, or none for last')
        named = len(parts) > 1 and parts[-1] in _STATISTICS
        key = ".".join(parts[:-1] if named else parts)
        statistic = _STATISTICS[parts[-1] if named else "last"]

        def of(column: Column[Any]) -> ColumnElement[Any]:
            found = select(column).where(summaries.c.run == runs.c.name, summaries.c.key == key)
            return found.correlate(runs).scalar_subquery()

        return Field(
            of(summaries.c[statistic]),
            Kind.NUMBER,
            is_set=of(summaries.c.point_count).is_not(None),
            null_is_nan=statistic == "last_value",
        )

    return resolve
