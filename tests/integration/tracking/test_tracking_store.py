"""Runs and summaries in SQL, on SQLite and PostgreSQL, with the points they are computed from."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from finemesh.chassis.auth import Principal, Role
from finemesh.chassis.migrations import migrate
from finemesh.chassis.outbox import Outbox
from finemesh.chassis.sql import Database
from finemesh.chassis.watch import Notifier
from finemesh.core.errors import NotFoundError, UnavailableError
from finemesh.core.names import Name
from finemesh.core.requests import PageRequest
from finemesh.tracking.artifact_rows import ARTIFACTS
from finemesh.tracking.domain import Batch, JobFact, Run, RunState, Summary, after_fact
from finemesh.tracking.keeper import forget_ended_before
from finemesh.tracking.points import PointFile
from finemesh.tracking.store import CHASSIS, METADATA, SqlRunStore
from finemesh.tracking.summarizer import Summarizer
from finemesh.tracking.writer import Writer
from sqlalchemy import Connection, inspect, select

pytestmark = pytest.mark.integration

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
NAME = Name("p", "runs", "r")
ADMIN = Principal("admin", Role.ADMIN, frozenset({"*"}), math.inf)


@pytest.fixture
async def store(database: Database) -> SqlRunStore:
    await migrate(database, "finemesh.tracking")
    return SqlRunStore(database, Outbox(CHASSIS), Notifier())


@pytest.fixture
def file(tmp_path: Path) -> PointFile:
    return PointFile(tmp_path / "points.duckdb", memory_bytes=64 << 20, threads=1)


@pytest.fixture
async def summarizer(store: SqlRunStore, file: PointFile) -> Summarizer:
    return Summarizer(store, file, Outbox(CHASSIS).clock)


@pytest.fixture
async def writer(file: PointFile, summarizer: Summarizer) -> AsyncGenerator[Writer]:
    writer = Writer(file, summarizer.note)
    writer.start()
    yield writer
    await writer.stop()
    file.close()


def batch(sequence: int, steps: list[int], attempt: int = 1, run: str = str(NAME)) -> Batch:
    columns = np.array(steps, np.int64)
    zeros = np.zeros(len(steps), np.int64)
    return Batch(run, attempt, sequence, ("train/loss",), zeros, columns, 100.0 / (columns + 1), zeros)


async def log(writer: Writer, *batches: Batch) -> None:
    for each in batches:
        await (await writer.submit(each))


async def events(database: Database) -> list[str]:
    async with database.read() as tx:
        rows = await tx.rows(select(CHASSIS.outbox).order_by(CHASSIS.outbox.c.sequence))
    return [row["subject"] for row in rows]


async def test_the_migrations_make_the_tables_that_the_code_uses(database: Database) -> None:
    await migrate(database, "finemesh.tracking")

    def columns(connection: Connection) -> dict[str, set[tuple[str, bool]]]:
        found = inspect(connection)
        return {
            table: {(each["name"], each["nullable"]) for each in found.get_columns(table)}
            for table in METADATA.tables
        }

    async with database.read() as tx:
        actual = await tx.connection.run_sync(columns)
    assert ARTIFACTS.name in actual
    assert actual == {
        name: {(column.name, bool(column.nullable)) for column in table.columns}
        for name, table in METADATA.tables.items()
    }


async def test_a_run_comes_back_as_it_was(store: SqlRunStore) -> None:
    run = Run(
        name=NAME,
        display_name="é",
        labels={"a": "b"},
        training_job="projects/p/trainingJobs/r",
        spec=b"\x00\xff",
        params={"x": "1"},
        state=RunState.FAILED,
        attempt=3,
        fence=2**40,
        summarized={1: 7, 2: 2**40},
        create_time=NOW,
        end_time=NOW,
        update_time=NOW,
    )
    await store.create(ADMIN, run, None)
    summaries = (
        Summary("A", math.inf, 2**50, -math.inf, 5, 10),
        Summary("a", 1.5, 4, 0.1 + 0.2, 3, 4),
    )
    await store.update(NAME, lambda before: before and replace(before, summaries=summaries))
    assert await store.get(ADMIN, [NAME]) == [replace(run, summaries=summaries)]


async def test_nan_comes_back_as_nan(store: SqlRunStore) -> None:
    await store.create(ADMIN, Run(name=NAME, create_time=NOW, update_time=NOW), None)
    odd = (Summary("loss", math.nan, 1, math.nan, 1, 1),)
    await store.update(NAME, lambda before: before and replace(before, summaries=odd))
    [run] = await store.get(ADMIN, [NAME])
    assert math.isnan(run.summaries[0].last_value)
    assert math.isnan(run.summaries[0].best_value)


async def test_the_store_itself_hides_other_projects(store: SqlRunStore) -> None:
    await store.create(ADMIN, Run(name=NAME, create_time=NOW, update_time=NOW), None)
    stranger = replace(ADMIN, projects=frozenset({"other"}))
    with pytest.raises(NotFoundError):
        await store.get(stranger, [NAME])
    assert await store.list(stranger, "p", PageRequest()) == ([], "")
    assert len((await store.list(ADMIN, "p", PageRequest()))[0]) == 1


async def test_a_failed_change_changes_nothing(store: SqlRunStore) -> None:
    await store.create(ADMIN, Run(name=NAME, create_time=NOW, update_time=NOW), None)

    def refuse(_: Run | None) -> Run | None:
        raise NotFoundError("no")

    fact = JobFact(
        event_id="e1",
        run=NAME,
        training_job="",
        display_name="told",
        labels={},
        params={},
        spec=b"",
        attempt=1,
        end_state=None,
        time=NOW,
    )
    with pytest.raises(NotFoundError):
        await store.apply_once(fact, refuse)
    # The event was not noted either: it is applied when it comes again, and then never more.
    again = replace(fact, display_name="told differently")
    for each in (fact, again):
        run = await store.apply_once(each, partial(after_fact, fact=each, now=NOW))
        assert run is not None
        assert run.display_name == "told"


async def test_summaries_follow_the_points_through_a_resume(
    store: SqlRunStore, writer: Writer, summarizer: Summarizer, database: Database
) -> None:
    await store.create(ADMIN, Run(name=NAME, create_time=NOW, update_time=NOW), None)
    await log(writer, batch(1, [1, 2, 3]), batch(2, [4, 5]))
    await summarizer.settle()
    await log(writer, batch(1, [4, 5, 6], attempt=2))  # resumed at step 3
    await summarizer.settle()
    [run] = await store.get(ADMIN, [NAME])
    assert [(each.last_step, each.point_count) for each in run.summaries] == [(6, 6)]
    assert dict(run.summarized) == {1: 2, 2: 1}
    assert await events(database) == ["finemesh.v1.run.best_logged.p.r"] * 2


async def test_a_start_catches_up_and_states_the_best_it_missed(
    store: SqlRunStore, file: PointFile, writer: Writer, database: Database
) -> None:
    await store.create(ADMIN, Run(name=NAME, create_time=NOW, update_time=NOW), None)
    await log(writer, batch(1, [1, 2, 3]))  # noted by a summarizer that "dies" before it writes
    successor = Summarizer(store, file, Outbox(CHASSIS).clock)
    await successor.catch_up()
    [run] = await store.get(ADMIN, [NAME])
    assert [each.point_count for each in run.summaries] == [3]
    await Summarizer(store, file, Outbox(CHASSIS).clock).catch_up()
    assert await store.get(ADMIN, [NAME]) == [run]
    assert await events(database) == ["finemesh.v1.run.best_logged.p.r"]


async def test_points_of_runs_that_ended_long_ago_are_forgotten(
    store: SqlRunStore, file: PointFile, summarizer: Summarizer, writer: Writer
) -> None:
    ended = {"old": NOW - timedelta(days=40), "young": NOW - timedelta(days=1), "going": None}
    for run_id, end_time in ended.items():
        state = RunState.FINISHED if end_time else RunState.RUNNING
        name = Name("p", "runs", run_id)
        run = Run(name=name, state=state, create_time=NOW, update_time=NOW, end_time=end_time)
        await store.create(ADMIN, run, None)
        await log(writer, batch(1, [1, 2, 3], run=str(name)))
    await summarizer.settle()
    await forget_ended_before(NOW - timedelta(days=30), file, store, writer)
    assert set(file.marks()) == {"projects/p/runs/young", "projects/p/runs/going"}
    assert not file.read("projects/p/runs/old").curves
    assert len(file.read("projects/p/runs/young").curves["train/loss"]) == 3
    await Summarizer(store, file, Outbox(CHASSIS).clock).catch_up()
    kept = await store.find(Name("p", "runs", "old"))
    assert kept
    assert [each.point_count for each in kept.summaries] == [3]


async def test_a_writer_whose_file_failed_recovers(file: PointFile, writer: Writer) -> None:
    await log(writer, batch(1, [1]))
    file._connection.close()  # what DuckDB does to itself after a fatal error
    refused = await writer.submit(batch(2, [2]))
    with pytest.raises(UnavailableError) as error:
        await refused
    assert error.value.reason == "POINTS_UNAVAILABLE"
    with pytest.raises(UnavailableError):
        await writer.check_ready()
    await log(writer, batch(2, [2]))
    await writer.check_ready()
    assert file.read(str(NAME)).curves["train/loss"].steps.tolist() == [1, 2]
