"""The SQL database of a service: SQLite by default, PostgreSQL by URL, one transaction helper for both.

SQLite runs in WAL mode with synchronous=FULL, so a commit survives power loss. Its writers begin with BEGIN
IMMEDIATE and take turns on a lock of this process: two readers that both want to write can never deadlock,
and nobody spins on a busy database. PostgreSQL runs at READ COMMITTED; a use case that changes a resource
first takes the resource's lock with `Tx.lock`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sqlite3
import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from datetime import UTC, datetime
from typing import Any, Final, cast

from asyncpg import PostgresError
from sqlalchemy import DateTime, Executable, Table, event, func, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, CursorResult, Dialect, Row, RowMapping, make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.types import TypeDecorator

from finemesh.chassis.sqlite_connection import OneTripConnection
from finemesh.core.errors import InvalidError, UnavailableError

LOCK_TIMEOUT_SECONDS: Final = 10.0
POOL_SIZE: Final = 8
_WAL_ATTEMPTS: Final = 40
_WAL_PAUSE_SECONDS: Final = 0.05
_READ_ONLY: Final = "finemesh_read_only"
# https://www.postgresql.org/docs/current/errcodes-appendix.html: connection, rollback (deadlock), resources,
# operator intervention; and lock_not_available. https://www.sqlite.org/rescode.html.
_AWAY_SQLSTATES: Final = ("08", "40", "53", "57", "55P03")
_AWAY_SQLITE: Final = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_IOERR", "SQLITE_FULL", "SQLITE_CANTOPEN")


class UtcDateTime(TypeDecorator[datetime]):
    """A timezone-aware instant in UTC: `timestamptz` on PostgreSQL, sortable ISO text on SQLite."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse naive instants; SQLite gets UTC without the offset."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"naive datetime {value!r}: use datetime.now(UTC)")
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give the offset back."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if dialect.name == "sqlite" else value.astimezone(UTC)


@functools.cache
def _insert_new(table: Table, dialect: str) -> Executable:
    """Made once: what it says does not depend on the values."""
    kind = sqlite if dialect == "sqlite" else postgresql
    return kind.insert(table).on_conflict_do_nothing()


class Tx:
    """An open transaction. Commits when the `async with` block that made it ends, rolls back on an error."""

    def __init__(self, connection: AsyncConnection) -> None:
        self.connection = connection
        self._after_commit: list[Callable[[], object]] = []
        self._locked: set[str] = set()

    async def execute(
        self, statement: Executable, parameters: Mapping[str, Any] | list[Mapping[str, Any]] | None = None
    ) -> CursorResult[Any]:
        return await self.connection.execute(statement, parameters)

    async def row(
        self, statement: Executable, parameters: Mapping[str, Any] | None = None
    ) -> RowMapping | None:
        """The first row as a mapping, or None."""
        return (await self.execute(statement, parameters)).mappings().first()

    async def rows(
        self, statement: Executable, parameters: Mapping[str, Any] | None = None
    ) -> list[RowMapping]:
        return list((await self.execute(statement, parameters)).mappings().all())

    async def scalar(self, statement: Executable) -> Any:
        """The first column of the first row, or None."""
        first: Row[Any] | None = (await self.execute(statement)).first()
        return None if first is None else first[0]

    async def insert_new(self, table: Table, **values: Any) -> bool:
        """Insert a row unless one with the same unique key exists; tells whether it was inserted.

        A concurrent transaction that inserts the same key is waited for, so the answer is final.
        """
        statement = _insert_new(table, self.connection.dialect.name)
        return (await self.execute(statement, values)).rowcount == 1

    async def lock(self, *names: str) -> None:
        """Hold the locks of these resources until the transaction ends.

        Take it before reading a row in order to change it, and take all locks of a transaction in one call:
        they are ordered by name. On SQLite the transaction already is the only writer.
        """
        if self.connection.dialect.name != "postgresql":
            return
        for name in sorted(set(names) - self._locked):
            await self.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(name, 0))))
            self._locked.add(name)

    def after_commit(self, callback: Callable[[], object]) -> None:
        """Call `callback()` once the transaction has been committed, never when it was rolled back."""
        self._after_commit.append(callback)

    def run_after_commit(self) -> None:
        for callback in self._after_commit:
            callback()


