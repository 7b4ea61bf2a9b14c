"""What lists of runs may be filtered and ordered by. docs/reference/run-filters.md tells users."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Float, FromClause, Select, Table, and_, case, cast

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


class Search:
    """One search: its listing, and what its query is joined with once the listing has read the request."""

    def __init__(self, runs: Table, summaries: Table) -> None:
        self._runs = runs
        self._summaries = summaries
        self._joined: dict[str, FromClause] = {}
        texts = ("name", "display_name", "training_job", "experiment", "parent_run")
        self.listing = Listing(
            {
                **{name: Field(runs.c[name]) for name in texts},
                "state": Field(runs.c.state, Kind.ENUM, tuple(RunState)),
                "create_time": Field(runs.c.create_time, Kind.TIME),
                "update_time": Field(runs.c.update_time, Kind.TIME),
                "tags": Field(runs.c.tags, Kind.LABELS),
                "labels": Field(runs.c.labels, Kind.LABELS),
                "params": Keyed(self._param, orders=(True, False)),
                "metrics": Keyed(self._metric),
            }
        )

    def apply(self, query: Select[Any]) -> Select[Any]:
        """`query` of runs with the summaries that the request names: each metric is looked up once a run."""
        for key, table in self._joined.items():
            query = query.outerjoin(table, and_(table.c.run == self._runs.c.name, table.c.key == key))
        return query

    def _param(self, parts: Sequence[str], number: bool) -> Field:
        if not parts:
            raise ValueError('write params and the name of one, e.g. params.method or params."lora.rank"')
        key = ".".join(parts)
        if '"' in key:  # which SQLite's paths into JSON cannot write
            raise ValueError("a parameter with a quotation mark in its name cannot be searched for")
        text = self._runs.c.params[key].as_string()
        if not number:
            return Field(text)
        return Field(case((text.regexp_match(_NUMBER), cast(text, Float))), Kind.NUMBER)

    def _metric(self, parts: Sequence[str], _number: bool) -> Field:
        if not parts:
            raise ValueError(f'write metrics."name" and one of {", ".join(_STATISTICS)}, or none for last')
        named = len(parts) > 1 and parts[-1] in _STATISTICS
        key = ".".join(parts[:-1] if named else parts)
        statistic = _STATISTICS[parts[-1] if named else "last"]
        table = self._joined.setdefault(key, self._summaries.alias())
        return Field(
            table.c[statistic],
            Kind.NUMBER,
            is_set=table.c.run.is_not(None),
            null_is_nan=statistic == "last_value",
        )
