"""The service's store on SQL: jobs and checkpoints; events, commands and attempts in the same transaction."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import bindparam, delete, func, insert, or_, select, tuple_, update

from finemesh.chassis.attempts import AttemptQueue
from finemesh.chassis.events import Event, Message
from finemesh.chassis.filtering import Field, Kind
from finemesh.chassis.gathering import Gathering
from finemesh.chassis.outbox import Outbox
from finemesh.chassis.paging import Listing
from finemesh.chassis.requests import Requests
from finemesh.chassis.sql import Database, Tx
from finemesh.chassis.telemetry import TraceContext, current_trace, span, trace_headers
from finemesh.chassis.watch import Notifier
from finemesh.core.attempts import Attempt, AttemptRef, Cluster, Directive
from finemesh.core.errors import AlreadyExistsError, ErrorRecord, NotFoundError
from finemesh.core.names import Name
from finemesh.core.requests import PageRequest, RequestKey
from finemesh.core.states import TRAINING_JOB
from finemesh.core.states import TrainingJobState as State
from finemesh.training.checkpoints import Checkpoint, Retention
from finemesh.training.claims import Claim
from finemesh.training.domain import Step, TrainingJob, TrainingResult
from finemesh.training.events import event_of
from finemesh.training.history import Kind as HistoryKind
from finemesh.training.history_rows import INSERT_HISTORY, HistoryRows, history_values
from finemesh.training.queue_rows import WAITS, QueueRows
from finemesh.training.rows import (
    JOB_COLUMNS,
    JobRows,
    Submission,
    changing_values,
    checkpoint_of,
    checkpoint_values,
    job_of,
    job_values,
)
from finemesh.training.tables import CHASSIS, CHECKPOINTS, JOBS
from finemesh.training.workers.orders import ordered

_LISTING: Final = Listing(
    {
        "name": Field(JOBS.c.name),
        "state": Field(JOBS.c.state, Kind.ENUM, tuple(State)),
        "priority": Field(JOBS.c.priority, Kind.NUMBER),
        "display_name": Field(JOBS.c.display_name),
        "create_time": Field(JOBS.c.create_time, Kind.TIME),
        "update_time": Field(JOBS.c.update_time, Kind.TIME),
    }
)
_CHECKPOINT_LISTING: Final = Listing(
    {"step": Field(CHECKPOINTS.c.step, Kind.NUMBER)}, key="step", default_order="step desc"
)
# Made once: statements of many columns take longer to put together than to carry out.
_OWN: Final = JOBS.c.project == bindparam("of_project"), JOBS.c.id == bindparam("of_id")
_ONE: Final = select(*JOB_COLUMNS).where(*_OWN)
_AMONG: Final = JOBS.c.name.in_(bindparam("names", expanding=True))
_NAMED: Final = select(*JOB_COLUMNS).where(_AMONG)
_TRACES: Final = select(JOBS.c.name, JOBS.c.traceparent).where(_AMONG)
_UPDATE: Final = update(JOBS).where(*_OWN)
_INSERT: Final = insert(JOBS)
_CLAIM: Final = insert(CHASSIS.requests)
_LATEST: Final = (
    select(CHECKPOINTS)
    .where(CHECKPOINTS.c.project == bindparam("of_project"), CHECKPOINTS.c.job_id == bindparam("of_id"))
    .where(CHECKPOINTS.c.expired_by.is_(None))
    .order_by(CHECKPOINTS.c.step.desc())
    .limit(1)
)
_TELL: Final = (
    update(JOBS)
    .where(JOBS.c.name == bindparam("of_name"), WAITS)
    .values(message=bindparam("message"), update_time=bindparam("update_time"), revision=JOBS.c.revision + 1)
)
_SCHEDULED: Final = TRAINING_JOB.terminal | {State.VALIDATING, State.QUEUED, State.STARTING, State.PAUSED}


class SqlStore:
    """Implements `ports.Store`. `on_change` is called after every commit that may let a job start."""

    def __init__(
        self,
        db: Database,
        outbox: Outbox,
        queue: AttemptQueue[TrainingResult],
        notifier: Notifier,
        on_change: Callable[[], None],
    ) -> None:
        self.db = db
        self.outbox = outbox
        self.queue = queue
        self.notifier = notifier
        self.on_change = on_change
        self.requests = Requests(CHASSIS, outbox.clock)
        self.seen_claims: dict[tuple[Any, ...], tuple[tuple[Any, ...], Claim]] = {}
        self._submissions = Gathering(db, self._submit_all)

    @contextlib.asynccontextmanager
    async def read(self) -> AsyncGenerator[SqlUnit]:
        async with self.db.read() as tx:
            yield SqlUnit(self, tx)

    @contextlib.asynccontextmanager
    async def begin(self) -> AsyncGenerator[SqlUnit]:
        async with self.db.begin(brief=True) as tx:
            yield SqlUnit(self, tx)

    async def submit(self, job: TrainingJob, key: RequestKey | None) -> Name | None:
        # The rows are made here: they name the caller and the trace of this request, not of those beside it.
        return await self._submissions.write(str(job.name), Submission(job, _new_rows(job), key))

    async def _submit_all(self, tx: Tx, submissions: Sequence[Submission]) -> list[Name | None]:
        unit = SqlUnit(self, tx)
        if len(submissions) == 1:
            return [await unit.add_one(submissions[0])]
        await unit.add_all(submissions)
        return [None] * len(submissions)


class SqlUnit(QueueRows, HistoryRows):
    """Implements `ports.Unit` on an open transaction."""

    def __init__(self, store: SqlStore, tx: Tx) -> None:
        self._store = store
        self._tx = tx
        self._seen_claims = store.seen_claims

    async def job(self, name: Name) -> TrainingJob:
        row = await self._tx.row(_ONE, _key(name))
        if row is None:
            raise NotFoundError(
                f"there is no {name}: list the jobs of its project to see which there are",
                reason="TRAINING_JOB_NOT_FOUND",
                metadata={"training_job": str(name)},
            )
        latest = await self._tx.row(_LATEST, _key(name))
        return job_of(row, checkpoint_of(latest) if latest else None)

    async def jobs(self, project: str, query: PageRequest) -> tuple[list[TrainingJob], str]:
        page = _LISTING.page(query, scope=project)
        rows = await self._tx.rows(page.apply(select(*JOB_COLUMNS).where(JOBS.c.project == project)))
        kept, token = page.split(rows)
        return await self._jobs_of(kept), token

    async def _jobs_of(self, rows: Any) -> list[TrainingJob]:
        names = [Name(row["project"], "trainingJobs", row["id"]) for row in rows]
        latest = await self._latest(names)
        return [job_of(row, latest.get(name)) for row, name in zip(rows, names, strict=True)]

    async def _latest(self, names: list[Name]) -> dict[Name, Checkpoint]:
        """The latest checkpoint of each job that has one."""
        table = CHECKPOINTS
        keys = [(name.project, name.id) for name in names]
        query = select(table).where(
            tuple_(table.c.project, table.c.job_id).in_(keys), table.c.expired_by.is_(None)
        )
        rows = await self._tx.rows(query.order_by(table.c.step))
        return {Name(row["project"], "trainingJobs", row["job_id"]): checkpoint_of(row) for row in rows}

    async def checkpoints(self, name: Name) -> list[Checkpoint]:
        rows = await self._tx.rows(_kept(name).order_by(CHECKPOINTS.c.step))
        return [checkpoint_of(row) for row in rows]

    async def checkpoint_page(self, name: Name, query: PageRequest) -> tuple[list[Checkpoint], str]:
        page = _CHECKPOINT_LISTING.page(query, scope=str(name))
        rows, token = page.split(await self._tx.rows(page.apply(_kept(name))))
        return [checkpoint_of(row) for row in rows], token

    async def expired_by(self, name: Name, step: int) -> list[str]:
        table = CHECKPOINTS
        query = select(table.c.uri).where(
            table.c.project == name.project, table.c.job_id == name.id, table.c.expired_by == step
        )
        return [row["uri"] for row in await self._tx.rows(query.order_by(table.c.step))]

    async def unvalidated(self, now: datetime, limit: int) -> list[TrainingJob]:
        due = select(*JOB_COLUMNS).where(JOBS.c.state == State.VALIDATING, _due(now))
        return await self._jobs_of(await self._tx.rows(due.order_by(JOBS.c.create_time).limit(limit)))

    async def lasting_since(self, oldest: datetime) -> list[Name]:
        begun = func.coalesce(JOBS.c.state_time, JOBS.c.create_time)
        lasting = or_(
            JOBS.c.state.in_([State.VALIDATING, State.STARTING]) & (begun <= oldest),
            (JOBS.c.state == State.RUNNING) & (JOBS.c.max_run_seconds > 0),
        )
        rows = await self._tx.rows(select(JOBS.c.project, JOBS.c.id).where(lasting))
        return [Name(row["project"], "trainingJobs", row["id"]) for row in rows]

    async def latest_attempt(self, name: Name) -> Attempt | None:
        return await self._store.queue.latest(self._tx, str(name))

    async def clusters(self) -> list[Cluster]:
        return await ordered(self._tx, await self._store.queue.clusters(self._tx))

    async def claim(self, key: RequestKey | None, name: Name) -> Name | None:
        if key is None:
            return None
        earlier = await self._store.requests.claim(self._tx, key, str(name))
        return None if earlier is None else Name(name.project, name.collection, earlier.split("/")[3])

    async def add(self, job: TrainingJob) -> None:
        await self._add(job, _new_rows(job))

    async def add_one(self, submission: Submission) -> Name | None:
        earlier = await self.claim(submission.key, submission.job.name)
        if earlier is None:
            await self._add(submission.job, submission.rows)
        return earlier

    async def add_all(self, submissions: Sequence[Submission]) -> None:
        requests = self._store.requests
        claims: list[Mapping[str, Any]] = [
            requests.values(each.key, str(each.job.name)) for each in submissions if each.key
        ]
        if claims:
            await self._tx.execute(_CLAIM, claims)
        await self._tx.execute(_INSERT, [each.rows.job for each in submissions])
        await self._tx.execute(INSERT_HISTORY, [row for each in submissions for row in each.rows.history])
        for each in submissions:
            self._announce(each.job)

    async def _add(self, job: TrainingJob, rows: JobRows) -> None:
        if not await self._tx.insert_new(JOBS, **rows.job):
            raise AlreadyExistsError(
                f"there is a {job.name} already: choose another training_job_id, or leave it empty",
                reason="TRAINING_JOB_EXISTS",
                metadata={"training_job": str(job.name)},
            )
        await self._tx.execute(INSERT_HISTORY, list(rows.history))
        self._announce(job)

    async def locked(self, name: Name) -> TrainingJob:
        await self._tx.lock(str(name))
        return await self.job(name)

    async def all_locked(self, names: Sequence[Name]) -> list[TrainingJob]:
        told = [str(name) for name in names]
        await self._tx.lock(*told)
        return await self._jobs_of(await self._tx.rows(_NAMED, {"names": told}))

    async def save(self, step: Step) -> TrainingJob:
        [job] = await self.save_all([step])
        return job

    async def save_all(self, steps: Sequence[Step]) -> list[TrainingJob]:
        jobs = [_counted(step) for step in steps]
        rows: list[Mapping[str, Any]] = [changing_values(job) | _key(job.name) for job in jobs]
        await self._tx.execute(_UPDATE, rows)
        told = [
            row
            for step in steps
            for row in history_values(step.job.name, step.job.history_size, step.entries)
        ]
        if told:
            await self._tx.execute(INSERT_HISTORY, told)
        facts = zip(jobs, steps, strict=True)
        await self.publish([event_of(job, fact) for job, step in facts for fact in step.facts])
        for job in jobs:
            self._announce(job)
        return jobs

    async def publish(self, events: Sequence[Event]) -> None:
        """Publish what this transaction brings about, in the traces of the jobs if there is none here."""
        traces = await self._traces([event.resource for event in events])
        messages: list[Message] = []
        for event in events:
            with _within(traces, event.resource):
                messages.append(event.message())
        await self._store.outbox.append(self._tx, *messages)

    async def _traces(self, names: Sequence[str]) -> Mapping[str, TraceContext | None]:
        """Those of the requests that created the jobs; nothing while there is a trace already."""
        if not names or current_trace() is not None:
            return {}
        rows = await self._tx.rows(_TRACES, {"names": names})
        return {row["name"]: TraceContext.parse(row["traceparent"] or "") for row in rows}

    def _announce(self, job: TrainingJob) -> None:
        name = str(job.name)
        self._announce_change(name)
        if job.state in _SCHEDULED:
            self._tx.after_commit(self._store.on_change)

    async def tell(self, news: Mapping[str, str], now: datetime) -> None:
        """Let jobs that still wait say why, all at once."""
        rows: list[Mapping[str, Any]] = [
            {"of_name": name, "message": news[name], "update_time": now} for name in sorted(news)
        ]
        await self._tx.execute(_TELL, rows)
        for name in news:
            self._announce_change(name)

    def _announce_change(self, name: str) -> None:
        self._tx.after_commit(lambda: self._store.notifier.notify(name))

    async def remove(self, name: Name) -> None:
        await self._tx.execute(delete(JOBS).where(*_is(name)))
        self._tx.after_commit(lambda: self._store.notifier.notify(str(name)))

    async def retain(self, name: Name, retention: Retention, commit: int) -> None:
        for checkpoint in (*retention.kept, *retention.expired):
            expired_by = commit if checkpoint in retention.expired else None
            values = checkpoint_values(name, checkpoint) | {"expired_by": expired_by}
            if not await self._tx.insert_new(CHECKPOINTS, **values):
                await self._tx.execute(
                    update(CHECKPOINTS)
                    .where(*_of(name), CHECKPOINTS.c.step == checkpoint.step)
                    .values(values)
                )

    async def dispatch(self, job: TrainingJob, cluster: str, nodes: Sequence[str]) -> Attempt:
        traces = await self._traces([str(job.name)])
        with _within(traces, str(job.name)):
            attempt = await self._store.queue.dispatch(self._tx, str(job.name), cluster, nodes=nodes)
        await self.allocate(attempt, job, nodes)
        return attempt

    async def request_stop(
        self, name: Name, directive: Directive, error: ErrorRecord | None = None
    ) -> Attempt | None:
        return await self._store.queue.request_stop(self._tx, str(name), directive, error)

    async def held(self, ref: AttemptRef) -> Attempt:
        return await self._store.queue.held(self._tx, ref)


def _within(traces: Mapping[str, TraceContext | None], name: str) -> contextlib.AbstractContextManager[Any]:
    return span(traces[name]) if name in traces else contextlib.nullcontext()


def _counted(step: Step) -> TrainingJob:
    """The job after a step, one revision on."""
    job = step.job
    return replace(job, revision=job.revision + 1, history_size=job.history_size + len(step.entries))


def _new_rows(job: TrainingJob) -> JobRows:
    """Those of a job that the current caller submits."""
    submitted = Step(job).noted(HistoryKind.SUBMITTED, job.create_time)
    row = job_values(job) | {"traceparent": trace_headers().get("traceparent", "")}
    return JobRows(row, history_values(job.name, 0, submitted.entries))


def _key(name: Name) -> dict[str, str]:
    return {"of_project": name.project, "of_id": name.id}


def _is(name: Name) -> tuple[Any, Any]:
    return JOBS.c.project == name.project, JOBS.c.id == name.id


def _of(name: Name) -> tuple[Any, Any]:
    return CHECKPOINTS.c.project == name.project, CHECKPOINTS.c.job_id == name.id


def _kept(name: Name) -> Any:
    return select(CHECKPOINTS).where(*_of(name), CHECKPOINTS.c.expired_by.is_(None))


def _due(now: datetime) -> Any:
    return or_(JOBS.c.not_before.is_(None), JOBS.c.not_before <= now)
