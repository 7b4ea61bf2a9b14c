"""The controller of sweeps on SQLite, a new one for every look: what it does to jobs and what not."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from finemesh.chassis.attempts import AttemptQueue
from finemesh.chassis.migrations import migrate
from finemesh.chassis.outbox import Outbox
from finemesh.chassis.sql import Database
from finemesh.chassis.watch import Notifier
from finemesh.core.attempts import RestartPolicy
from finemesh.core.clock import ManualClock
from finemesh.core.names import Name
from finemesh.core.states import SweepState
from finemesh.core.states import TrainingJobState as Job
from finemesh.training.checkpoints import Checkpoint, Retention
from finemesh.training.domain import TrainingResult
from finemesh.training.job import Step, TrainingJob
from finemesh.training.service import Layout, TrainingService
from finemesh.training.store import SqlStore
from finemesh.training.sweeps.controller import SweepController
from finemesh.training.sweeps.domain import Sweep, TrialState, started
from finemesh.training.sweeps.drafts import draft
from finemesh.training.sweeps.store import SweepStore
from finemesh.training.tables import CHASSIS
from finemesh.v1 import fine_tune_spec_pb2, sweep_pb2

NAME = Name("p", "sweeps", "s")


class NoFiles:
    async def delete(self, uri: str) -> None:
        raise AssertionError(uri)


@dataclass
class Sweeping:
    """A sweep of four trials, of which two go on, and the jobs of its trials in the hands of the test."""

    store: SweepStore
    service: TrainingService
    clock: ManualClock

    async def look(self) -> Sweep:
        """One look of a controller that knows nothing but the database."""
        self.clock.advance(1)
        await SweepController(self.store, self.service, self.clock).look()
        async with self.store.read() as view:
            return await view.sweep(NAME)

    async def states(self) -> dict[int, tuple[Job, int]]:
        """State and pause of each job there is."""
        async with self.store.begin() as unit:
            seen = await unit.seen(await unit.sweep(NAME))
        return {number: (each.job.state, each.job.pause_at_step) for number, each in seen.items()}

    async def bring(self, number: int, state: Job, step: int = 0, loss: float = 0.0) -> None:
        """The job of a trial comes to `state`, with a checkpoint of `step` if there is one."""
        async with self.store.begin() as unit:
            job = await unit.jobs.locked(Name("p", "trainingJobs", f"s-{number}"))
            if step:
                saved = Checkpoint(step, "s3://u", "a" * 64, 1, 1, self.clock.now(), {"val/loss": loss})
                await unit.jobs.retain(job.name, Retention((saved,), ()), step)
            # Its dataset was checked, since it has run.
            await unit.jobs.save(Step(replace(job, state=state, dataset_uri="s3://d")))


@pytest.fixture
async def sweeping(tmp_path: Path) -> AsyncGenerator[Sweeping]:
    clock, db = ManualClock(), Database(f"sqlite:///{tmp_path / 'jobs.db'}")
    await migrate(db, "finemesh.training")
    outbox = Outbox(CHASSIS, clock)
    queue: AttemptQueue[TrainingResult] = AttemptQueue(db, outbox)
    jobs = SqlStore(db, outbox, queue, Notifier(), on_change=lambda: None)
    service = TrainingService(jobs, NoFiles(), Layout("bucket"), RestartPolicy(), clock)
    store = SweepStore(jobs, on_change=lambda: None)
    spec = fine_tune_spec_pb2.FineTuneSpec(
        task="TASK_LANGUAGE",
        base_model="base",
        dataset="projects/p/datasets/d",
        lora={},
        optimization={"max_steps": 8},
    )
    asked = sweep_pb2.Sweep(spec=spec, max_parallel=2, successive_halving={"reduction": 2, "min_steps": 3})
    asked.parameters.add(field="optimization.seed").choices.extend([1, 2, 3, 4])
    async with store.begin() as unit:
        await unit.add(started(draft(NAME, asked, clock.now())))
    yield Sweeping(store, service, clock)
    await db.close()


async def test_every_look_goes_on_from_what_the_one_before_has_stored(sweeping: Sweeping) -> None:
    validating, rung = Job.VALIDATING, 4
    first = await sweeping.look()
    assert await sweeping.states() == {1: (validating, rung), 2: (validating, rung)}
    assert (await sweeping.look()).revision == first.revision  # nothing has happened
    await sweeping.bring(2, Job.PAUSED, 4, loss=0.2)
    await sweeping.look()
    await sweeping.bring(1, Job.PAUSED, 3, loss=0.1)  # by hand, before it came to its rung
    await sweeping.look()
    assert set(await sweeping.states()) == {1, 2, 3}
    await sweeping.bring(3, Job.PAUSED, 4, loss=0.4)
    await sweeping.look()
    await sweeping.bring(4, Job.FAILED)
    await sweeping.look()
    await sweeping.bring(1, Job.PAUSED, 4, loss=0.3)  # resumed by hand, and there
    promoted = await sweeping.look()
    assert await sweeping.states() == {
        1: (Job.QUEUED, 0),
        2: (Job.QUEUED, 0),
        3: (Job.CANCELLED, 4),
        4: (Job.FAILED, 4),
    }
    assert [trial.state for trial in promoted.trials] == [
        TrialState.RUNNING,
        TrialState.RUNNING,
        TrialState.ELIMINATED,
        TrialState.FAILED,
    ]
    await sweeping.bring(1, Job.SUCCEEDED, 8, loss=0.1)
    await sweeping.bring(2, Job.SUCCEEDED, 8, loss=0.15)
    done = await sweeping.look()
    assert (done.state, done.best) == (SweepState.SUCCEEDED, 1)
    assert done.trials[0].measured == (0.3, 0.1)


async def test_a_job_of_somebody_else_is_left_alone(sweeping: Sweeping) -> None:
    """Its name was free when the sweep was asked for, and is not when the trial begins."""
    await sweeping.look()
    now = sweeping.clock.now()
    async with sweeping.store.begin() as unit:
        sweep = await unit.sweep(NAME)
        spec = (await unit.seen(sweep))[1].job.spec
        await unit.jobs.add(TrainingJob(sweep.job_name(3), spec, "", "", now, now, display_name="mine"))
    for number in (1, 2):
        await sweeping.bring(number, Job.PAUSED, 4, loss=0.1)
    found = await sweeping.look()
    assert found.trials[2].state is TrialState.FAILED
    assert "not of this sweep" in found.trials[2].message
    async with sweeping.store.read() as view:
        assert (await view.jobs.job(found.job_name(3))).display_name == "mine"
