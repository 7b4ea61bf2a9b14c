"""Passes that are planned in a process of their own: the same plans, and what happens when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil
import pytest
from finemesh.core.attempts import (
    AttemptRef,
    ClusterCapacity,
    Completion,
    NodeCapacity,
    Outcome,
    Phase,
    WorkReport,
)
from finemesh.core.errors import ErrorRecord, FencedError, PreconditionError, UnavailableError
from finemesh.core.names import Name
from finemesh.core.spec.finetune import FineTuneSpec, Resources, Task
from finemesh.core.states import TrainingJobState as State
from finemesh.training.checkpoints import Checkpoint
from finemesh.training.dispatcher import Dispatcher
from finemesh.training.job import TrainingJob
from finemesh.training.planning import Plan, Planner, Question
from finemesh.training.planning_process import PlannerApart, PlanningProcess, Setup
from finemesh.training.quotas import Quota

from tests.support.training_world import World

pytestmark = pytest.mark.integration

LIVE_SECONDS = 1e9
CLUSTERS, NODES, GPUS, CPUS = ("c1", "c2"), 3, 4, 16
ROUNDS = 20


@pytest.fixture
def world(database_url: str) -> Generator[World]:
    made = World(database_url)
    yield made
    made.close()


@pytest.fixture
def small_world() -> Generator[World]:
    made = World()
    yield made
    made.close()


def setup_of(world: World) -> Setup:
    return Setup(world.database_url, LIVE_SECONDS)


def submit(world: World, number: int, rng: random.Random) -> Name:
    name = Name(f"p{rng.randrange(4)}", "trainingJobs", f"j{number:04}")
    gpus = rng.choice([0, 0.5, 1, 1, 2, 4, 6, 64])
    spec = FineTuneSpec(
        Task.LANGUAGE, "base", f"projects/{name.project}/datasets/d", resources=Resources(gpus=gpus)
    )
    now, priority = world.clock.now(), rng.choice([0, 0, 0, 1, 20])
    job = TrainingJob(name, spec, "", "", now, now, priority=priority)
    world.run(world.service.create(job, None))
    return name


async def remove(world: World, name: Name) -> None:
    async with world.store.begin() as unit:
        await unit.remove(name)


@dataclass
class Both:
    """Asks both, and goes on with what the process said."""

    own: Planner
    process: PlanningProcess
    plans: list[Plan] = field(default_factory=list[Plan])

    async def plan(self, question: Question) -> Plan | None:
        here = await self.own.plan(question)
        there = await self.process.ask(question)
        assert there == here
        if there is not None:
            self.plans.append(there)
        return there


class Users:
    """Whatever else happens to a random table of jobs between two passes."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self.world = world
        self.rng = rng
        self.names: list[Name] = []
        self._numbers = itertools.count()

    def go_on(self) -> None:
        world, rng = self.world, self.rng
        for _ in range(rng.choice([0, 3, 12])):
            self.names.append(submit(world, next(self._numbers), rng))
        world.run(world.scheduler.admit())
        if rng.random() < 0.2:
            quota = Quota(f"p{rng.randrange(4)}", rng.choice([1.0, 3.0]), update_time=world.clock.now())
            limit = {"max_gpus": 6.0} if rng.random() < 0.5 else {"max_gpu_hours": 1.0}
            world.run(self._limit(replace(quota, **limit)))
        for name in list(self.names):
            with contextlib.suppress(FencedError, PreconditionError):
                self._go_on_with(name)
        world.run(world.queue.expire_overdue())
        world.clock.advance(rng.choice([0.01, 1.0, 5.0, 900.0]))
        for cluster in CLUSTERS:
            world.run(world.queue.sync(cluster, capacity(cluster), []))
        world.clock.advance(0.001)

    async def _limit(self, quota: Quota) -> None:
        async with self.world.store.begin() as unit:
            await unit.set_quota(quota)

    def _go_on_with(self, name: Name) -> None:
        world, rng = self.world, self.rng
        job = world.run(world.service.get(name))
        ref = AttemptRef(str(name), job.attempt, job.attempt)
        if job.terminal:
            if rng.random() < 0.1:
                self.names.remove(name)
                world.run(remove(world, name))
        elif job.worker is None:
            if rng.random() < 0.05:
                world.run(rng.choice([world.service.cancel, world.service.pause, world.service.resume])(name))
        elif rng.random() < 0.8:
            report = WorkReport(Phase.RUNNING, step=job.step + 1, total_steps=100)
            world.run(world.queue.renew(ref, report))
            if rng.random() < 0.3:
                uri = f"s3://bucket/{name}/checkpoints/{job.step}"
                saved = Checkpoint(job.step + 10, uri, "0" * 64, 1, job.attempt, world.clock.now())
                world.run(world.service.commit_checkpoint(ref, saved))
        else:
            error = ErrorRecord(rng.choice(["UNAVAILABLE", "INVALID_ARGUMENT"]), "X", "it broke")
            world.run(world.queue.complete(ref, Completion(Outcome.FAILED, error=error)))


