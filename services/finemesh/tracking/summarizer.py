"""Keeps the summaries in SQL abreast of the points in DuckDB.

Commits are collected and written at intervals; whoever reads summaries settles them first, so that no
acknowledged point is missing. After a crash, or when SQL was away, marks tell which runs are behind, and
those are summarised from their points.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from finemesh.chassis.logs import get_logger
from finemesh.core.clock import Clock
from finemesh.core.errors import UnavailableError
from finemesh.core.names import Name, parse_name
from finemesh.tracking.domain import Batch, Run, RunPoints, Summary
from finemesh.tracking.ports import PointReader, RunStore
from finemesh.tracking.summaries import Delta, summarize_run

DEFAULT_INTERVAL_SECONDS: Final = 0.25

_log = get_logger(__name__)


class Summarizer:
    """Belongs to one event loop; run `run()` beside the server, after `catch_up()`."""

    def __init__(
        self,
        store: RunStore,
        points: PointReader,
        clock: Clock,
        interval_seconds: float = DEFAULT_INTERVAL_SECONDS,
    ) -> None:
        self._store = store
        self._points = points
        self._clock = clock
        self._interval_seconds = interval_seconds
        self._pending: dict[str, Delta] = {}
        self._settled: dict[str, Delta] = {}  # those that are being written
        self._behind: set[str] = set()
        self._rebuilding: set[str] = set()
        self._woken = asyncio.Event()
        self._settling = asyncio.Lock()

    def note(self, batches: Sequence[Batch]) -> None:
        """Batches were committed."""
        for batch in batches:
            self._pending.setdefault(batch.run, Delta()).add(batch)
        self._woken.set()

    async def run(self) -> None:
        """Settle at intervals until cancelled."""
        while True:
            await self._woken.wait()
            await asyncio.sleep(self._interval_seconds)
            try:
                await self.settle()
            except UnavailableError as error:
                _log.warning("summaries_behind", error=error.message, runs=len(self._behind))

    def overlay(self, name: Name) -> Callable[[Run], Run | None]:
        """What a run that is read from now on is, with the points that its summaries do not include yet.

        Gives None where they must be settled first.
        """
        run = str(name)
        deltas = [waiting[run] for waiting in (self._settled, self._pending) if run in waiting]
        is_behind = run in self._behind or run in self._rebuilding

        def current(found: Run) -> Run | None:
            for delta in deltas:
                if not delta.is_in(found.summarized):
                    summaries = delta.applied_to(found.summaries, found.summarized)
                    if summaries is None:
                        return None
                    found = _summarized(found, summaries, {**found.summarized, **delta.marks()})
            return None if is_behind else found

        return current

    async def settle(self) -> None:
        """Write all that was committed before the call. Raises UnavailableError; `run` then tries again."""
        async with self._settling:
            self._woken.clear()
            self._settled, self._pending = self._pending, {}
            behind = self._rebuilding = self._behind
            self._behind = set()
            try:
                behind |= await self._extend(self._settled)
                self._settled = {}
                while behind:
                    run = next(iter(behind))
                    await self._rebuild(run)
                    behind.remove(run)
            finally:
                self._behind |= behind | self._settled.keys()
                self._settled, self._rebuilding = {}, set()
                if self._behind:
                    self._woken.set()

    async def catch_up(self) -> None:
        """Summarise every run whose points go further than its summaries. Call once, at start."""
        summarized = await self._store.summarized()
        for run, marks in self._points.marks().items():
            if run not in summarized:
                _log.warning("points_without_run", run=run, remedy="restore the database of this directory")
            elif dict(summarized[run]) != marks:
                self._behind.add(run)
        if self._behind:
            _log.info("summaries_catch_up", runs=len(self._behind))
            await self.settle()

    async def _extend(self, deltas: Mapping[str, Delta]) -> set[str]:
        """Add to the summaries, in one transaction; the runs that must be summarised anew."""
        stale: set[str] = set()

        def extended(delta: Delta, run: Run | None) -> Run | None:
            if run is None or delta.is_in(run.summarized):
                return None
            summaries = delta.applied_to(run.summaries, run.summarized)
            if summaries is None:
                stale.add(str(run.name))
                return None
            return self._written(run, summaries, {**run.summarized, **delta.marks()})

        await self._store.update_all({_name(run): partial(extended, deltas[run]) for run in sorted(deltas)})
        return stale

    async def _rebuild(self, run: str) -> None:
        def read() -> tuple[dict[int, int], tuple[Summary, ...]]:
            with self._points.snapshot() as points:  # a metric at a time: a run may have many points
                curves = (points.read(run, [key]) for key in points.keys(run))
                summaries = [each for curve in curves for each in summarize_run(RunPoints(curve, {}))]
                return points.marks(run), tuple(summaries)

        marks, summaries = await asyncio.to_thread(read)

        def change(before: Run | None) -> Run | None:
            return self._written(before, summaries, marks) if before else None

        await self._store.update(_name(run), change)

    def _written(self, run: Run, summaries: tuple[Summary, ...], marks: dict[int, int]) -> Run:
        return replace(_summarized(run, summaries, marks), update_time=self._clock.now())


def _summarized(run: Run, summaries: tuple[Summary, ...], marks: dict[int, int]) -> Run:
    """The run with what its points say; so a program's attempts are known, which nobody registers."""
    return replace(run, summaries=summaries, summarized=marks, attempt=max([run.attempt, *marks]))


def _name(run: str) -> Name:
    return parse_name(run, "runs")
