"""The use cases of Tracking: one method per RPC, and one for events about training jobs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from finemesh.chassis.auth import Principal, Role
from finemesh.chassis.logs import get_logger
from finemesh.chassis.watch import Notifier, watch
from finemesh.core.clock import Clock
from finemesh.core.errors import (
    InvalidError,
    PermissionDeniedError,
    PreconditionError,
    ResourceExhaustedError,
)
from finemesh.core.names import Name, parse_name
from finemesh.core.requests import PageRequest, RequestKey
from finemesh.tracking.access import Head, check_access, must_register, not_found, registered, require_current
from finemesh.tracking.compare import MAX_RUNS
from finemesh.tracking.curves import drawn, in_messages, series_of
from finemesh.tracking.domain import Batch, JobFact, Run, RunState, Series, after_fact
from finemesh.tracking.downsample import MIN_POINTS
from finemesh.tracking.drafts import FOR_PEOPLE, OF_PROGRAMS, Draft
from finemesh.tracking.live import Live
from finemesh.tracking.past import Past
from finemesh.tracking.ports import Change, PointReader, PointWriter, RunFiles, RunStore
from finemesh.tracking.summarizer import Summarizer

DEFAULT_CURVE_POINTS: Final = 1_000
MAX_CURVE_POINTS: Final = 20_000
MAX_RESPONSE_POINTS: Final = 400_000  # about 10 MB, below the limit of a message
_MAX_HEADS: Final = 10_000

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveQuery:
    """Which curves of which runs. `keys` empty means all metrics; `max_step` 0 means no limit."""

    runs: Sequence[Name]
    keys: Sequence[str] = ()
    max_points: int = 0
    min_step: int = 0
    max_step: int = 0

    def check(self) -> None:
        """Raises InvalidError naming the field."""
        if not 1 <= len(self.runs) <= MAX_RUNS:
            raise InvalidError.of("runs", f"name 1 to {MAX_RUNS} runs")
        if self.max_points and not MIN_POINTS <= self.max_points <= MAX_CURVE_POINTS:
            raise InvalidError.of(
                "max_points", f"use {MIN_POINTS} to {MAX_CURVE_POINTS}, or 0 for the default"
            )
        if self.min_step < 0 or self.max_step < 0:
            raise InvalidError.of("min_step" if self.min_step < 0 else "max_step", "must not be negative")
        if self.max_step and self.max_step < self.min_step:
            raise InvalidError.of("max_step", "is below min_step: no step lies between")


class Tracking:
    """Every method checks what its caller may do, and reads through the projects of its caller."""

    def __init__(
        self,
        *,
        store: RunStore,
        points: PointReader,
        writer: PointWriter,
        summarizer: Summarizer,
        live: Live,
        notifier: Notifier,
        clock: Clock,
        files: Sequence[RunFiles],
    ) -> None:
        self._store = store
        self._points = points
        self._writer = writer
        self._summarizer = summarizer
        self._live = live
        self._notifier = notifier
        self._clock = clock
        self._files = files
        # Only this process changes runs, so what admits their points need not be read for every batch.
        self._heads: dict[str, Head] = {}
        self._changing_heads = asyncio.Lock()
        self._deleting: set[str] = set()

    async def create_run(self, principal: Principal, name: Name, draft: Draft, key: RequestKey | None) -> Run:
        principal.require_role(Role.OPERATOR)
        principal.require_project(name.project)
        draft.check(name)
        now = self._clock.now()
        said = draft.values(FOR_PEOPLE | OF_PROGRAMS)
        run = Run(name=name, create_time=now, update_time=now, **said)
        async with self._changing_heads:
            made = await self._store.create(principal, run, key)
            self._remember(made.name, made)
        return made

    async def get_run(self, principal: Principal, name: Name) -> Run:
        self._require_reader(principal, name.project)
        overlay = self._summarizer.overlay(name)
        [run] = await self._store.get(principal, [name])
        current = overlay(run)
        if current is not None:
            return current
        await self._summarizer.settle()
        return (await self._store.get(principal, [name]))[0]

    async def list_runs(
        self, principal: Principal, project: str, query: PageRequest
    ) -> tuple[list[Run], str]:
        self._require_reader(principal, project)
        await self._summarizer.settle()
        return await self._store.list(principal, project, query)

    def watch_run(self, principal: Principal, name: Name) -> AsyncGenerator[Run]:
        """The run now and after every change, until it has ended."""
        return watch(
            self._notifier,
            str(name),
            lambda: self.get_run(principal, name),
            version=lambda run: run.update_time,
            terminal=lambda run: run.state.ended,
        )

    async def update_run(self, principal: Principal, name: Name, draft: Draft, fields: frozenset[str]) -> Run:
        """Change `fields` of a run. An attempt of its job states its lineage, and may be the first to speak.

        Raises what `check_access` raises for an attempt, PreconditionError (RUN_OF_JOB) for what follows from
        the job.
        """
        principal.require_project(name.project)
        draft.check(name)
        now = self._clock.now()
        if principal.role is Role.ATTEMPT and await self._store.is_deleted(name):
            raise not_found(name)

        def changed(run: Run | None) -> Run | None:
            if principal.role is Role.ATTEMPT:
                if set(fields) != {"lineage"}:
                    raise PermissionDeniedError("an attempt may change lineage alone", reason="ROLE_DENIED")
                known = registered(run, principal, name, principal.attempt, now)
                return replace(known, lineage={**known.lineage, **draft.lineage}, update_time=now)
            principal.require_role(Role.OPERATOR)
            if run is None:
                raise not_found(name)
            return replace(draft.applied_to(run, fields), update_time=now)

        run = await self._change(name, changed)
        assert run is not None
        return run

    async def finish_run(
        self, principal: Principal, name: Name, state: RunState, end_time: datetime | None = None
    ) -> Run:
        principal.require_role(Role.OPERATOR)
        principal.require_project(name.project)
        await self._store.get(principal, [name])
        await self._summarizer.settle()
        now = self._clock.now()

        def finished(run: Run | None) -> Run | None:
            if run is None:
                raise not_found(name)
            if run.training_job:
                raise PreconditionError(
                    f"{name} ends with its job: cancel {run.training_job} to end it early",
                    reason="RUN_OF_JOB",
                )
            if run.state is state:
                return None
            if run.state.ended:
                raise PreconditionError(f"{name} has ended already, as {run.state}", reason="RUN_ENDED")
            return replace(run, state=state, end_time=end_time or now, update_time=now)

        run = await self._change(name, finished)
        assert run is not None
        return run

    async def delete_run(self, principal: Principal, name: Name) -> None:
        """Points first: should the process die in between, the run is still there to be deleted again."""
        principal.require_role(Role.OPERATOR)
        principal.require_project(name.project)
        [run] = await self._store.get(principal, [name])
        if not run.state.ended:
            way = f"cancel {run.training_job}" if run.training_job else "finish it"
            raise PreconditionError(f"{name} has not ended: {way} first", reason="RUN_NOT_ENDED")
        self._deleting.add(str(name))
        try:
            await self._writer.delete(str(name))
            for each in self._files:
                await each.delete(name)
            async with self._changing_heads:
                await self._store.delete(name)
                self._heads.pop(str(name), None)
        finally:
            self._deleting.discard(str(name))

    async def submit(self, principal: Principal, batch: Batch) -> asyncio.Future[int]:
        """Take a batch, once there is room for it. The future gives the durable sequence of its attempt.

        Raises what `check_access` raises, and InvalidError for a malformed batch; the future SEQUENCE_GAP or
        POINTS_UNAVAILABLE.
        """
        now = self._clock.now()
        require_current(principal, now)
        name = parse_name(batch.run, "runs", "batch.run")
        principal.require_project(name.project)
        batch.check()
        head = await self._head(name)
        if head is None and await self._store.is_deleted(name):
            raise not_found(name)
        check_access(principal, name, batch.attempt, head)
        if must_register(principal, batch.attempt, head):
            await self._change(name, lambda run: registered(run, principal, name, batch.attempt, now))
        if batch.run in self._deleting:
            raise PreconditionError(f"{name} is being deleted", reason="RUN_ENDED")
        return await self._writer.submit(batch)

    async def query_metrics(self, principal: Principal, project: str, query: CurveQuery) -> list[Series]:
        """One downsampled series per run and metric with points. Raises ResourceExhaustedError.

        Attempts may read those of their project: an export shows the curves of its run.
        """
        principal.require_role(Role.VIEWER, Role.ATTEMPT)
        principal.require_project(project)
        query.check()
        await self._store.get(principal, query.runs)
        found = await asyncio.to_thread(
            drawn,
            self._points,
            [str(name) for name in query.runs],
            query.keys or None,
            max_points=query.max_points or DEFAULT_CURVE_POINTS,
            min_step=query.min_step,
            max_step=query.max_step,
        )
        if sum(len(series.curve) for series in found) > MAX_RESPONSE_POINTS:
            raise ResourceExhaustedError(
                f"more than {MAX_RESPONSE_POINTS} points: ask for fewer runs, keys or max_points",
                reason="TOO_MANY_POINTS",
            )
        return found

    async def watch_metrics(
        self, principal: Principal, name: Name, keys: Sequence[str]
    ) -> AsyncGenerator[list[Series]]:
        """All points of a run, then new ones as they become durable, until it has ended; each point once.

        Raises ResourceExhaustedError, reason WATCHER_TOO_SLOW.
        """
        self._require_reader(principal, name.project)
        with self._live.subscribed(
            str(name)
        ) as subscription:  # before reading, so that nothing falls between
            await self._store.get(principal, [name])
            past, ended = Past(self._points, str(name), keys), False
            parts = past.parts()
            while (curves := await asyncio.to_thread(next, parts, None)) is not None:
                for series in series_of(str(name), curves):
                    for message in in_messages(series):
                        yield [message]
            while not ended:
                subscription.woken.clear()
                # The state first: what was durable when the run ended is then in the subscription.
                if subscription.changed:
                    subscription.changed = False
                    [run] = await self._store.get(principal, [name])
                    ended = run.state.ended
                if fresh := series_of(str(name), past.later(subscription.take())):
                    yield fresh
                if not ended:
                    await subscription.woken.wait()

    async def apply_job_fact(self, fact: JobFact) -> None:
        """An event about a training job: its run is created, told of an attempt, or ended."""
        await self._summarizer.settle()  # what a run ends with includes its last points
        now = self._clock.now()
        async with self._changing_heads:
            if await self._store.is_deleted(fact.run):
                return
            run = await self._store.apply_once(fact, lambda run: after_fact(run, fact, now))
            self._remember(fact.run, run)
        if run is not None and run.training_job != fact.training_job:
            _log.warning("run_of_another_program", run=str(fact.run), training_job=fact.training_job)
        self._live.wake(str(fact.run))

    def _require_reader(self, principal: Principal, project: str) -> None:
        principal.require_role(Role.VIEWER)
        principal.require_project(project)

    async def _head(self, name: Name) -> Head | None:
        head = self._heads.get(str(name))
        if head is not None:
            return head
        async with self._changing_heads:
            return self._remember(name, await self._store.find(name))

    async def _change(self, name: Name, change: Change) -> Run | None:
        async with self._changing_heads:
            run = await self._store.update(name, change)
            self._remember(name, run)
        self._live.wake(str(name))
        return run

    def _remember(self, name: Name, run: Run | None) -> Head | None:
        if len(self._heads) >= _MAX_HEADS:
            self._heads.clear()
        if run is None:
            self._heads.pop(str(name), None)
            return None
        self._heads[str(name)] = Head.of(run)
        return self._heads[str(name)]
