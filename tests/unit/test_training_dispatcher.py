"""What a scheduling pass decided is carried out, or decided again."""

from __future__ import annotations

import gc
from collections.abc import Generator

import pytest
from finemesh.core.attempts import ClusterCapacity
from finemesh.core.errors import UnavailableError
from finemesh.core.names import Name
from finemesh.core.spec.finetune import FineTuneSpec, Task
from finemesh.core.states import TrainingJobState as State
from finemesh.training import planning
from finemesh.training.job import TrainingJob

from tests.support.training_world import World

JOB = Name("p", "trainingJobs", "j")


@pytest.fixture
def world() -> Generator[World]:
    made = World()
    yield made
    made.close()


def test_a_job_whose_start_was_not_written_starts_in_the_next_pass(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = world.clock.now()
    spec = FineTuneSpec(Task.LANGUAGE, "base", "projects/p/datasets/d")
    world.run(world.service.create(TrainingJob(JOB, spec, "", "", now, now), None))
    world.run(world.scheduler.admit())
    capacity = ClusterCapacity(cpus=2, cpus_free=2, nodes=1)
    world.run(world.queue.sync("c1", capacity, []))

    async def full_disk(*_: object, **__: object) -> None:
        raise UnavailableError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(world.queue, "dispatch", full_disk)
        world.run(world.scheduler.place())
    assert world.run(world.service.get(JOB)).state is State.QUEUED
    world.run(world.scheduler.place())
    assert world.run(world.service.get(JOB)).state is State.STARTING


def test_the_collector_passes_over_the_jobs_that_wait(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "SETTLED_AT_ONCE", 2)
    now = world.clock.now()
    spec = FineTuneSpec(Task.LANGUAGE, "base", "projects/p/datasets/d")
    passed_over: list[int] = []
    for number in range(2):
        job = TrainingJob(Name("p", "trainingJobs", f"j{number}"), spec, "", "", now, now)
        world.run(world.service.create(job, None))
        world.run(world.scheduler.admit())
        gc.unfreeze()
        world.run(world.scheduler.place())
        passed_over.append(gc.get_freeze_count())
    gc.unfreeze()
    assert [count > 0 for count in passed_over] == [False, True]
