"""The store of the Training service on SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from finemesh.chassis.attempts import AttemptQueue
from finemesh.chassis.auth import SigningKey
from finemesh.chassis.migrations import migrate
from finemesh.chassis.outbox import Outbox
from finemesh.chassis.sql import Database
from finemesh.chassis.watch import Notifier
from finemesh.core.attempts import ClusterCapacity, Directive, RestartPolicy, Worker
from finemesh.core.clock import ManualClock
from finemesh.core.errors import AlreadyExistsError, ErrorRecord, NotFoundError
from finemesh.core.names import Name
from finemesh.core.requests import PageRequest, RequestKey
from finemesh.core.spec.finetune import FineTuneSpec, Task
from finemesh.core.states import TrainingJobState
from finemesh.training import domain
from finemesh.training.attempts import JobAttempts
from finemesh.training.checkpoints import Checkpoint, Retention
from finemesh.training.domain import Step, TrainingJob, TrainingResult
from finemesh.training.logs.tables import SEGMENTS
from finemesh.training.service import Layout, TrainingService
from finemesh.training.store import SqlStore
from finemesh.training.sweeps.tables import SWEEPS
from finemesh.training.tables import CHASSIS, METADATA
from finemesh.training.waiting import Demand

pytestmark = pytest.mark.integration

# Each module of tables adds its own to METADATA.
TABLES = (SEGMENTS, SWEEPS)
START = datetime(2026, 1, 1, tzinfo=UTC)


class NoFiles:
    async def delete(self, uri: str) -> None:
        raise AssertionError(uri)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
async def store(database: Database, clock: ManualClock) -> SqlStore:
    await migrate(database, "finemesh.training")
    outbox = Outbox(CHASSIS, clock)
    queue: AttemptQueue[TrainingResult] = AttemptQueue(database, outbox)
    made = SqlStore(database, outbox, queue, Notifier(), on_change=lambda: None)
    service = TrainingService(made, NoFiles(), Layout("bucket"), RestartPolicy(), clock)
    queue.bind(JobAttempts(made, service, SigningKey.generate(), clock))
    return made


def job(job_id: str, project: str = "p", *, age_seconds: float = 0, priority: int = 0) -> TrainingJob:
    name = Name(project, "trainingJobs", job_id)
    created = START - timedelta(seconds=age_seconds)
    spec = FineTuneSpec(Task.LANGUAGE, "base", f"projects/{project}/datasets/d")
    output = f"s3://bucket/{name}"
    return TrainingJob(
        name, spec, f"projects/{project}/runs/{job_id}", output, created, created, priority=priority
    )


async def test_the_migrations_make_the_tables_that_the_code_uses(database: Database) -> None:
    await migrate(database, "finemesh.training")
    async with database.read() as tx:
        differences = await tx.connection.run_sync(
            lambda connection: compare_metadata(
                MigrationContext.configure(
                    connection,
                    opts={"include_name": lambda name, kind, _: not str(name).startswith("alembic_")},
                ),
                METADATA,
            )
        )
    assert differences == []


async def test_a_job_comes_back_as_it_was_stored(store: SqlStore) -> None:
    full = replace(
        job("full"),
        display_name="été",
        labels={"team": "vision"},
        worker=Worker("c", "n", (1, 2), ("0",)),
        error=ErrorRecord("UNAVAILABLE", "ATTEMPT_LOST", "gone", {"cluster": "c"}),
        not_before=START,
        start_time=START,
        row_usage={"trained": 5},
        peak_memory_bytes=2**40,
    )
    kept = Checkpoint(
        7, "s3://u", "a" * 64, 2**33, 1, START, {"val/loss": math.inf, "x": 0.5}, "h", best=True
    )
    async with store.begin() as unit:
        await unit.add(full)
        await unit.retain(full.name, Retention((kept,), ()), 7)
        saved = await unit.save(Step(full))
    assert saved.revision == 1
    async with store.read() as view:
        assert await view.job(full.name) == replace(saved, latest_checkpoint=kept)
        with pytest.raises(NotFoundError):
            await view.job(Name("another", "trainingJobs", "full"))


async def test_of_requests_at_the_same_time_one_makes_the_job(store: SqlStore) -> None:
    key = RequestKey("p", "CreateTrainingJob", "r", "f")

    async def create(number: int) -> Name:
        made = job(f"j{number}")
        async with store.begin() as unit:
            earlier = await unit.claim(key, made.name)
            if earlier is None:
                await unit.add(made)
            return earlier or made.name

    names = await asyncio.gather(*(create(number) for number in range(6)))
    assert len(set(names)) == 1
    async with store.read() as view:
        jobs, _ = await view.jobs("p", PageRequest())
    assert [each.name for each in jobs] == [names[0]]
    with pytest.raises(AlreadyExistsError):
        async with store.begin() as unit:
            await unit.add(job(names[0].id))


async def test_lists_stay_within_the_project(store: SqlStore) -> None:
    async with store.begin() as unit:
        for number in range(4):
            await unit.add(job(f"j{number}", age_seconds=number, priority=number % 2))
        await unit.add(job("foreign", "q"))
    async with store.read() as view:
        first, token = await view.jobs("p", PageRequest(page_size=3))
        rest, last = await view.jobs("p", PageRequest(page_size=3, page_token=token))
        urgent, _ = await view.jobs("p", PageRequest(filter="priority > 0", order_by="name"))
    assert [each.name.id for each in (*first, *rest)] == ["j0", "j1", "j2", "j3"]
    assert not last
    assert [each.name.id for each in urgent] == ["j1", "j3"]


def ids(demands: Sequence[Demand]) -> set[str]:
    return {demand.name.rpartition("/")[2] for demand in demands}


async def test_what_waits_is_found_as_it_changes_and_what_runs_is_claimed(
    store: SqlStore, clock: ManualClock
) -> None:
    old = replace(job("old", age_seconds=9), state=TrainingJobState.QUEUED)
    async with store.begin() as unit:
        for made in (old, job("young"), job("unchecked")):
            await unit.add(made)
            if made.name.id != "unchecked":
                await unit.save(Step(replace(made, state=TrainingJobState.QUEUED, update_time=clock.now())))
    await store.queue.sync("c", ClusterCapacity(cpus=4, cpus_free=4, nodes=1), [])
    async with store.read() as view:
        found, gone = await view.demands(None)
        assert (ids(found), gone) == ({"old", "young"}, [])
    clock.advance(10)
    async with store.begin() as unit:
        attempt = await unit.dispatch(old, "c", ["n1"])
        await unit.save(domain.dispatched(old, attempt, clock.now()))
    async with store.read() as view:
        assert await view.demands(clock.now()) == ([], [str(old.name)])
        assert ids((await view.demands(None))[0]) == {"young"}
        (claim,) = await view.claims({"c": clock.now()})
    assert (claim.project, claim.cluster, claim.gang.total.cpus, claim.nodes) == ("p", "c", 1.0, ("n1",))
    assert (claim.create_time, claim.end_time) == (clock.now(), None)
    clock.advance(1)
    async with store.begin() as unit:
        assert await unit.request_stop(job("old").name, Directive.CANCEL) is None  # nobody has taken it up
    async with store.read() as view:
        (ended,) = await view.claims({"c": START})
        assert ended.end_time == clock.now()
        assert await view.claims({"c": clock.now()}) == []
    assert attempt.number == 1
    async with store.begin() as unit:
        await unit.remove(old.name)  # what was used stays used
    async with store.read() as view:
        assert [each.end_time for each in await view.past_claims(START, "p")] == [clock.now()]


async def test_deleting_a_job_takes_its_checkpoints_along(store: SqlStore) -> None:
    doomed = job("doomed")
    kept = Checkpoint(1, "s3://u", "a" * 64, 1, 1, START)
    async with store.begin() as unit:
        await unit.add(doomed)
        await unit.retain(doomed.name, Retention((kept,), ()), 1)
        await unit.remove(doomed.name)
        assert await unit.checkpoints(doomed.name) == []
