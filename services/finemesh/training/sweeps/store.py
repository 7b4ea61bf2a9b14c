"""Sweeps and their trials on SQL, beside the jobs, in the same transactions."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import RowMapping, delete, select, tuple_, update

from finemesh.chassis.filtering import Field, Kind
from finemesh.chassis.paging import Listing
from finemesh.chassis.sql import Tx
from finemesh.chassis.telemetry import TraceContext, span, trace_headers
from finemesh.core.attempts import Directive
from finemesh.core.errors import AlreadyExistsError, ErrorRecord, NotFoundError
from finemesh.core.metrics import Goal
from finemesh.core.names import Name
from finemesh.core.requests import PageRequest, RequestKey
from finemesh.core.states import SWEEP, SweepState, TrainingJobState
from finemesh.training.rows import checkpoint_of
from finemesh.training.store import SqlStore, SqlUnit
from finemesh.training.sweeps.convert import Work
from finemesh.training.sweeps.domain import Decision, Seen, Sweep, Trial, TrialState
from finemesh.training.sweeps.events import event_of
from finemesh.training.sweeps.halving import Rung
from finemesh.training.sweeps.metrics import Target
from finemesh.training.sweeps.tables import SWEEPS, TRIALS
from finemesh.training.tables import CHASSIS, CHECKPOINTS, JOBS

COLLECTION: Final = "sweeps"
_LISTING: Final = Listing(
    {
        "name": Field(SWEEPS.c.name),
        "state": Field(SWEEPS.c.state, Kind.ENUM, tuple(SweepState)),
        "display_name": Field(SWEEPS.c.display_name),
        "create_time": Field(SWEEPS.c.create_time, Kind.TIME),
        "update_time": Field(SWEEPS.c.update_time, Kind.TIME),
    }
)


class SweepStore:
    """Where sweeps are kept. `on_change` is called after every commit that may let a sweep go on."""

    def __init__(self, jobs: SqlStore, on_change: Callable[[], None]) -> None:
        self.jobs = jobs
        self.on_change = on_change

    @contextlib.asynccontextmanager
    async def read(self) -> AsyncGenerator[SweepUnit]:
        async with self.jobs.db.read() as tx:
            yield SweepUnit(self, tx)

    @contextlib.asynccontextmanager
    async def begin(self) -> AsyncGenerator[SweepUnit]:
        """A transaction; commits at the end of the block, rolls back on an error."""
        async with self.jobs.db.begin() as tx:
            yield SweepUnit(self, tx)


class SweepUnit:
    """One transaction over sweeps and, by `jobs`, the jobs of their trials."""

    def __init__(self, store: SweepStore, tx: Tx) -> None:
        self.jobs = SqlUnit(store.jobs, tx)
        self._store = store
        self._tx = tx

    async def sweep(self, name: Name) -> Sweep:
        """Raises NotFoundError, reason SWEEP_NOT_FOUND."""
        row = await self._tx.row(select(SWEEPS).where(*_is(name)))
        if row is None:
            raise NotFoundError(
                f"there is no {name}: list the sweeps of its project to see which there are",
                reason="SWEEP_NOT_FOUND",
                metadata={"sweep": str(name)},
            )
        trials = await self._tx.rows(select(TRIALS).where(*_of(name)).order_by(TRIALS.c.number))
        return _sweep(row, trials)

    async def locked(self, name: Name) -> Sweep:
        """The sweep, which nobody else changes until this transaction ends. Raises NotFoundError."""
        await self._tx.lock(str(name))
        return await self.sweep(name)

    async def sweeps(self, project: str, query: PageRequest) -> tuple[list[Sweep], str]:
        """One page of a project's sweeps without their trials, and the token of the next."""
        page = _LISTING.page(query, scope=project)
        rows = await self._tx.rows(page.apply(select(SWEEPS).where(SWEEPS.c.project == project)))
        kept, token = page.split(rows)
        return [_sweep(row, ()) for row in kept], token

    async def live(self) -> list[Name]:
        """The sweeps that have not ended, oldest first."""
        query = select(SWEEPS.c.project, SWEEPS.c.id).where(SWEEPS.c.state.in_(SWEEP.live))
        return [Name(row["project"], COLLECTION, row["id"]) for row in await self._tx.rows(query)]

    async def claim(self, key: RequestKey | None, name: Name) -> Name | None:
        """The sweep that an earlier request with this key made, if one did. Raises AlreadyExistsError."""
        earlier = await self._store.jobs.requests.claim(self._tx, key, str(name))
        return None if earlier is None else Name(name.project, COLLECTION, earlier.split("/")[3])

    async def add(self, decision: Decision) -> None:
        """Store a new sweep. Raises AlreadyExistsError: SWEEP_EXISTS, or TRAINING_JOB_EXISTS of a trial."""
        sweep = decision.sweep
        names = [str(sweep.job_name(trial.number)) for trial in sweep.trials]
        taken = await self._tx.scalar(select(JOBS.c.name).where(JOBS.c.name.in_(names)).limit(1))
        if taken is not None:
            raise AlreadyExistsError(
                f"there is a {taken} already, and a trial would be called so: choose another sweep_id",
                reason="TRAINING_JOB_EXISTS",
                metadata={"training_job": taken},
            )
        traceparent = trace_headers().get("traceparent", "")
        if not await self._tx.insert_new(SWEEPS, **_values(sweep), traceparent=traceparent):
            raise AlreadyExistsError(
                f"there is a {sweep.name} already: choose another sweep_id, or leave it empty",
                reason="SWEEP_EXISTS",
                metadata={"sweep": str(sweep.name)},
            )
        await self._tx.execute(TRIALS.insert(), [_trial_values(sweep.name, each) for each in sweep.trials])
        await self._publish(decision)

    async def save(self, before: Sweep, decision: Decision) -> Sweep:
        """Store what was decided of `before`, and publish the facts. Returns it with its new revision."""
        if decision.sweep == before and not decision.facts:
            return before
        sweep = replace(decision.sweep, revision=before.revision + 1)
        await self._tx.execute(update(SWEEPS).where(*_is(sweep.name)).values(_values(sweep)))
        for old, new in zip(before.trials, sweep.trials, strict=True):
            if old != new:
                table = TRIALS.c
                change = update(TRIALS).where(*_of(sweep.name), table.number == new.number)
                await self._tx.execute(change.values(_trial_values(sweep.name, new)))
        await self._publish(replace(decision, sweep=sweep))
        return sweep

    async def remove(self, name: Name) -> None:
        await self._tx.execute(delete(TRIALS).where(*_of(name)))
        await self._tx.execute(delete(SWEEPS).where(*_is(name)))
        self._tx.after_commit(lambda: self._store.jobs.notifier.notify(str(name)))

    async def seen(self, sweep: Sweep) -> dict[int, Seen]:
        """The jobs of the trials by number, held until this transaction ends."""
        numbers = {str(sweep.job_name(trial.number)): trial.number for trial in sweep.trials}
        rows = await self._tx.rows(select(JOBS.c.name).where(JOBS.c.name.in_(numbers)))
        names = [row["name"] for row in rows]
        await self._tx.lock(*names)
        jobs = [await self.jobs.job(sweep.job_name(numbers[name])) for name in names]
        checkpoints = CHECKPOINTS.c
        kept = await self._tx.rows(
            select(CHECKPOINTS)
            .where(
                tuple_(checkpoints.project, checkpoints.job_id).in_(
                    [(j.name.project, j.name.id) for j in jobs]
                ),
                checkpoints.expired_by.is_(None),
            )
            .order_by(checkpoints.step)
        )
        return {
            numbers[str(job.name)]: Seen(
                job, [checkpoint_of(row) for row in kept if row["job_id"] == job.name.id]
            )
            for job in jobs
        }

    async def works(self, sweep: Sweep, now: datetime) -> dict[int, Work]:
        """How far the jobs of the trials are, by number."""
        numbers = {str(sweep.job_name(trial.number)): trial.number for trial in sweep.trials}
        columns = (JOBS.c.name, JOBS.c.state, JOBS.c.step, JOBS.c.total_steps, JOBS.c.revision)
        jobs = await self._tx.rows(select(*columns).where(JOBS.c.name.in_(numbers)))
        held = await self._held_seconds(numbers, now)
        return {
            numbers[row["name"]]: Work(
                TrainingJobState(row["state"]),
                row["step"],
                row["total_steps"],
                held.get(row["name"], 0.0),
                row["revision"],
            )
            for row in jobs
        }

    async def _held_seconds(self, names: Iterable[str], now: datetime) -> dict[str, float]:
        attempts = CHASSIS.attempts.c
        query = select(attempts.resource, attempts.start_time, attempts.end_time).where(
            attempts.resource.in_(list(names)), attempts.start_time.is_not(None)
        )
        held: dict[str, float] = {}
        for row in await self._tx.rows(query):
            seconds = ((row["end_time"] or now) - row["start_time"]).total_seconds()
            held[row["resource"]] = held.get(row["resource"], 0.0) + seconds
        return held

    async def request_cancel(self, name: Name) -> bool:
        """Tell whoever works on a job to stop and end; whether somebody does."""
        return await self.jobs.request_stop(name, Directive.CANCEL) is not None

    async def _publish(self, decision: Decision) -> None:
        sweep = decision.sweep
        if decision.facts:
            traceparent = await self._tx.scalar(select(SWEEPS.c.traceparent).where(*_is(sweep.name)))
            with span(TraceContext.parse(traceparent or "")):
                for fact in decision.facts:
                    await self._store.jobs.outbox.append(self._tx, event_of(sweep, fact))
        self._tx.after_commit(lambda: self._store.jobs.notifier.notify(str(sweep.name)))
        self._tx.after_commit(self._store.on_change)