def capacity(cluster: str) -> ClusterCapacity:
    """As of a cluster that counts nothing yet: what attempts were given is taken off by us."""
    cpus, gpus = float(CPUS), float(GPUS)
    nodes = tuple(NodeCapacity(f"{cluster}-n{i}", "", cpus, cpus, gpus, gpus) for i in range(NODES))
    return ClusterCapacity(
        NODES * cpus, NODES * cpus, NODES * gpus, NODES * gpus, nodes=NODES, node_capacities=nodes
    )


@pytest.mark.parametrize("seed", range(2))
def test_another_process_plans_the_same(world: World, seed: int) -> None:
    """On a random table that goes on changing between passes, of which each is carried out."""
    users = Users(world, random.Random(seed))
    process = PlanningProcess(setup_of(world))
    both = Both(Planner(world.store, LIVE_SECONDS), process)
    dispatcher = Dispatcher(world.store, world.clock, both)
    try:
        for _ in range(ROUNDS):
            users.go_on()
            world.run(dispatcher.place())
    finally:
        process.end()
    seen = Counter[str]()
    for plan in both.plans:
        seen.update(
            placed=len(plan.placed),
            news=len(plan.news),
            preempted=len(plan.preempted),
            reservations=len(plan.reservations),
        )
    assert all(seen[what] > 0 for what in ("placed", "news", "preempted", "reservations")), seen


# What happens when it ends


def waiting_jobs(world: World, count: int) -> list[Name]:
    rng = random.Random(1)
    names = [submit(world, number, rng) for number in range(count)]
    world.run(world.scheduler.admit())
    return names


def apart(world: World, *, first_delay_seconds: float = 0.0) -> PlannerApart:
    own = Planner(world.store, LIVE_SECONDS)
    return PlannerApart(own, setup_of(world), many=3, first_delay_seconds=first_delay_seconds)


def test_few_jobs_need_no_process(small_world: World) -> None:
    plans = apart(small_world)
    waiting_jobs(small_world, 2)
    for _ in range(2):
        plan = small_world.run(plans.plan(Question(small_world.clock.now())))
        assert plan is not None
        assert plan.waiting == 2
        assert plans.pid is None


def test_jobs_count_that_wait_or_are_at_work(world: World) -> None:
    waiting_jobs(world, 5)
    world.run(world.queue.sync("c1", capacity("c1"), []))
    plans = Planner(world.store, LIVE_SECONDS)
    placed = world.run(Dispatcher(world.store, world.clock, plans).place())
    assert 0 < placed < 5
    world.run(plans.plan(Question(world.clock.now())))
    assert world.run(plans.jobs()) == 5
    plans.forget()
    assert world.run(plans.jobs()) == 5


