"""`QuerySql`: SQL over the rows of a project's runs, in a process that holds nothing else."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final, Protocol

import numpy as np
import pyarrow as pa

from finemesh.chassis.auth import Principal, Role
from finemesh.core.errors import InvalidError, ResourceExhaustedError
from finemesh.core.names import Name
from finemesh.tracking.domain import resolve
from finemesh.tracking.point_reads import MAX_READ_POINTS, Snapshot
from finemesh.tracking.ports import PointReader
from finemesh.tracking.sql_process import SqlLimits, SqlProcesses
from finemesh.tracking.sql_views import POINTS, TABLES, VIEWS, named
from finemesh.tracking.summarizer import Summarizer

MAX_QUERY_LENGTH: Final = 20_000
DEFAULT_ROWS: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SqlQuery:
    """A query; `runs` and `keys` bound what it is given, empty means all; `max_rows` 0 means DEFAULT_ROWS."""

    text: str
    runs: Sequence[Name] = ()
    keys: Sequence[str] = ()
    max_rows: int = 0
    as_rows: bool = False

    def check(self, limits: SqlLimits) -> None:
        """Raises InvalidError naming the field."""
        if not self.text.strip():
            raise InvalidError.of("query", "is empty: write a SELECT over the views", reason="SQL_INVALID")
        if len(self.text) > MAX_QUERY_LENGTH:
            raise InvalidError.of(
                "query", f"has more than {MAX_QUERY_LENGTH} characters", reason="SQL_INVALID"
            )
        if not 0 <= self.max_rows <= limits.rows:
            raise InvalidError.of("max_rows", f"use 1 to {limits.rows}, or 0 for {DEFAULT_ROWS}")


@dataclass(frozen=True, slots=True)
class SqlPart:
    """A part of an answer: bytes of its Arrow stream, or, of an answer as rows, its columns or some rows."""

    arrow: bytes = b""
    columns: Sequence[tuple[str, str]] = ()
    rows: Sequence[Sequence[Any]] = field(default_factory=list[Sequence[Any]])


class RunRows(Protocol):
    """Rows of a project's runs, of all if `runs` is empty."""

    async def table(self, name: str, project: str, runs: Collection[str]) -> pa.Table: ...
    async def names(self, project: str, runs: Collection[str]) -> list[str]: ...


class SqlQueries:
    """Reads of the caller's project what a query names, and sends it to the query's process."""

    def __init__(
        self, rows: RunRows, points: PointReader, summarizer: Summarizer, limits: SqlLimits | None = None
    ) -> None:
        self._rows = rows
        self._points = points
        self._summarizer = summarizer
        self._limits = limits or SqlLimits()
        self._processes = SqlProcesses(self._limits)

    def close(self) -> None:
        self._processes.close()

    async def query(self, principal: Principal, project: str, query: SqlQuery) -> AsyncGenerator[SqlPart]:
        """The answer as it is found. Raises what `SqlProcesses.run` does, and SQL_TOO_MANY_POINTS."""
        principal.require_role(Role.VIEWER)
        principal.require_project(project)
        query.check(self._limits)
        needed = named(query.text)
        await self._summarizer.settle()
        wanted = [str(name) for name in query.runs]
        tables = {
            name: await self._rows.table(name, project, wanted) if name in needed else schema.empty_table()
            for name, schema in TABLES.items()
            if not name.startswith("internal.")
        }
        runs = await self._rows.names(project, wanted) if POINTS in needed else []
        order = {
            "query": query.text,
            "max_rows": query.max_rows or DEFAULT_ROWS,
            "as_rows": query.as_rows,
            "tables": list(TABLES),
            "views": dict(VIEWS),
        }

        def feed(stdin: BinaryIO) -> None:
            for table in tables.values():
                _write(stdin, table.schema, table.to_batches())
            self._feed_points(stdin, runs, query.keys)

        async for kind, payload in self._processes.run(order, feed):
            yield _part(kind, payload)

    def _feed_points(self, stdin: BinaryIO, runs: Sequence[str], keys: Sequence[str]) -> None:
        """Points, each step once as curves show it, and the names of their runs and metrics."""
        run_keys = {run: number for number, run in enumerate(runs)}
        metric_keys: dict[str, int] = {}
        _write_names(stdin, "internal.point_runs", run_keys)
        with self._points.snapshot() as snapshot:
            batches = _point_batches(snapshot, run_keys, keys or None, metric_keys)
            _write(stdin, TABLES["internal.points"], self._bounded(batches))
        _write_names(stdin, "internal.point_metrics", metric_keys)

    def _bounded(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        total = 0
        for batch in batches:
            total += len(batch)
            if total > self._limits.points:
                raise ResourceExhaustedError(
                    f"the query names `points`, and there are more than {self._limits.points}: say by `runs`"
                    " and `keys` of the request which it is about, or use `summaries`",
                    reason="SQL_TOO_MANY_POINTS",
                )
            yield batch


def _point_batches(
    snapshot: Snapshot, run_keys: Mapping[str, int], keys: Sequence[str] | None, metric_keys: dict[str, int]
) -> Iterator[pa.RecordBatch]:
    """A batch per run; metrics that are met get a number in `metric_keys`."""
    for group in _groups(snapshot.sizes(list(run_keys))):
        for run, curves in (snapshot.curves(group, keys) or {}).items():
            for key, curve in curves.items():
                whole = resolve(curve)
                metric_key = metric_keys.setdefault(key, len(metric_keys))
                columns = [
                    np.full(len(whole), run_keys[run], np.int32),
                    np.full(len(whole), metric_key, np.int32),
                    whole.steps,
                    whole.times_us,
                    whole.values,
                    whole.attempts,
                ]
                schema = TABLES["internal.points"]
                arrays = [pa.array(each, kind) for each, kind in zip(columns, schema.types, strict=True)]
                yield pa.record_batch(arrays, schema=schema)


def _groups(sizes: Mapping[str, int]) -> Iterator[list[str]]:
    """Runs that are read at once: together at most MAX_READ_POINTS, unless one alone has more."""
    group: list[str] = []
    total = 0
    for run, size in sizes.items():
        if group and total + size > MAX_READ_POINTS:
            yield group
            group, total = [], 0
        group.append(run)
        total += size
    if group:
        yield group


def _write(stdin: BinaryIO, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    with pa.ipc.new_stream(stdin, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def _write_names(stdin: BinaryIO, table: str, numbers: Mapping[str, int]) -> None:
    schema = TABLES[table]
    columns = [pa.array(list(numbers.values()), pa.int32()), pa.array(list(numbers), pa.string())]
    _write(stdin, schema, [pa.record_batch(columns, schema=schema)])


def _part(kind: bytes, payload: bytes) -> SqlPart:
    match kind:
        case b"A":
            return SqlPart(arrow=payload)
        case b"C":
            return SqlPart(columns=[(each["name"], each["type"]) for each in json.loads(payload)])
        case _:
            return SqlPart(rows=json.loads(payload))
