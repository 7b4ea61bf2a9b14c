"""The real Training service on SQLite, its scheduler and queue, with a clock and a DataPrep of the test's."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from finemesh.chassis.attempts import AttemptQueue, AttemptSettings
from finemesh.chassis.auth import SigningKey
from finemesh.chassis.migrations import migrate
from finemesh.chassis.outbox import Outbox
from finemesh.chassis.sql import Database
from finemesh.chassis.watch import Notifier
from finemesh.core.attempts import Directive, RestartPolicy
from finemesh.core.clock import ManualClock
from finemesh.core.errors import UnavailableError
from finemesh.core.names import Name
from finemesh.core.states import TrainingJobState as State
from finemesh.training import domain
from finemesh.training.attempts import JobAttempts
from finemesh.training.domain import TrainingResult
from finemesh.training.limits import Limits, LimitSettings
from finemesh.training.ports import DatasetFacts
from finemesh.training.scheduler import Scheduler, SchedulerSettings
from finemesh.training.service import Layout, TrainingService
from finemesh.training.store import SqlStore
from finemesh.training.tables import CHASSIS

from tests.support.training_model import (
    DELAY,
    GRACE,
    LAUNCH_LIMIT,
    LEASE,
    RETRY,
    START_TIMEOUT,
    VALIDATE_LIMIT,
)

T = TypeVar("T")

TIMES = AttemptSettings(
    lease_seconds=LEASE,
    start_timeout_seconds=START_TIMEOUT,
    cancel_grace_seconds=GRACE["CANCEL"],
    pause_grace_seconds=GRACE["PAUSE"],
)


class Datasets:
    """A DataPrep that answers as the test says."""

    answer = "fit"

    async def describe(self, name: str) -> DatasetFacts:
        if self.answer == "away":
            raise UnavailableError("DataPrep is away")
        rows = {"train": 70, "val": 10, "test": 20} if self.answer == "fit" else {}
        return DatasetFacts(name, "SUCCEEDED", True, rows, 100, 0, True, "")


class NoFiles:
    """Nothing is deleted here."""

    async def delete(self, uri: str) -> None:
        raise AssertionError(uri)


class World:
    """The service. `restart` is a kill and a start: what is not in the database is forgotten."""

    def __init__(self, database_url: str = "") -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="finemesh-world-"))
        self.database_url = database_url or f"sqlite:///{self.folder / 'jobs.db'}"
        self.runner = asyncio.Runner()
        self.clock = ManualClock()
        self.datasets = Datasets()
        self.key = SigningKey.generate()
        self.run(self._start())

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)

    def restart(self) -> None:
        self.run(self.db.close())
        self.run(self._start())

    def close(self) -> None:
        self.run(self.db.close())
        self.runner.close()
        shutil.rmtree(self.folder)

    async def _start(self) -> None:
        self.db = Database(self.database_url)
        await migrate(self.db, "finemesh.training")
        outbox = Outbox(CHASSIS, self.clock)
        self.queue: AttemptQueue[TrainingResult] = AttemptQueue(self.db, outbox, TIMES)
        self.store = SqlStore(self.db, outbox, self.queue, Notifier(), on_change=lambda: None)
        layout = Layout("bucket")
        policy = RestartPolicy(first_delay_seconds=DELAY)
        self.service = TrainingService(self.store, NoFiles(), layout, policy, self.clock)
        self.queue.bind(JobAttempts(self.store, self.service, self.key, self.clock))
        times = SchedulerSettings(live_seconds=1e9, retry_seconds=RETRY, described_seconds=0.0)
        self.scheduler = Scheduler(self.store, self.datasets, layout, times, self.clock)
        self.limits = Limits(self.store, LimitSettings(VALIDATE_LIMIT, LAUNCH_LIMIT), self.clock)

    async def preempt(self, name: Name) -> None:
        """What the scheduler does with a job whose room it needs."""
        async with self.store.begin() as unit:
            job = await unit.locked(name)
            assert job.state in {State.STARTING, State.RUNNING}
            at_work = await unit.request_stop(name, Directive.PREEMPT) is not None
            await unit.save(domain.preempt_asked(job, "a test", self.clock.now(), at_work=at_work))
