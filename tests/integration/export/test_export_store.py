"""The store of the Export service on SQLite and PostgreSQL."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from finemesh.chassis.attempts import AttemptQueue
from finemesh.chassis.migrations import migrate
from finemesh.chassis.outbox import Outbox
from finemesh.chassis.sql import Database
from finemesh.chassis.watch import Notifier
from finemesh.core.clock import ManualClock
from finemesh.core.errors import AlreadyExistsError, NotFoundError
from finemesh.core.names import Name
from finemesh.core.requests import PageRequest, RequestKey
from finemesh.core.spec.export import CheckpointSelection, ExportFormat
from finemesh.core.spec.finetune import FineTuneSpec, Task
from finemesh.export.domain import Export, ExportResult, ParityReport, Source, SourceCheckpoint, Step
from finemesh.export.store import SqlStore
from finemesh.export.tables import CHASSIS, METADATA

pytestmark = pytest.mark.integration

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
async def store(database: Database) -> SqlStore:
    await migrate(database, "finemesh.export")
    outbox = Outbox(CHASSIS, ManualClock(START))
    queue: AttemptQueue[ExportResult] = AttemptQueue(database, outbox)
    return SqlStore(database, outbox, queue, Notifier(), default_cluster="local", live_seconds=60)


def export(export_id: str, project: str = "p") -> Export:
    name = Name(project, "exports", export_id)
    checkpoint = SourceCheckpoint(7, "s3://u", "a" * 64, 1, 1, {"val/loss": math.inf})
    spec = FineTuneSpec(Task.LANGUAGE, "base", f"projects/{project}/datasets/d")
    return Export(
        name=name,
        training_job=f"projects/{project}/trainingJobs/j",
        choice=CheckpointSelection.BEST,
        format=ExportFormat.MERGED,
        source=Source(spec, checkpoint, "s3://d", {"run": "r"}),
        output_uri=f"s3://bucket/{name}",
        content_key=export_id,
        create_time=START,
        update_time=START,
    )


async def test_the_migrations_make_the_tables_that_the_code_uses(database: Database) -> None:
    await migrate(database, "finemesh.export")
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


async def test_an_export_comes_back_as_it_was_stored(store: SqlStore) -> None:
    parity = ParityReport(16, math.inf, 1e-3, 0.5, passed=False, runtime="transformers")
    made = replace(export("e"), parity=parity, labels={"a": "b"}, start_time=START)
    async with store.begin() as unit:
        await unit.add(made)
        saved = await unit.save(Step(made))
    async with store.read() as view:
        assert await view.export(made.name) == saved == replace(made, revision=1)
        with pytest.raises(NotFoundError):
            await view.export(Name("another", "exports", "e"))
        assert (await view.exports("another", PageRequest()))[0] == []
    with pytest.raises(AlreadyExistsError):
        async with store.begin() as unit:
            await unit.add(made)


async def test_a_known_request_is_recognised(store: SqlStore) -> None:
    key = RequestKey("p", "CreateExport", "r", "f")
    async with store.begin() as unit:
        assert not await unit.is_known(key)
        assert await unit.claim(key, export("e").name) is None
    async with store.begin() as unit:
        assert await unit.is_known(key)
        assert await unit.claim(key, export("other").name) == export("e").name