class Database:
    """Connections to one database. Belongs to one event loop; close it when done."""

    def __init__(self, url: str) -> None:
        parsed = _checked(url)
        self.engine: AsyncEngine = _engine(parsed)
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        self._readers = self.engine.execution_options(**{_READ_ONLY: True})
        # SQLite has one writer at a time. Waiting here is fair and wakes at once; its busy loop is neither.
        self._writer: contextlib.AbstractAsyncContextManager[Any] = (
            asyncio.Lock() if self.is_sqlite else contextlib.nullcontext()
        )
        self._writing: set[asyncio.Task[Any] | None] = set()

    @contextlib.asynccontextmanager
    async def begin(self, *, brief: bool = False) -> AsyncGenerator[Tx]:
        """A transaction that writes. Commits at the end of the block.

        Args:
            brief: each of its statements takes few rows, by key: on SQLite they are executed here and now.
                To hand one to another thread, and to get its answer back, takes longer than it does.

        Raises:
            UnavailableError: DATABASE_UNAVAILABLE, the database cannot be reached or stays locked.
            RuntimeError: this task is in such a transaction already and would wait for itself.
        """
        task = asyncio.current_task()
        if task in self._writing:
            raise RuntimeError("begin() within begin(): pass the open transaction on instead")
        self._writing.add(task)
        try:
            async with self._begin(brief) as tx:
                yield tx
        finally:
            self._writing.discard(task)

    @contextlib.asynccontextmanager
    async def _begin(self, brief: bool) -> AsyncGenerator[Tx]:
        async with self._writer:
            async with self._connect(self.engine, inline=brief and self.is_sqlite) as connection:
                tx = Tx(connection)
                yield tx
                await connection.commit()
            tx.run_after_commit()

    @contextlib.asynccontextmanager
    async def read(self, *, inline: bool = False) -> AsyncGenerator[Tx]:
        """A transaction that only reads; it never waits for writers.

        Args:
            inline: on SQLite statements are executed here and now: for a process that has nothing else to do.

        Raises UnavailableError.
        """
        async with self._connect(self._readers, inline=inline and self.is_sqlite) as connection:
            yield Tx(connection)

    @contextlib.asynccontextmanager
    async def _connect(self, engine: AsyncEngine, *, inline: bool = False) -> AsyncGenerator[AsyncConnection]:
        """A connection with a transaction begun, which is rolled back unless the block commits it."""
        with _translated():
            async with contextlib.AsyncExitStack() as stack:
                try:
                    connection = await stack.enter_async_context(engine.connect())
                    if inline:
                        stack.enter_context(await _inline(connection))
                    await connection.begin()
                except (OSError, PoolTimeoutError, PostgresError) as error:
                    raise _unavailable(error) from error
                yield connection

    async def check_ready(self) -> None:
        """One round trip. Raises UnavailableError when the database does not answer."""
        async with self.read() as tx:
            await tx.execute(text("SELECT 1"))

    async def close(self) -> None:
        await self.engine.dispose()


def _checked(url: str) -> URL:
    """The URL with an async driver. Raises InvalidError for anything but a SQLite file or PostgreSQL."""
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except SQLAlchemyError as error:
        raise InvalidError.of("database_url", f"not a database URL: {error}") from error
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+asyncpg")
    if backend != "sqlite":
        raise InvalidError.of("database_url", f"{backend} is not supported: use sqlite or postgresql")
    if parsed.database in {None, "", ":memory:"}:
        raise InvalidError.of("database_url", "a SQLite database needs a file: sqlite:////path/to/file.db")
    return parsed.set(drivername="sqlite+aiosqlite")


def _engine(url: URL) -> AsyncEngine:
    if url.get_backend_name() == "postgresql":
        patience = {"lock_timeout": f"{LOCK_TIMEOUT_SECONDS:g}s"}
        return create_async_engine(
            url, pool_size=POOL_SIZE, pool_pre_ping=True, connect_args={"server_settings": patience}
        )

    async def connect() -> Any:
        return await OneTripConnection(str(url.database), LOCK_TIMEOUT_SECONDS)

    engine = create_async_engine(url, pool_size=POOL_SIZE, async_creator=connect)
    event.listen(engine.sync_engine, "connect", _configure_sqlite)
    event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


def _configure_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver must not begin transactions on its own: _begin_sqlite does
    cursor = connection.cursor()
    for pragma in ("synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    _enter_wal_mode(cursor)
    cursor.close()


def _enter_wal_mode(cursor: Any) -> None:
    """Two processes that bring a new file into WAL mode at once get SQLITE_BUSY, which no busy timeout
    covers.
    """
    for attempt in range(_WAL_ATTEMPTS):
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if attempt == _WAL_ATTEMPTS - 1:
                raise
            time.sleep(_WAL_PAUSE_SECONDS)
        else:
            return


async def _inline(connection: AsyncConnection) -> contextlib.AbstractContextManager[None]:
    driver: Any = (await connection.get_raw_connection()).driver_connection
    return cast("OneTripConnection", driver).inline()


def _begin_sqlite(connection: Any) -> None:
    read_only = connection.get_execution_options().get(_READ_ONLY, False)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")


@contextlib.contextmanager
def _translated() -> Generator[None]:
    """Turn "the database is away" into UnavailableError; leave integrity and programming errors alone."""
    try:
        yield
    except DBAPIError as error:
        if _is_away(error):
            raise _unavailable(error) from error
        raise


def _unavailable(error: Exception) -> UnavailableError:
    cause = getattr(error, "orig", None) or error
    return UnavailableError(
        f"the database did not answer ({type(cause).__name__}): repeat the request in a moment",
        reason="DATABASE_UNAVAILABLE",
    )


def _is_away(error: DBAPIError) -> bool:
    """Whether trying again may help, by the SQLSTATE's class (PostgreSQL) or the primary code (SQLite)."""
    if error.connection_invalidated:
        return True
    sqlstate = str(getattr(error.orig, "sqlstate", None) or "")
    sqlite_name = str(getattr(error.orig, "sqlite_errorname", None) or "")
    return sqlstate.startswith(_AWAY_SQLSTATES) or sqlite_name.startswith(_AWAY_SQLITE)
