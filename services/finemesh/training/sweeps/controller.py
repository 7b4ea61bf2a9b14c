"""What sweeps do on their own: look at the jobs of their trials, and begin, continue and end them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import structlog

from finemesh.core.clock import Clock
from finemesh.core.errors import AlreadyExistsError, FinemeshError
from finemesh.core.names import Name
from finemesh.core.states import TrainingJobState as Job
from finemesh.training import domain as jobs
from finemesh.training.service import TrainingService
from finemesh.training.sweeps import domain
from finemesh.training.sweeps.domain import Deed, Order, Seen, Sweep, Trial, TrialState
from finemesh.training.sweeps.drafts import job_of
from finemesh.training.sweeps.store import SweepStore, SweepUnit

log: Final = structlog.get_logger(__name__)

_REST: Final = 9.0  # so much longer than a look takes it rests: every change of a job wakes it
_REST_AT_MOST_SECONDS: Final = 0.3
INTERVAL_SECONDS: Final = 1.0


class SweepController:
    """One transaction per sweep and look: what was decided, and what is done to jobs, or neither."""

    def __init__(self, store: SweepStore, service: TrainingService, clock: Clock) -> None:
        self._store = store
        self._service = service
        self._clock = clock

    async def run(self, woken: asyncio.Event) -> None:
        """Look after every sweep, until cancelled: when woken, and once a second."""
        while True:
            began = time.monotonic()
            woken.clear()  # before looking: what changes meanwhile is seen in the next round
            try:
                await self.look()
            except FinemeshError as error:
                log.warning("sweeps_failed", reason=error.reason, error=error.message)
            await asyncio.sleep(min(_REST * (time.monotonic() - began), _REST_AT_MOST_SECONDS))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(INTERVAL_SECONDS):
                    await woken.wait()

    async def look(self) -> None:
        """Let every sweep that has not ended go on as far as it can now."""
        async with self._store.read() as view:
            names = await view.live()
        for name in names:
            try:
                await self._look_at(name)
            except Exception:  # one sweep in trouble must not keep the others waiting
                log.exception("sweep_failed", sweep=str(name))

    async def _look_at(self, name: Name) -> None:
        async with self._store.begin() as unit:
            sweep = await unit.locked(name)
            if sweep.terminal:
                return
            seen = await unit.seen(sweep)
            decision = domain.decide(sweep, seen, self._clock.now())
            trials = {trial.number: trial for trial in decision.sweep.trials}
            for order in decision.orders:
                trials[order.number] = await self._carry_out(
                    unit, decision.sweep, trials[order.number], order, seen
                )
            done = replace(decision.sweep, trials=tuple(trials.values()))
            saved = await unit.save(sweep, replace(decision, sweep=done))
        for fact in decision.facts:
            log.info(
                "sweep_went_on", sweep=str(name), fact=fact.name, state=saved.state, promoted=fact.promoted
            )

    async def _carry_out(
        self, unit: SweepUnit, sweep: Sweep, trial: Trial, order: Order, seen: Mapping[int, Seen]
    ) -> Trial:
        """Do what was ordered. Returns the trial, which has failed if its job cannot begin."""
        now = self._clock.now()
        if order.deed is Deed.BEGIN:
            job = replace(self._service.draft(job_of(sweep, trial, now)), pause_at_step=order.pause_at_step)
            try:
                await unit.jobs.add(job)
            except AlreadyExistsError:
                why = f"there is a {job.name} already, which is not of this sweep: delete it, and sweep anew"
                return replace(trial, state=TrialState.FAILED, message=why)
            return trial
        job = seen[order.number].job
        if order.deed is Deed.CANCEL:
            at_work = await unit.request_cancel(job.name)
            await unit.jobs.save(jobs.cancel_asked(job, now, at_work=at_work))
        elif job.state is Job.PAUSED:  # and not one that came to its end early
            going = replace(job, pause_at_step=order.pause_at_step)
            await unit.jobs.save(jobs.resume_asked(going, now))
        return trial
