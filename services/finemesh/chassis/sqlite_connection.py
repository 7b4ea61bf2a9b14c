"""A SQLite connection for SQLAlchemy that hands each statement to its thread once.

aiosqlite hands over the cursor, the statement, the rows and the close one after the other, and each time the
thread has to be woken and to get the interpreter back. Here a statement is executed, its first thousand rows
are read, and it is closed, in one go. A transaction of a few short statements need not go there at all, but
for its commit, which waits for the disk: `inline`.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import sys
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Sequence
from typing import Any, Final, Self, TypeVar

import aiosqlite

_AT_ONCE: Final = 1000  # rows
_MOST: Final = 2**31 - 1  # what sqlite3 counts to

T = TypeVar("T")


class OneTripCursor:
    """What SQLAlchemy's adapter uses of an asynchronous cursor. What a result has more is read on demand."""

    def __init__(self, connection: OneTripConnection) -> None:
        self._connection = connection
        self._rows: deque[Any] = deque()
        self._rest: sqlite3.Cursor | None = None
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None
        self.arraysize = 1

    async def __aenter__(self) -> Self:
        return self

    async def execute(self, statement: str, parameters: Any = ()) -> Self:
        """Execute, and read the first rows. Raises what sqlite3 does."""
        await self._connection.call(lambda made: self._keep(made.execute(statement, parameters)))
        return self

    async def executemany(self, statement: str, parameters: Iterable[Any]) -> Self:
        """Execute once for each of `parameters`. Raises what sqlite3 does."""
        await self._connection.call(lambda made: self._keep(made.executemany(statement, parameters)))
        return self

    def _keep(self, cursor: sqlite3.Cursor) -> None:
        self.description = cursor.description
        self.rowcount, self.lastrowid = cursor.rowcount, cursor.lastrowid
        self._rest = cursor
        self._read(cursor, _AT_ONCE)

    def _read(self, cursor: sqlite3.Cursor, count: int) -> None:
        rows: list[Any] = cursor.fetchmany(count) if self.description else []
        self._rows.extend(rows)
        if len(rows) < count:
            cursor.close()
            self._rest = None

    async def fetchall(self) -> Sequence[Any]:
        return await self.fetchmany(sys.maxsize)

    async def fetchmany(self, size: int | None = None) -> Sequence[Any]:
        wanted, rest = size or self.arraysize, self._rest
        if len(self._rows) < wanted and rest is not None:
            count = min(max(wanted - len(self._rows), _AT_ONCE), _MOST)
            await self._connection.call(lambda _: self._read(rest, count))
        return [self._rows.popleft() for _ in range(min(wanted, len(self._rows)))]

    async def fetchone(self) -> Any:
        return next(iter(await self.fetchmany(1)), None)

    async def __aiter__(self) -> AsyncGenerator[Any]:
        while rows := await self.fetchmany(_AT_ONCE):
            for row in rows:
                yield row

    async def close(self) -> None:
        rest, self._rest = self._rest, None
        if rest is not None:
            await self._connection.call(lambda _: rest.close())


class OneTripConnection(aiosqlite.Connection):
    """`path` as sqlite3 opens it, waiting `timeout_seconds` for the lock of another process. Await it."""

    def __init__(self, path: str, timeout_seconds: float) -> None:
        super().__init__(
            lambda: sqlite3.connect(path, timeout=timeout_seconds, check_same_thread=False),
            iter_chunk_size=64,
        )
        self._thread.daemon = True  # a connection that nobody closed does not keep the process
        self._left_behind = False
        self._inline = False
        self._patience = round(timeout_seconds * 1e3)
        self._waits = True

    def cursor(self) -> Any:  # SQLAlchemy makes one for each statement
        return OneTripCursor(self)

    @contextlib.contextmanager
    def inline(self) -> Generator[None]:
        """Meanwhile statements are executed in the thread of the caller, which none may keep for long.

        One that meets the lock of another process waits for it in the thread of this connection.
        """
        self._wait_for_locks(False)
        self._inline = True
        try:
            yield
        finally:
            self._inline = False

    async def call(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What `work` returns, in the thread of this connection or inline."""
        if self._inline:
            try:
                return work(self._conn)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                    raise
        self._wait_for_locks(True)
        try:
            return await self._execute(work, self._conn)
        except asyncio.CancelledError:
            self._left_behind = True
            raise

    def _wait_for_locks(self, wait: bool) -> None:
        if wait is not self._waits:
            self._conn.execute(f"PRAGMA busy_timeout = {self._patience if wait else 0}")
            self._waits = wait

    async def rollback(self) -> None:
        """End the transaction, if there is one: the pool asks for it after each use."""
        if self._left_behind or self.in_transaction:
            self._left_behind = False
            await super().rollback()
