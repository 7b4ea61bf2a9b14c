"""What the service does on its own: checking new jobs, and giving those that wait to clusters."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import structlog

from finemesh.core.clock import Clock
from finemesh.core.errors import ErrorRecord, FinemeshError, PreconditionError
from finemesh.core.names import Name, parse_name
from finemesh.core.states import TrainingJobState as State
from finemesh.training import domain
from finemesh.training.admission import Described, examine
from finemesh.training.dispatcher import Dispatcher
from finemesh.training.domain import Step, TrainingJob
from finemesh.training.planning import Planner, Plans
from finemesh.training.ports import Datasets, Store
from finemesh.training.service import Layout

log: Final = structlog.get_logger(__name__)

CHECK_BATCH: Final = 30
PASS_REST: Final = 9.0  # so much longer than a pass takes it rests: requests come in between
REST_AT_MOST_SECONDS: Final = 1.0
VERDICTS_AT_ONCE: Final = 10

_Verdict = tuple[ErrorRecord | None, FinemeshError | None]  # why a job is refused; why nobody can tell yet


@dataclass(frozen=True, slots=True)
class SchedulerSettings:
    """Times of the scheduler, in seconds.

    Attributes:
        interval_seconds: how often clusters and back-offs are looked at without being woken.
        live_seconds: how long after its last report a cluster gets work.
        retry_seconds: how long after DataPrep gave no answer a job is checked again.
        described_seconds: how long what DataPrep said of a complete dataset is taken for granted.
    """

    interval_seconds: float = 0.5
    live_seconds: float = 15.0
    retry_seconds: float = 2.0
    described_seconds: float = 2.0


class Scheduler:
    """Two loops: admission asks DataPrep, placement decides from SQL alone. Neither waits for the other.

    Args:
        plans: who plans passes; without, they are planned in this process.
    """

    def __init__(
        self,
        store: Store,
        datasets: Datasets,
        layout: Layout,
        settings: SchedulerSettings,
        clock: Clock,
        plans: Plans | None = None,
    ) -> None:
        self._store = store
        self._datasets = datasets
        self._described = Described(datasets, settings.described_seconds)
        self._layout = layout
        self._settings = settings
        self._clock = clock
        self._dispatcher = Dispatcher(store, clock, plans or Planner(store, settings.live_seconds))

    async def run_admission(self, woken: asyncio.Event) -> None:
        """Check new jobs until cancelled."""
        await self._repeat(self.admit, woken)

    async def run_placement(self, woken: asyncio.Event) -> None:
        """Give waiting jobs to clusters until cancelled."""
        await self._repeat(self.place, woken, rest=PASS_REST)

    async def _repeat(
        self, work: Callable[[], Awaitable[int]], woken: asyncio.Event, rest: float = 0.0
    ) -> None:
        while True:
            began = time.monotonic()
            woken.clear()  # before looking: what changes meanwhile is seen in the next round
            try:
                await work()
            except FinemeshError as error:
                log.warning("scheduler_failed", reason=error.reason, error=error.message)
            await asyncio.sleep(min(rest * (time.monotonic() - began), REST_AT_MOST_SECONDS))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.interval_seconds):
                    await woken.wait()

    # Admission

    async def require_admissible(self, job: TrainingJob) -> None:
        """Raises PreconditionError for a job that would be refused, UnavailableError without DataPrep."""
        refusal = await examine(self._datasets, job.spec)
        if refusal is not None:
            raise PreconditionError(refusal.message, reason=refusal.reason, metadata=refusal.metadata)

    async def admit(self) -> int:
        """Check the jobs whose checks are due. Returns how many there were."""
        async with self._store.read() as view:
            jobs = await view.unvalidated(self._clock.now(), CHECK_BATCH)
        self._described.begin_round()
        for start in range(0, len(jobs), VERDICTS_AT_ONCE):
            part = jobs[start : start + VERDICTS_AT_ONCE]
            checked = await asyncio.gather(*(_examined(self._described, job) for job in part))
            verdicts = {job.name: each for job, each in zip(part, checked, strict=True) if each}
            began = time.monotonic()
            try:
                await self._conclude(verdicts)
            except Exception:  # what is wrong with one is nothing to the others
                await self._conclude_singly(verdicts)
            # So that requests never wait behind more than one of these transactions.
            await asyncio.sleep(time.monotonic() - began)
        return len(jobs)

    async def _conclude(self, verdicts: Mapping[Name, _Verdict]) -> None:
        async with self._store.begin() as unit:
            found = await unit.all_locked(list(verdicts))
            waiting = [job for job in found if job.state is State.VALIDATING]  # not cancelled meanwhile
            if waiting:
                await unit.save_all([self._step(job, verdicts[job.name]) for job in waiting])

    async def _conclude_singly(self, verdicts: Mapping[Name, _Verdict]) -> None:
        for name, verdict in verdicts.items():
            try:
                await self._conclude({name: verdict})
            except Exception:
                log.exception("admission_failed", job=str(name))

    def _step(self, job: TrainingJob, verdict: _Verdict) -> Step:
        now = self._clock.now()
        refusal, away = verdict
        if away is not None:
            again = now + timedelta(seconds=self._settings.retry_seconds)
            why = f"waiting for DataPrep, which could not describe {job.spec.dataset}: {away.message}"
            return domain.postponed(job, why, again, now)
        if refusal is not None:
            log.info("job_refused", job=str(job.name), reason=refusal.reason)
            return domain.refused(job, refusal, now)
        return domain.validated(job, self._layout.uri(parse_name(job.spec.dataset, "datasets")), now)

    # Placement

    async def place(self) -> int:
        """One scheduling pass. Returns how many jobs it started."""
        return await self._dispatcher.place()


async def _examined(datasets: Datasets, job: TrainingJob) -> _Verdict | None:
    try:
        return await examine(datasets, job.spec), None
    except FinemeshError as error:
        return None, error
    except Exception:  # one job in trouble must not keep the others waiting
        log.exception("admission_failed", job=str(job.name))
        return None
