"""A SQLite connection for SQLAlchemy that hands each statement to its thread once.

aiosqlite hands over the cursor, the statement, the rows and the close one after the other, and each time the
thread has to be woken and to get the interpreter back. Here a statement is executed, read and closed in one
go.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self, TypeVar

import aiosqlite

T = TypeVar("T")


class OneTripCursor:
    """What SQLAlchemy's adapter uses of an asynchronous cursor. All rows are read at once."""

    def __init__(self, connection: OneTripConnection) -> None:
        self._connection = connection
        self._rows: list[Any] = []
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None
        self.arraysize = 1

    async def __aenter__(self) -> Self:
        return self

    async def execute(self, statement: str, parameters: Any = ()) -> Self:
        """Execute, and keep the rows. Raises what sqlite3 does."""
        await self._connection.call(lambda made: self._keep(made.execute(statement, parameters)))
        return self

    async def executemany(self, statement: str, parameters: Iterable[Any]) -> Self:
        """Execute once for each of `parameters`. Raises what sqlite3 does."""
        await self._connection.call(lambda made: self._keep(made.executemany(statement, parameters)))
        return self

    def _keep(self, cursor: sqlite3.Cursor) -> None:
        self.description = cursor.description
        self._rows = cursor.fetchall() if cursor.description else []
        self.rowcount, self.lastrowid = cursor.rowcount, cursor.lastrowid
        cursor.close()

    async def fetchall(self) -> Sequence[Any]:
        return self._rows

    async def close(self) -> None:
        """Nothing is held any more."""


class OneTripConnection(aiosqlite.Connection):
    """`path` as sqlite3 opens it, waiting `timeout_seconds` for the lock of another process. Await it."""

    def __init__(self, path: str, timeout_seconds: float) -> None:
        super().__init__(lambda: sqlite3.connect(path, timeout=timeout_seconds), iter_chunk_size=64)
        self._thread.daemon = True  # a connection that nobody closed does not keep the process
        self._left_behind = False

    def cursor(self) -> Any:  # SQLAlchemy makes one for each statement
        return OneTripCursor(self)

    async def call(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What `work` returns, in the thread of this connection."""
        try:
            return await self._execute(work, self._conn)
        except asyncio.CancelledError:
            self._left_behind = True
            raise

    async def rollback(self) -> None:
        """End the transaction, if there is one: the pool asks for it after each use."""
        if self._left_behind or self.in_transaction:
            self._left_behind = False
            await super().rollback()
