"""The rows of runs that a query of SQL is given, out of the service's database, as Arrow."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Collection, Iterator, Sequence
from typing import Any, Final

import pyarrow as pa
from sqlalchemy import Column, RowMapping, Select, Table, select

from finemesh.chassis.sql import Database
from finemesh.core.metrics import goal_of
from finemesh.core.names import parse_name
from finemesh.tracking.artifact_rows import ARTIFACTS
from finemesh.tracking.evaluation_rows import EVALUATIONS
from finemesh.tracking.sql_views import TABLES
from finemesh.tracking.store import RUNS, SUMMARIES

_PAGE_ROWS: Final = 500

Explode = Callable[[RowMapping], Iterator[tuple[Any, ...]]]


class SqlRows:
    """Reads through the project alone: what is not in it is never read."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def table(self, name: str, project: str, runs: Collection[str]) -> pa.Table:
        """A table of `sql_views.TABLES` with the rows of a project's runs, all if `runs` is empty.

        Raises UnavailableError.
        """
        query, explode = _SOURCES[name]
        parts = [
            await asyncio.to_thread(_arrow, TABLES[name], page, explode)
            async for page in self._pages(query, project, runs)
        ]
        return pa.concat_tables(parts) if parts else TABLES[name].empty_table()

    async def names(self, project: str, runs: Collection[str]) -> list[str]:
        """The runs of a project that there are, all if `runs` is empty."""
        pages = self._pages(select(RUNS.c.name), project, runs)
        return [row["name"] async for page in pages for row in page]

    async def _pages(
        self, query: Select[Any], project: str, runs: Collection[str]
    ) -> AsyncGenerator[Sequence[RowMapping]]:
        """All of one instant."""
        query = query.where(RUNS.c.project == project)
        if runs:
            query = query.where(RUNS.c.name.in_(sorted(runs)))
        async with self._db.read() as tx:
            found = (await tx.connection.stream(query)).mappings()
            async for page in found.partitions(_PAGE_ROWS):
                yield page


def _arrow(schema: pa.Schema, rows: Sequence[RowMapping], explode: Explode) -> pa.Table:
    found = [values for row in rows for values in explode(row)]
    columns = list(zip(*found, strict=True)) or [() for _ in schema]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def _run(row: RowMapping) -> Iterator[tuple[Any, ...]]:
    told = dict(row)
    name = told.pop("name")
    yield name, parse_name(name, "runs").id, *told.values()


def _entries(row: RowMapping) -> Iterator[tuple[str, str, str]]:
    name, entries = row.values()
    yield from ((name, key, value) for key, value in sorted(entries.items()))


def _tags(row: RowMapping) -> Iterator[tuple[str, str]]:
    yield from ((row["name"], tag) for tag in row["tags"])


def _summary(row: RowMapping) -> Iterator[tuple[Any, ...]]:
    run, key, last_value, *values = row.values()
    goal = goal_of(key)
    yield run, key, str(goal) if goal else None, math.nan if last_value is None else last_value, *values


def _same(row: RowMapping) -> Iterator[tuple[Any, ...]]:
    yield tuple(row.values())


def _columns(table: Table, *names: str) -> list[Column[Any]]:
    return [table.c[name] for name in names]


_SOURCES: Final[dict[str, tuple[Any, Explode]]] = {
    "runs": (select(RUNS.c.name, *_columns(RUNS, *TABLES["runs"].names[2:])), _run),
    "params": (select(RUNS.c.name, RUNS.c.params), _entries),
    "labels": (select(RUNS.c.name, RUNS.c.labels), _entries),
    "tags": (select(RUNS.c.name, RUNS.c.tags), _tags),
    "summaries": (
        select(SUMMARIES.c.run, SUMMARIES.c.key, *_columns(SUMMARIES, *TABLES["summaries"].names[3:])).join(
            RUNS
        ),
        _summary,
    ),
    "evaluations": (select(*_columns(EVALUATIONS, *TABLES["evaluations"].names)).join(RUNS), _same),
    "artifacts": (select(*_columns(ARTIFACTS, *TABLES["artifacts"].names)).join(RUNS), _same),
}
