"""The use cases of evaluations: who may log and read them, and that they are durable when that is said."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from finemesh.chassis.auth import Principal, Role
from finemesh.chassis.objects import ObjectStore
from finemesh.core.clock import Clock
from finemesh.core.errors import UnavailableError
from finemesh.core.names import Name
from finemesh.core.requests import PageRequest
from finemesh.tracking.access import Head, check_access, not_found
from finemesh.tracking.evaluation_rows import EvaluationRows
from finemesh.tracking.evaluations import Evaluation, Items, from_parquet, objects_of, to_parquet
from finemesh.tracking.ports import RunStore

MAX_FILE_BYTES: Final = 256 << 20
_MAX_CACHED_ITEMS: Final = 400_000


class Evaluations:
    """The file first, then its row: a row without its file never is, a file without its row is written
    again by whoever had no answer.
    """

    def __init__(self, runs: RunStore, rows: EvaluationRows, objects: ObjectStore, clock: Clock) -> None:
        self._runs = runs
        self._rows = rows
        self._objects = objects
        self._clock = clock
        self._cache: OrderedDict[str, Items] = OrderedDict()

    async def log(self, principal: Principal, evaluation: Evaluation, items: Items) -> Evaluation:
        """Keep an evaluation, once.

        Raises what `check_access` raises; InvalidError (MALFORMED_EVALUATION); AlreadyExistsError
        (EVALUATION_EXISTS); UnavailableError, the object store is away.
        """
        principal.require_project(evaluation.run.project)
        evaluation.check()
        items.check()
        run = await self._runs.find(evaluation.run)
        if run is None and await self._runs.is_deleted(evaluation.run):
            raise not_found(evaluation.run)
        # Models are evaluated when their runs have ended, too.
        head = replace(Head.of(run), ended=False) if run else None
        check_access(principal, evaluation.run, evaluation.attempt, head)
        if run is None:
            raise UnavailableError(
                f"{evaluation.run} is not known yet, its points are on the way: send it again in a moment",
                reason="RUN_UNKNOWN",
            )
        evaluation = await asyncio.to_thread(evaluation.of, items, self._clock.now())
        content = await asyncio.to_thread(to_parquet, evaluation, items)
        await self._objects.put_bytes(evaluation.object_key, content)
        return await self._rows.add(evaluation)

    async def get(self, principal: Principal, name: Name) -> Evaluation:
        """Raises NotFoundError."""
        await self._require_run(principal, name)
        return await self._rows.get(name)

    async def list(
        self, principal: Principal, run: Name, request: PageRequest
    ) -> tuple[list[Evaluation], str]:
        """One page of a run's evaluations, and the token of the next. Raises InvalidError."""
        await self._require_run(principal, run)
        return await self._rows.list(run, request)

    async def read(self, principal: Principal, name: Name) -> Items:
        """The items of an evaluation. Raises NotFoundError, UnavailableError, OBJECT_CORRUPT."""
        return await self.items(await self.get(principal, name))

    async def latest(self, runs: Sequence[Name], split: str) -> dict[Name, Evaluation]:
        """Of each run that has one, the last evaluation of its model on a split."""
        return await self._rows.latest(runs, split)

    async def items(self, evaluation: Evaluation) -> Items:
        """The items of an evaluation; the last ones that were read stay in memory."""
        if evaluation.sha256 in self._cache:
            self._cache.move_to_end(evaluation.sha256)
            return self._cache[evaluation.sha256]
        content = await self._objects.get_bytes(evaluation.object_key, max_bytes=MAX_FILE_BYTES)
        found = await asyncio.to_thread(from_parquet, evaluation, content)
        self._cache[evaluation.sha256] = found
        while sum(map(len, self._cache.values())) > _MAX_CACHED_ITEMS and len(self._cache) > 1:
            self._cache.popitem(last=False)
        return found

    async def delete(self, run: Name) -> None:
        """Delete the files of a run that is about to be deleted; its rows go with the run's."""
        if await self._rows.exist(run):
            await self._objects.delete_prefix(objects_of(run))

    async def _require_run(self, principal: Principal, name: Name) -> None:
        principal.require_role(Role.VIEWER, Role.ATTEMPT)  # an export tells which checkpoint was tested
        principal.require_project(name.project)
        await self._runs.get(principal, [Name(name.project, "runs", name.id)])
