"""New jobs. Those that arrive together are written in one transaction: the disk is waited for once.

What a submission meets is its own affair. Where the rows of all do not go in, because an id is taken or a
request is repeated, each is written in a transaction of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Final, Protocol

from sqlalchemy.exc import IntegrityError

from finemesh.core.names import Name
from finemesh.core.requests import RequestKey
from finemesh.training.domain import TrainingJob
from finemesh.training.rows import JobRows

AT_MOST: Final = 64  # others wait for the transaction that writes so many


@dataclass(frozen=True, slots=True, eq=False)
class Submission:
    """A job that is to be accepted; `answer` is the name that an earlier request with its key has made."""

    job: TrainingJob
    rows: JobRows
    key: RequestKey | None
    answer: asyncio.Future[Name | None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def accepted(self, earlier: Name | None = None) -> None:
        if not self.answer.done():  # whoever asked may be gone
            self.answer.set_result(earlier)

    def failed(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class Writer(Protocol):
    """A transaction that takes submissions."""

    async def add_all(self, submissions: Sequence[Submission]) -> None:
        """Raises sqlalchemy's IntegrityError: one of them is not new."""
        ...

    async def add_one(self, submission: Submission) -> Name | None:
        """The name that an earlier request has made, if one did. Raises AlreadyExistsError."""
        ...


class Submissions:
    """Gathers what arrives while the database is busy with something else."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._gathering: list[Submission] | None = None
        self._writing: set[asyncio.Task[None]] = set()

    async def add(self, submission: Submission) -> Name | None:
        """Accept it. Returns the name of the job that the same request made before, if it did.

        Raises AlreadyExistsError: TRAINING_JOB_EXISTS or REQUEST_ID_REUSED.
        """
        batch = self._gathering
        if batch is None or len(batch) >= AT_MOST:
            batch = self._gathering = []
            task = asyncio.create_task(self._write(batch))
            self._writing.add(task)
            task.add_done_callback(self._writing.discard)
        batch.append(submission)
        return await submission.answer

    async def _write(self, batch: list[Submission]) -> None:
        try:
            await self._write_all(batch)
            for each in batch:
                each.accepted()
        except IntegrityError:
            for each in batch:
                await self._write_one(each)
        except Exception as error:  # the database is away: everyone has to hear it
            for each in batch:
                each.failed(error)
        finally:
            for each in batch:
                each.answer.cancel()  # the service ends

    async def _write_all(self, batch: list[Submission]) -> None:
        try:
            async with self._store.begin() as unit:
                self._close(batch)  # it has its turn: what arrives from now on is the next one's
                await unit.add_all(batch)
        finally:
            self._close(batch)

    def _close(self, batch: list[Submission]) -> None:
        if self._gathering is batch:
            self._gathering = None

    async def _write_one(self, submission: Submission) -> None:
        try:
            async with self._store.begin() as unit:
                earlier = await unit.add_one(submission)
            submission.accepted(earlier)
        except Exception as error:  # which is nothing to the others
            submission.failed(error)


class Store(Protocol):
    """Where submissions are written."""

    def begin(self) -> AbstractAsyncContextManager[Writer]: ...