def _is(name: Name) -> tuple[Any, Any]:
    return SWEEPS.c.project == name.project, SWEEPS.c.id == name.id


def _of(name: Name) -> tuple[Any, Any]:
    return TRIALS.c.project == name.project, TRIALS.c.sweep_id == name.id


# Columns that are fields of the same name and type.
_PLAIN: Final = (
    *("display_name", "labels", "asked", "max_steps", "max_parallel", "priority", "max_restarts"),
    *("best", "fraction", "message", "create_time", "end_time", "update_time", "revision"),
)


def _values(sweep: Sweep) -> dict[str, Any]:
    return {
        "project": sweep.name.project,
        "id": sweep.name.id,
        "name": str(sweep.name),
        "metric": sweep.target.metric,
        "goal": sweep.target.goal,
        "rungs": [[rung.steps, rung.trials] for rung in sweep.rungs],
        "state": sweep.state,
        "error": asdict(sweep.error) if sweep.error else None,
        **{field: getattr(sweep, field) for field in _PLAIN},
    }


def _trial_values(name: Name, trial: Trial) -> dict[str, Any]:
    return {
        "project": name.project,
        "sweep_id": name.id,
        "number": trial.number,
        "assignment": dict(trial.values),
        "state": trial.state,
        "rung": trial.rung,
        "measured": [repr(value) for value in trial.measured],
        "message": trial.message,
    }


def _sweep(row: RowMapping, trials: Iterable[RowMapping]) -> Sweep:
    plain: Mapping[str, Any] = {field: row[field] for field in _PLAIN}
    return Sweep(
        name=Name(row["project"], COLLECTION, row["id"]),
        target=Target(row["metric"], Goal(row["goal"])),
        rungs=tuple(Rung(*each) for each in row["rungs"]),
        trials=tuple(_trial(each) for each in trials),
        state=SweepState(row["state"]),
        error=ErrorRecord(**row["error"]) if row["error"] else None,
        **plain,
    )


def _trial(row: RowMapping) -> Trial:
    return Trial(
        number=row["number"],
        values=row["assignment"],
        state=TrialState(row["state"]),
        rung=row["rung"],
        measured=tuple(float(value) for value in row["measured"]),
        message=row["message"],
    )
