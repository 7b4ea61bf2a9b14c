"""The transaction helper and the migrations, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from finemesh.chassis.migrations import migrate
from finemesh.chassis.sql import Database, UtcDateTime
from finemesh.chassis.tables import chassis_tables
from finemesh.core.errors import InvalidError, PreconditionError, UnavailableError
from sqlalchemy import (
    Column,
    Connection,
    Integer,
    MetaData,
    String,
    Table,
    insert,
    inspect,
    select,
    text,
    update,
)
from sqlalchemy.exc import IntegrityError, StatementError

from tests.support.servers import PATIENCE_SECONDS

pytestmark = pytest.mark.integration

METADATA = MetaData()
THINGS = Table(
    "things",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("note", String(100)),
    Column("at", UtcDateTime),
)
COUNTERS = Table("counters", METADATA, Column("id", Integer, primary_key=True), Column("value", Integer))


@pytest.fixture
async def db(database: Database) -> Database:
    async with database.begin() as tx:
        await tx.connection.run_sync(METADATA.create_all)
    return database


either_way = pytest.mark.parametrize("brief", [False, True], ids=["", "brief"])


@either_way
async def test_a_block_commits_or_leaves_nothing(db: Database, brief: bool) -> None:
    calls: list[str] = []
    async with db.begin(brief=brief) as tx:
        await tx.execute(insert(THINGS).values(id=1))
        tx.after_commit(lambda: calls.append("committed"))
        assert not calls

    async def fail_after_writing() -> None:
        async with db.begin(brief=brief) as tx:
            await tx.execute(insert(THINGS).values(id=2))
            tx.after_commit(lambda: calls.append("rolled back"))
            raise KeyError

    with pytest.raises(KeyError):
        await fail_after_writing()
    async with db.read() as tx:
        assert [row["id"] for row in await tx.rows(select(THINGS))] == [1]
    assert calls == ["committed"]


async def test_a_transaction_within_a_transaction_is_refused_instead_of_waiting_for_itself(
    db: Database,
) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS), db.begin() as tx:
        with pytest.raises(RuntimeError, match="begin\\(\\) within begin"):
            await db.begin().__aenter__()
        await tx.execute(insert(THINGS).values(id=1))
    async with db.begin() as tx:
        assert not await tx.insert_new(THINGS, id=1)


@either_way
async def test_cancellation_rolls_back_and_leaves_the_database_usable(db: Database, brief: bool) -> None:
    inside = asyncio.Event()

    async def stuck() -> None:
        async with db.begin(brief=brief) as tx:
            await tx.execute(insert(THINGS).values(id=1))
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(stuck())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with db.begin() as tx:
        assert await tx.row(select(THINGS)) is None
        assert await tx.insert_new(THINGS, id=1)


@either_way
async def test_cancelled_at_any_moment_it_is_there_or_not_and_says_so(db: Database, brief: bool) -> None:
    """Also in the commit, after which the connection is not used again."""
    written: set[int] = set()

    async def write(number: int) -> None:
        async with db.begin(brief=brief) as tx:
            await tx.execute(insert(THINGS).values(id=number))
        written.add(number)

    chance = random.Random(1)
    for first in range(0, 1000, 5):
        tasks = [asyncio.create_task(write(first + each)) for each in range(5)]
        for _ in range(chance.randrange(60)):
            await asyncio.sleep(0)
        await asyncio.sleep(chance.choice([0.0, 0.003]) * chance.random())
        for task in tasks:
            if chance.random() < 0.5:
                task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert [end for end in ends if isinstance(end, Exception)] == []
    async with db.read() as tx:
        assert written <= {row["id"] for row in await tx.rows(select(THINGS.c.id))}
    assert 0 < len(written) < 1000


async def test_times_come_back_in_utc_and_sort(db: Database) -> None:
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    elsewhere = datetime(2026, 1, 1, 20, 30, tzinfo=timezone(timedelta(hours=9)))  # 11:30 UTC
    async with db.begin() as tx:
        await tx.execute(insert(THINGS), [{"id": 1, "at": noon}, {"id": 2, "at": elsewhere}])
    async with db.read() as tx:
        rows = await tx.rows(select(THINGS).order_by(THINGS.c.at))
        assert [row["id"] for row in rows] == [2, 1]
        assert rows[0]["at"] == elsewhere
        assert rows[0]["at"].tzinfo is UTC
        assert await tx.scalar(select(THINGS.c.id).where(THINGS.c.at < noon)) == 2


async def test_a_naive_time_is_refused(db: Database) -> None:
    with pytest.raises(StatementError, match="naive datetime"):
        async with db.begin() as tx:
            await tx.execute(insert(THINGS).values(id=1, at=datetime(2026, 1, 1)))  # noqa: DTZ001


async def test_insert_new_tells_whether_it_inserted_and_keeps_the_transaction(db: Database) -> None:
    async with db.begin() as tx:
        assert await tx.insert_new(THINGS, id=1, note="first")
        assert not await tx.insert_new(THINGS, id=1, note="second")
        await tx.execute(insert(THINGS).values(id=2))
    async with db.read() as tx:
        assert [row["note"] for row in await tx.rows(select(THINGS).order_by(THINGS.c.id))] == ["first", None]


async def test_a_constraint_is_not_mistaken_for_an_outage(db: Database) -> None:
    async with db.begin() as tx:
        await tx.execute(insert(THINGS).values(id=1))
    with pytest.raises(IntegrityError):
        async with db.begin() as tx:
            await tx.execute(insert(THINGS).values(id=1))


@either_way
async def test_read_modify_write_under_the_lock_loses_no_update(
    db: Database, second_database: Callable[[], Database], brief: bool
) -> None:
    """Two processes, one counter: without the lock, or with a deferred BEGIN, updates get lost."""
    other = second_database()
    async with db.begin() as tx:
        await tx.execute(insert(COUNTERS).values(id=1, value=0))

    async def increment(through: Database) -> None:
        async with through.begin(brief=brief) as tx:
            await tx.lock("counter")
            value = await tx.scalar(select(COUNTERS.c.value))
            await asyncio.sleep(0)
            await tx.execute(update(COUNTERS).values(value=value + 1))

    await asyncio.gather(*(increment(each) for each in (db, other) * 20))
    async with db.read() as tx:
        assert await tx.scalar(select(COUNTERS.c.value)) == 40


async def test_who_waits_for_another_process_holds_nobody_up(
    db: Database, second_database: Callable[[], Database]
) -> None:
    """A brief transaction would keep the event loop if it waited for the lock where it is executed."""
    other = second_database()

    async def write() -> None:
        async with db.begin(brief=True) as tx:
            await tx.lock("thing")
            await tx.execute(insert(THINGS).values(id=2))

    async with asyncio.timeout(PATIENCE_SECONDS):
        async with other.begin() as tx:
            await tx.lock("thing")
            waiting = asyncio.create_task(write())
            # Each of these has to get its turn beside the one that waits.
            await tx.execute(insert(THINGS).values(id=1))
            await asyncio.sleep(0.05)
            assert not waiting.done()
        await waiting
    async with db.read() as reader:
        assert len(await reader.rows(select(THINGS))) == 2


async def test_readers_do_not_wait_for_a_writer(db: Database) -> None:
    async with db.begin() as tx:
        await tx.execute(insert(THINGS).values(id=1))
        async with asyncio.timeout(PATIENCE_SECONDS), db.read() as reader:
            assert await reader.row(select(THINGS)) is None


@pytest.mark.parametrize("inline", [False, True], ids=["", "inline"])
async def test_a_long_result_is_read_whole_or_in_parts(database: Database, inline: bool) -> None:
    count = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :last) SELECT i FROM n"
    async with database.read(inline=inline) as tx:
        for last in (999, 1000, 2500):
            found = await tx.rows(text(count), {"last": last})
            assert [row["i"] for row in found] == list(range(1, last + 1))
        streamed = await tx.connection.stream(text(count), {"last": 2500})
        assert [row[0] async for row in streamed] == list(range(1, 2501))
        broken_off = await tx.connection.stream(text(count), {"last": 2500})
        assert await broken_off.fetchone() == (1,)
        await broken_off.close()
        assert await tx.scalar(text("SELECT 7")) == 7


async def test_sqlite_survives_power_loss(tmp_path: Path) -> None:
    db = Database(f"sqlite:///{tmp_path}/a.db")
    async with db.read() as tx:
        assert await tx.scalar(text("PRAGMA journal_mode")) == "wal"
        assert await tx.scalar(text("PRAGMA synchronous")) == 2  # FULL
        assert await tx.scalar(text("PRAGMA foreign_keys")) == 1
    await db.close()


@pytest.mark.parametrize("url", ["sqlite:////nowhere/at/all.db", "postgresql://nobody@127.0.0.1:1/none"])
async def test_a_database_that_is_away_says_so(url: str) -> None:
    db = Database(url)
    with pytest.raises(UnavailableError) as caught:
        await db.check_ready()
    assert caught.value.reason == "DATABASE_UNAVAILABLE"
    await db.close()
    # aiosqlite does not wait for the thread of a connection that failed; the thread still calls this loop.
    for thread in threading.enumerate():
        if "_connection_worker_thread" in thread.name:
            await asyncio.to_thread(thread.join, PATIENCE_SECONDS)


@pytest.mark.parametrize("url", ["mysql://a/b", "sqlite://", "sqlite:///:memory:", "nonsense"])
def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(InvalidError, match="database_url"):
        Database(url)


# Migrations

FIRST = """
from alembic import op
from finemesh.chassis.migrations import create_chassis_tables_v1
import sqlalchemy as sa
revision, down_revision = "0001", None
def upgrade():
    create_chassis_tables_v1(op)
    op.create_table("jobs", sa.Column("name", sa.String(100), primary_key=True))
