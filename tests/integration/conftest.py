"""Ray for the tests of clusters; databases for those of stores: SQLite, and PostgreSQL where it is there."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, Callable, Generator
from pathlib import Path

import pytest
from finemesh.chassis.sql import Database
from finemesh.chassis.tables import ChassisTables, chassis_tables
from sqlalchemy import MetaData

from tests.support.postgres import PostgresServer, postgres_programs
from tests.support.ray_head import RayHeadProcess


@pytest.fixture(scope="module")
def ray_head(tmp_path_factory: pytest.TempPathFactory) -> Generator[RayHeadProcess]:
    """A head of Ray for the tests of one module, and no longer."""
    head = RayHeadProcess(tmp_path_factory.mktemp("ray"))
    try:
        yield head.start()
    finally:
        head.remove()


@pytest.fixture(scope="session")
def postgres_server() -> Generator[PostgresServer]:
    """One PostgreSQL for the whole session."""
    programs = postgres_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (initdb and postgres were not found)")
    server = PostgresServer(programs)
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
async def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database; the test runs once on each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/test.db"
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return await server.create_database(f"t{uuid.uuid4().hex}")


@pytest.fixture
async def database(database_url: str) -> AsyncGenerator[Database]:
    """An empty database, closed after the test."""
    db = Database(database_url)
    yield db
    await db.close()


@pytest.fixture
async def tables(database: Database) -> ChassisTables:
    """The chassis' tables, created in `database`."""
    metadata = MetaData()
    tables = chassis_tables(metadata)
    async with database.begin() as tx:
        await tx.connection.run_sync(metadata.create_all)
    return tables


@pytest.fixture
async def second_database(database_url: str) -> AsyncGenerator[Callable[[], Database]]:
    """Opens the same database again, as another process of the same service would."""
    opened: list[Database] = []

    def open_again() -> Database:
        opened.append(Database(database_url))
        return opened[-1]

    yield open_again
    for db in opened:
        await db.close()
