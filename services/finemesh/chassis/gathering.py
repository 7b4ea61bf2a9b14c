"""Writes that arrive while the database is busy, in one transaction: the disk is waited for once.

What a write meets is its own affair: where all of them do not go in, each gets a transaction of its own.
They are nobody's request any more: no principal and no trace of a caller is there when they are written.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from finemesh.chassis.sql import Database, Tx
from finemesh.core.errors import UnavailableError

AT_MOST: Final = 64  # others wait for the transaction after the one that writes so many
REST_AT_MOST_SECONDS: Final = 0.2

W = TypeVar("W")
A = TypeVar("A")


@dataclass(frozen=True, slots=True, eq=False)
class _Write(Generic[W, A]):
    """What is to be written, and what whoever asked for it waits for."""

    what: W
    answer: asyncio.Future[A] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def done(self, answer: A) -> None:
        if not self.answer.done():  # whoever asked may be gone
            self.answer.set_result(answer)

    def failed(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class Gathering(Generic[W, A]):
    """Gathers what arrives for `write_all`, which writes one or several and returns the answer of each.

    After each transaction the next one waits `rest` times as long as it took, REST_AT_MOST_SECONDS at most:
    one that comes alone is not held up, and many take a bounded share of the time.
    """

    def __init__(
        self,
        db: Database,
        write_all: Callable[[Tx, Sequence[W]], Awaitable[Sequence[A]]],
        rest: float = 0.0,
    ) -> None:
        self._db = db
        self._write_all = write_all
        self._rest = rest
        self._resting_until = 0.0
        self._gathered: dict[str, _Write[W, A]] | None = None
        self._writing: set[asyncio.Task[None]] = set()

    async def write(self, key: str, what: W) -> A:
        """Write it, with others of other keys. Raises what its own transaction did."""
        batch = self._gathered
        if batch is None or len(batch) >= AT_MOST or key in batch:
            batch = self._gathered = {}
            task = asyncio.create_task(self._carry_out(batch), context=Context())
            self._writing.add(task)
            task.add_done_callback(self._writing.discard)
        asked: _Write[W, A] = _Write(what)
        batch[key] = asked
        return await asked.answer

    async def _carry_out(self, batch: dict[str, _Write[W, A]]) -> None:
        try:
            await asyncio.sleep(max(self._resting_until - time.monotonic(), 0.0))
            began = time.monotonic()
            await self._write(batch)
            took = time.monotonic() - began
            self._resting_until = time.monotonic() + min(self._rest * took, REST_AT_MOST_SECONDS)
        finally:
            for each in batch.values():
                each.answer.cancel()  # the service ends

    async def _write(self, batch: dict[str, _Write[W, A]]) -> None:
        asked = batch.values()
        try:
            async with self._db.begin(brief=True) as tx:
                self._close(batch)  # it has its turn: what arrives from now on is the next one's
                answers = await self._write_all(tx, [each.what for each in asked])
            for each, answer in zip(asked, answers, strict=True):
                each.done(answer)
        except Exception as error:
            self._close(batch)
            if len(batch) > 1 and not isinstance(error, UnavailableError):
                for key, each in batch.items():
                    await self._write({key: each})
                return
            for each in asked:
                each.failed(error)

    def _close(self, batch: dict[str, _Write[W, A]]) -> None:
        if self._gathered is batch:
            self._gathered = None
