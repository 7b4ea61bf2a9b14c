"""What lasts too long: jobs that are checked, started or trained for longer than they may be.

How long an attempt may take to be taken up, to renew its lease, and to stop is the attempt queue's to watch.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

import structlog

from finemesh.core.attempts import Attempt, Directive
from finemesh.core.clock import Clock
from finemesh.core.errors import ErrorRecord, FinemeshError, NotFoundError
from finemesh.core.names import Name
from finemesh.core.states import TrainingJobState as State
from finemesh.training import domain
from finemesh.training.history import Kind
from finemesh.training.job import Step, TrainingJob
from finemesh.training.ports import Store

log: Final = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LimitSettings:
    """Times in seconds.

    Attributes:
        validate_seconds: how long a job may wait for its checks, which need DataPrep.
        launch_seconds: how long an attempt that was taken up may go without beginning to train.
        tick_seconds: how often this is looked at.
    """

    validate_seconds: float = 3600.0
    launch_seconds: float = 3600.0
    tick_seconds: float = 2.0


def passed(
    job: TrainingJob, attempt: Attempt | None, now: datetime, settings: LimitSettings
) -> ErrorRecord | None:
    """The limit that `job` has passed, as the error it will end or start again with."""
    since = job.state_time or job.create_time
    if job.state is State.VALIDATING and _over(since, now, settings.validate_seconds):
        return _error(
            "VALIDATE_TIMEOUT",
            f"its dataset could not be checked within {settings.validate_seconds:g} s; see that DataPrep"
            f" answers, and submit the job again; the last that was heard: {job.message or 'nothing'}",
        )
    if attempt is None or attempt.start_time is None or attempt.directive is not Directive.CONTINUE:
        return None
    if job.state is State.STARTING and _over(attempt.start_time, now, settings.launch_seconds):
        return _error(
            "LAUNCH_TIMEOUT",
            f"attempt {attempt.number} on cluster {attempt.cluster} did not begin to train within"
            f" {settings.launch_seconds:g} s; allow more by FINEMESH_LAUNCH_TIMEOUT_SECONDS if its model"
            " loads that slowly",
        )
    if job.state is State.RUNNING and 0 < job.max_run_seconds <= job.run_seconds + _seconds(since, now):
        return _error(
            "RUN_TIMEOUT",
            f"it has trained for the {job.max_run_seconds:g} s that max_run_seconds allows; its checkpoints"
            " are kept",
        )
    return None


class Limits:
    """Looks for jobs that have passed a limit, and ends what they do."""

    def __init__(self, store: Store, settings: LimitSettings, clock: Clock) -> None:
        self._store = store
        self._settings = settings
        self._clock = clock

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                await self.enforce()
            except FinemeshError as error:
                log.warning("limits_failed", reason=error.reason, error=error.message)
            await asyncio.sleep(self._settings.tick_seconds)

    async def enforce(self) -> int:
        """Act on every limit that was passed. Returns how many jobs may have passed one."""
        oldest = self._clock.now() - timedelta(
            seconds=min(self._settings.validate_seconds, self._settings.launch_seconds)
        )
        async with self._store.read() as view:
            names = await view.lasting_since(oldest)
        for name in names:
            try:
                await self._enforce(name)
            except NotFoundError:
                continue  # deleted since it was found
            except Exception:  # one job in trouble must not keep the others going for ever
                log.exception("limit_failed", job=str(name))
        return len(names)

    async def _enforce(self, name: Name) -> None:
        async with self._store.begin() as unit:
            job, now = await unit.locked(name), self._clock.now()
            error = passed(job, await unit.latest_attempt(name), now, self._settings)
            if error is None:
                return
            log.warning("limit_passed", job=str(name), state=job.state, reason=error.reason)
            if job.state is State.VALIDATING:
                await unit.save(domain.refused(job, error, now))
                return
            await unit.request_stop(name, Directive.CANCEL, error)
            stopping = Step(replace(job, message="saving its state: its time is up", update_time=now))
            await unit.save(stopping.noted(Kind.DIRECTIVE, now, Directive.CANCEL, error))


def _over(since: datetime, now: datetime, limit_seconds: float) -> bool:
    return _seconds(since, now) >= limit_seconds


def _seconds(since: datetime, now: datetime) -> float:
    return max(0.0, (now - since).total_seconds())


def _error(reason: str, message: str) -> ErrorRecord:
    return ErrorRecord("DEADLINE_EXCEEDED", reason, message)