def test_a_process_that_is_killed_in_a_pass_is_stood_in_for_and_started_anew(
    small_world: World, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    world = small_world
    waiting_jobs(world, 5)
    question = Question(world.clock.now())

    async def killed_in_a_pass(plans: PlannerApart) -> tuple[Plan | None, ...]:
        by_process = await plans.plan(question)
        assert plans.pid is not None
        os.kill(plans.pid, signal.SIGSTOP)
        asked = asyncio.create_task(plans.plan(question))
        await asyncio.sleep(0)  # it is asked
        os.kill(plans.pid, signal.SIGKILL)
        stood_in = await asked
        assert plans.pid is None
        anew = await plans.plan(question)
        assert plans.pid is not None
        return by_process, stood_in, anew

    with contextlib.closing(apart(world)) as plans:
        by_process, *others = world.run(killed_in_a_pass(plans))
    assert by_process == world.run(Planner(world.store, LIVE_SECONDS).plan(question))
    assert others == [by_process] * 2
    # Another test of this process may have set up its logs, or none.
    assert "planning_process_gone" in "".join([*capsys.readouterr(), caplog.text])


def test_a_process_that_cannot_start_is_put_off(small_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting_jobs(small_world, 5)
    tried: list[int] = []

    def no_memory(*_: object, **__: object) -> None:
        tried.append(1)
        raise OSError("no memory")

    monkeypatch.setattr(subprocess, "Popen", no_memory)
    plans = apart(small_world, first_delay_seconds=1000.0)
    for _ in range(3):
        assert small_world.run(plans.plan(Question(small_world.clock.now()))) is not None
    assert len(tried) == 1


def test_a_process_without_a_word_is_ended(small_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finemesh.training.planning_process.ANSWER_SECONDS", 0.5)
    waiting_jobs(small_world, 5)
    question = Question(small_world.clock.now())
    with contextlib.closing(apart(small_world, first_delay_seconds=1000.0)) as plans:
        process = small_world.run(plans._start())
        assert process is not None
        os.kill(process.pid, signal.SIGSTOP)
        assert small_world.run(plans.plan(question)) is not None
        assert not psutil.pid_exists(process.pid)


def test_a_database_that_is_away_is_told_and_the_process_stays(small_world: World, tmp_path: Path) -> None:
    process = PlanningProcess(Setup(f"sqlite:///{tmp_path}/none/jobs.db", LIVE_SECONDS))
    try:
        for _ in range(2):
            with pytest.raises(UnavailableError, match="did not answer"):
                small_world.run(process.ask(Question(small_world.clock.now())))
    finally:
        assert process.end() == -signal.SIGKILL


def test_it_ends_with_placement(small_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting_jobs(small_world, 5)

    started = asyncio.Event()
    ask = PlanningProcess.ask

    async def told(process: PlanningProcess, question: Question) -> Plan | None:
        started.set()
        return await ask(process, question)

    monkeypatch.setattr(PlanningProcess, "ask", told)

    async def cancelled_in_a_pass(plans: PlannerApart) -> int:
        dispatcher = Dispatcher(small_world.store, small_world.clock, plans)
        placing = asyncio.create_task(dispatcher.place())
        await started.wait()
        assert plans.pid is not None
        pid = plans.pid
        placing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await placing
        return pid

    with contextlib.closing(apart(small_world)) as plans:
        pid = small_world.run(cancelled_in_a_pass(plans))
    assert not psutil.pid_exists(pid)


SERVICE = """
import asyncio, sys
from datetime import UTC, datetime
from finemesh.training.planning import Question
from finemesh.training.planning_process import PlanningProcess, Setup

process = PlanningProcess(Setup(sys.argv[1], 1e9))
asyncio.run(process.ask(Question(datetime.now(UTC))))
print(process.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_with_a_service_that_cannot_end_it(small_world: World, number: signal.Signals) -> None:
    command: Sequence[str] = [sys.executable, "-c", SERVICE, small_world.database_url]
    service = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with service:
        assert service.stdout is not None
        process = psutil.Process(int(service.stdout.readline()))
        process.send_signal(signal.SIGTERM)  # not its own to obey
        assert process.is_running()
        service.send_signal(number)
    process.wait(30)


def test_a_job_that_was_deleted_is_not_planned_for_again(small_world: World) -> None:
    """Its row cannot tell; whoever was to start it does."""
    world = small_world
    [name] = waiting_jobs(world, 1)
    world.run(world.queue.sync("c1", capacity("c1"), []))
    plans = Planner(world.store, LIVE_SECONDS)
    question = Question(world.clock.now())
    assert world.run(plans.plan(question)) is not None
    assert world.run(plans.jobs()) == 1
    world.run(world.service.cancel(name))
    assert world.run(world.service.get(name)).state is State.CANCELLED
    world.run(remove(world, name))
    dispatcher = Dispatcher(world.store, world.clock, plans)
    for waiting in (1, 0):
        world.run(dispatcher.place())
        assert world.run(plans.jobs()) == waiting
