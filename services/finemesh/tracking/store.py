"""Runs and their summaries in SQL."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    ColumnElement,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    RowMapping,
    String,
    Table,
    bindparam,
    delete,
    insert,
    select,
    true,
    update,
)

from finemesh.chassis.auth import Principal
from finemesh.chassis.events import Event
from finemesh.chassis.inbox import Inbox
from finemesh.chassis.outbox import Outbox
from finemesh.chassis.requests import Requests
from finemesh.chassis.sql import Database, Tx, UtcDateTime
from finemesh.chassis.tables import chassis_tables
from finemesh.chassis.watch import Notifier
from finemesh.core.errors import AlreadyExistsError
from finemesh.core.names import Name, parse_name
from finemesh.core.requests import PageRequest, RequestKey
from finemesh.tracking import convert
from finemesh.tracking.access import not_found
from finemesh.tracking.compare import Comparison
from finemesh.tracking.domain import JobFact, Run, RunState, Summary
from finemesh.tracking.ports import Change
from finemesh.tracking.search import Search
from finemesh.tracking.summaries import new_best

METADATA: Final = MetaData()
CHASSIS: Final = chassis_tables(METADATA)
RUNS: Final = Table(
    "runs",
    METADATA,
    Column("name", String(256), primary_key=True),
    Column("project", String(63), nullable=False),
    Column("display_name", String, nullable=False),
    Column("labels", JSON, nullable=False),
    Column("training_job", String(256), nullable=False),
    Column("spec", LargeBinary, nullable=False),
    Column("params", JSON, nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("summarized", JSON, nullable=False),
    Column("create_time", UtcDateTime, nullable=False),
    Column("end_time", UtcDateTime),
    Column("update_time", UtcDateTime, nullable=False),
    Column("tags", JSON, nullable=False),  # an object of them, which filters look into as into labels
    Column("lineage", JSON, nullable=False),
    Column("notes", String, nullable=False),
    Column("experiment", String, nullable=False),
    Column("parent_run", String, nullable=False),
    Column("start_time", UtcDateTime),
    # Searches look at every run of a project, and rows are long: what they need first is in the index.
    Index("ix_runs_project_create_time_name", "project", "create_time", "name"),
)
SUMMARIES: Final = Table(
    "summaries",
    METADATA,
    Column("run", ForeignKey(RUNS.c.name, ondelete="CASCADE"), primary_key=True),
    Column("key", String(256), primary_key=True),
    Column("last_value", Float),  # NULL is NaN, which SQLite cannot store
    Column("last_step", BigInteger, nullable=False),
    Column("best_value", Float),
    Column("best_step", BigInteger, nullable=False),
    Column("point_count", BigInteger, nullable=False),
    Column("min_value", Float),
    Column("max_value", Float),
    Index("ix_summaries_search", "key", "run", "last_value", "best_value", "min_value", "max_value"),
)
DELETED: Final = Table(
    "deleted_runs",
    METADATA,
    Column("name", String(256), primary_key=True),
    Column("delete_time", UtcDateTime, nullable=False),
)
CONSUMER: Final = "tracking"


class SqlRunStore:
    """`ports.RunStore` on the service's database; changes announce themselves to `notifier` by name."""

    def __init__(self, db: Database, outbox: Outbox, notifier: Notifier) -> None:
        self._db = db
        self._outbox = outbox
        self._clock = outbox.clock
        self._inbox = Inbox(CHASSIS, outbox.clock)
        self._requests = Requests(CHASSIS, outbox.clock)
        self._notifier = notifier

    async def create(self, principal: Principal, run: Run, key: RequestKey | None) -> Run:
        """Store a new run, or return the one of the same request. Raises AlreadyExistsError."""
        async with self._db.begin() as tx:
            existing = await self._requests.claim(tx, key, str(run.name))
            if existing is not None:
                return await self._require(tx, parse_name(existing, "runs"), principal)
            if not await tx.insert_new(RUNS, name=str(run.name), **_row(run)):
                raise AlreadyExistsError(
                    f"{run.name} exists: choose another run_id, or none",
                    reason="RUN_EXISTS",
                    metadata={"run": str(run.name)},
                )
            await tx.execute(delete(DELETED).where(DELETED.c.name == str(run.name)))
        return run

    async def get(self, principal: Principal, names: Sequence[Name]) -> list[Run]:
        """Runs in the order of `names`. Raises NotFoundError."""
        wanted = [str(name) for name in names]
        query = select(RUNS).where(RUNS.c.name.in_(wanted), _visible(principal))
        async with self._db.read() as tx:
            found = {str(run.name): run for run in await self._runs(tx, await tx.rows(query))}
        for name in names:
            if str(name) not in found:
                raise not_found(name)
        return [found[name] for name in wanted]

    async def find(self, name: Name) -> Run | None:
        """A run, whoever asks."""
        async with self._db.read() as tx:
            return await self._find(tx, name, true())

    async def summarized(self) -> dict[str, dict[int, int]]:
        """Per run and attempt, the last batch that the summaries include."""
        async with self._db.read() as tx:
            rows = await tx.rows(select(RUNS.c.name, RUNS.c.summarized))
        return {row["name"]: _marks(row["summarized"]) for row in rows}

    async def is_deleted(self, name: Name) -> bool:
        """Whether there was such a run, and it was deleted."""
        async with self._db.read() as tx:
            return await tx.row(select(DELETED).where(DELETED.c.name == str(name))) is not None

    async def list(self, principal: Principal, project: str, query: PageRequest) -> tuple[list[Run], str]:
        """One page of a project's runs, and the token of the next. Raises InvalidError."""
        search = Search(RUNS, SUMMARIES)
        page = search.listing.page(query, scope=project)
        # Names alone first: to sort whole runs would be to read them all.
        statement = search.apply(select(RUNS.c.name, *page.columns)).where(
            RUNS.c.project == project, _visible(principal)
        )
        async with self._db.read() as tx:
            rows, next_page_token = page.split(await tx.rows(page.apply(statement)))
            names = [row["name"] for row in rows]
            whole = await tx.rows(select(RUNS).where(RUNS.c.name.in_(names)))
            found = {str(run.name): run for run in await self._runs(tx, whole)}
            return [found[name] for name in names], next_page_token

    async def update(self, name: Name, change: Change) -> Run | None:
        """Change a run in one transaction. Returns it as it then is."""
        async with self._db.begin() as tx:
            return (await self._change(tx, {name: change}))[name]

    async def update_all(self, changes: Mapping[Name, Change]) -> None:
        """The same for many runs, in one transaction."""
        if not changes:
            return
        async with self._db.begin() as tx:
            await self._change(tx, changes)

    async def apply_once(self, fact: JobFact, change: Change) -> Run | None:
        """The same, once per event."""
        async with self._db.begin() as tx:
            if not await self._inbox.once(tx, CONSUMER, fact.event_id):
                return await self._find(tx, fact.run, true())
            return (await self._change(tx, {fact.run: change}))[fact.run]

    async def delete(self, name: Name) -> None:
        """Forget a run but for its name; its summaries go with it."""
        async with self._db.begin() as tx:
            await tx.lock(str(name))
            await tx.execute(delete(RUNS).where(RUNS.c.name == str(name)))
            await tx.insert_new(DELETED, name=str(name), delete_time=self._clock.now())
            tx.after_commit(lambda: self._notifier.notify(str(name)))

    async def publish_comparison(self, runs: Sequence[Name], comparison: Comparison) -> None:
        """State as an event that runs were compared."""
        async with self._db.begin() as tx:
            await self._outbox.append(tx, convert.compared_event(runs, comparison, self._clock.now()))

    async def _change(self, tx: Tx, changes: Mapping[Name, Change]) -> dict[Name, Run | None]:
        """Runs as they are once changed, in as many statements for one of them as for all."""
        names = [str(name) for name in changes]
        await tx.lock(*names)
        rows = await tx.rows(select(RUNS).where(RUNS.c.name.in_(names)))
        before: dict[Name, Run | None] = dict.fromkeys(changes) | {
            run.name: run for run in await self._runs(tx, rows)
        }
        changed = {name: run for name, change in changes.items() if (run := change(before[name])) is not None}
        await self._write_runs(tx, before, changed)
        await self._write_summaries(tx, before, changed)
        bests: list[Event] = []
        for name, run in changed.items():
            best = new_best(_summaries(before[name]), run.summaries)
            if best is not None:
                bests.append(convert.best_event(run, best))
            tx.after_commit(partial(self._notifier.notify, str(name)))
        await self._outbox.append(tx, *bests)
        return before | changed

    async def _write_runs(
        self, tx: Tx, before: Mapping[Name, Run | None], changed: Mapping[Name, Run]
    ) -> None:
        """Of runs that there were, the columns that have changed: rows are long."""
        fresh: list[Mapping[str, Any]] = []
        moved: list[dict[str, Any]] = []
        differing: set[str] = set()
        for name, run in changed.items():
            row, old = _row(run), before[name]
            if old is None:
                fresh.append({"name": str(name), **row})
                continue
            moved.append({"of": str(name), **row})
            differing |= {column for column, value in _row(old).items() if row[column] != value}
        if fresh:
            await tx.execute(insert(RUNS), fresh)
        if differing:
            rows: list[Mapping[str, Any]] = [{key: row[key] for key in ("of", *differing)} for row in moved]
            await tx.execute(update(RUNS).where(RUNS.c.name == bindparam("of")), rows)

    async def _write_summaries(
        self, tx: Tx, before: Mapping[Name, Run | None], changed: Mapping[Name, Run]
    ) -> None:
        rows: list[Mapping[str, Any]] = [
            {"run": str(name), **_summary_row(each)}
            for name, run in sorted(changed.items())
            for each in sorted(set(run.summaries) - set(_summaries(before[name])), key=lambda each: each.key)
        ]
        if rows:
            old: list[Mapping[str, Any]] = [{"of": row["run"], "named": row["key"]} for row in rows]
            columns = SUMMARIES.c
            replaced = delete(SUMMARIES).where(
                columns.run == bindparam("of"), columns.key == bindparam("named")
            )
            await tx.execute(replaced, old)
            await tx.execute(insert(SUMMARIES), rows)

    async def _require(self, tx: Tx, name: Name, principal: Principal) -> Run:
        run = await self._find(tx, name, _visible(principal))
        if run is None:
            raise not_found(name)
        return run

    async def _find(self, tx: Tx, name: Name, scope: ColumnElement[bool]) -> Run | None:
        row = await tx.row(select(RUNS).where(RUNS.c.name == str(name), scope))
        return (await self._runs(tx, [row]))[0] if row else None

    async def _runs(self, tx: Tx, rows: Sequence[RowMapping]) -> list[Run]:
        """Rows of runs, with their summaries."""
        summaries: dict[str, list[Summary]] = defaultdict(list)
        names = [row["name"] for row in rows]
        query = select(SUMMARIES).where(SUMMARIES.c.run.in_(names)).order_by(SUMMARIES.c.run, SUMMARIES.c.key)
        for row in await tx.rows(query):
            summaries[row["run"]].append(_summary(row))
        return [_run(row, summaries[row["name"]]) for row in rows]