"""
BROKEN = """
from alembic import op
import sqlalchemy as sa
revision, down_revision = "0002", "0001"
def upgrade():
    op.create_table("half_made", sa.Column("name", sa.String(100), primary_key=True))
    raise RuntimeError("the second half fails")
"""


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with a first migration; returns the folder of its versions."""
    name = f"service_{tmp_path.name.replace('-', '_')}"
    versions = tmp_path / "packages" / name / "migrations" / "versions"
    versions.mkdir(parents=True)
    (versions.parents[1] / "__init__.py").touch()
    (versions / "0001_first.py").write_text(FIRST)
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    return versions


def _package(versions: Path) -> str:
    return versions.parents[1].name


async def _table_names(db: Database) -> set[str]:
    async with db.read() as tx:
        return set(await tx.connection.run_sync(lambda connection: inspect(connection).get_table_names()))


async def test_migrations_make_the_tables_that_the_code_uses(database: Database, service: Path) -> None:
    await migrate(database, _package(service))
    metadata = MetaData()
    chassis_tables(metadata)
    Table("jobs", metadata, Column("name", String(100), primary_key=True))

    def differences(connection: Connection) -> list[object]:
        version_table = f"alembic_version_{_package(service)}"
        context = MigrationContext.configure(connection, opts={"version_table": version_table})
        return list(compare_metadata(context, metadata))

    async with database.read() as tx:
        assert await tx.connection.run_sync(differences) == []


async def test_migrating_twice_and_by_two_replicas_at_once_is_the_same_as_once(
    database: Database, second_database: Callable[[], Database], service: Path
) -> None:
    await asyncio.gather(*(migrate(db, _package(service)) for db in (database, second_database())))
    await migrate(database, _package(service))
    assert {"jobs", "outbox", "attempts"} <= await _table_names(database)


async def test_a_failed_migration_leaves_the_database_as_it_was(database: Database, service: Path) -> None:
    await migrate(database, _package(service))
    before = await _table_names(database)
    (service / "0002_broken.py").write_text(BROKEN)
    with pytest.raises(RuntimeError, match="second half"):
        await migrate(database, _package(service))
    assert await _table_names(database) == before


async def test_a_database_from_a_newer_release_is_refused(database: Database, service: Path) -> None:
    await migrate(database, _package(service))
    async with database.begin() as tx:
        await tx.execute(text(f"UPDATE alembic_version_{_package(service)} SET version_num = '9999'"))
    with pytest.raises(PreconditionError) as caught:
        await migrate(database, _package(service))
    assert caught.value.reason == "SCHEMA_TOO_NEW"