def _visible(principal: Principal) -> ColumnElement[bool]:
    """The rows that this principal may know of."""
    return true() if principal.all_projects else RUNS.c.project.in_(sorted(principal.projects))


def _summaries(run: Run | None) -> tuple[Summary, ...]:
    return run.summaries if run else ()


def _row(run: Run) -> dict[str, Any]:
    """All columns but the name."""
    return {
        "project": run.name.project,
        "display_name": run.display_name,
        "labels": dict(run.labels),
        "training_job": run.training_job,
        "spec": run.spec,
        "params": dict(run.params),
        "state": str(run.state),
        "attempt": run.attempt,
        "fence": run.fence,
        "summarized": {str(attempt): sequence for attempt, sequence in run.summarized.items()},
        "create_time": run.create_time,
        "end_time": run.end_time,
        "update_time": run.update_time,
        "tags": dict.fromkeys(run.tags, ""),
        "lineage": dict(run.lineage),
        "notes": run.notes,
        "experiment": run.experiment,
        "parent_run": run.parent_run,
        "start_time": run.start_time,
    }


def _run(row: RowMapping, summaries: Sequence[Summary]) -> Run:
    return Run(
        name=parse_name(row["name"], "runs"),
        display_name=row["display_name"],
        labels=row["labels"],
        training_job=row["training_job"],
        spec=row["spec"],
        params=row["params"],
        state=RunState(row["state"]),
        attempt=row["attempt"],
        fence=row["fence"],
        summarized=_marks(row["summarized"]),
        create_time=row["create_time"],
        end_time=row["end_time"],
        update_time=row["update_time"],
        tags=tuple(row["tags"]),
        lineage=row["lineage"],
        notes=row["notes"],
        experiment=row["experiment"],
        parent_run=row["parent_run"],
        start_time=row["start_time"],
        # By code point, as everywhere else; the order of a database depends on its collation.
        summaries=tuple(sorted(summaries, key=lambda each: each.key)),
    )


def _marks(stored: Mapping[str, int]) -> dict[int, int]:
    """Marks out of JSON, whose keys are always text."""
    return {int(attempt): sequence for attempt, sequence in stored.items()}


def _summary_row(summary: Summary) -> dict[str, Any]:
    return {
        "key": summary.key,
        "last_value": _without_nan(summary.last_value),
        "last_step": summary.last_step,
        "best_value": _without_nan(summary.best_value),
        "best_step": summary.best_step,
        "point_count": summary.point_count,
        "min_value": _without_nan(summary.min_value),
        "max_value": _without_nan(summary.max_value),
    }


def _summary(row: RowMapping) -> Summary:
    return Summary(
        key=row["key"],
        last_value=_with_nan(row["last_value"]),
        last_step=row["last_step"],
        best_value=_with_nan(row["best_value"]),
        best_step=row["best_step"],
        point_count=row["point_count"],
        min_value=_with_nan(row["min_value"]),
        max_value=_with_nan(row["max_value"]),
    )


def _without_nan(value: float) -> float | None:
    return None if math.isnan(value) else value


def _with_nan(value: float | None) -> float:
    return math.nan if value is None else value
