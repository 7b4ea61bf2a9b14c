"""The demo outlives SIGKILL of every part of the mesh, and an outage of Tracking; nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections import Counter
from collections.abc import AsyncGenerator, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest
from finemesh.client import Connection, Received, Settings, Subscriber, load_settings
from finemesh.embedded import Mesh, MeshConfig
from finemesh.embedded.demo.facts import Findings
from finemesh.embedded.demo.progress import Display, Stopwatch
from finemesh.embedded.demo.run import run_main_job
from finemesh.v1 import tracking_service_pb2, training_job_pb2, training_service_pb2
from rich.console import Console

from tests.support.servers import PATIENCE_SECONDS

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

# Everything but the object store, which stands in for one that is kept elsewhere.
VICTIMS = ("dataprep", "training", "tracking", "export", "agent", "nats", "ray")
# Facts of the demo after which something is killed, from its first stage to its last.
MOMENTS = (
    "dataset.imported",
    "dataset.split",
    "training_job.queued",
    "training_job.started",
    "training_job.checkpointed",
    "training_job.resumed",
    "export.started",
)
OUTAGE_SECONDS = 5.0
# What the demo makes: two jobs, two exports, and five datasets.
ONCE_EACH = {
    "dataset.imported": 1,
    "dataset.split": 1,
    "dataset.converted": 3,
    "dataset.validated": 1,
    "training_job.queued": 2,
    "training_job.succeeded": 2,
    "export.verified": 2,
    "export.succeeded": 2,
    "run.compared": 1,
}


class Facts:
    """A durable subscriber with an idempotent handler, which comes back whenever the broker does."""

    def __init__(self, settings: Settings, state: Path) -> None:
        self._settings, self._state = settings, state
        self.effects: Counter[tuple[str, str]] = Counter()
        self._changed = asyncio.Condition()

    async def run(self) -> None:
        while True:
            try:
                await Subscriber(self._settings, start=1, durable="chaos", state=self._state).run(
                    self._handle
                )
            except Exception:
                await asyncio.sleep(0.5)

    async def _handle(self, event: Received) -> None:
        async with self._changed:
            self.effects[event.fact, event.id] += 1
            self._changed.notify_all()

    @property
    def kinds(self) -> Counter[str]:
        """How many different facts there were of each kind."""
        return Counter(kind for kind, _ in self.effects)

    async def wait_for(self, fact: str, count: int = 1) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self.kinds[fact] >= count)


async def harm(mesh: Mesh, facts: Facts, plan: Sequence[tuple[str, str]]) -> None:
    """Kill each victim after its fact; stop Tracking for a while in the middle of training."""

    async def kill(fact: str, victim: str) -> None:
        await facts.wait_for(fact)
        mesh.kill(victim)
        await mesh.wait_ready(victim, PATIENCE_SECONDS)

    async def outage() -> None:
        await facts.wait_for("training_job.checkpointed", 2)
        await mesh.wait_ready("tracking", PATIENCE_SECONDS)
        pid = mesh.pids()["tracking"]
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(OUTAGE_SECONDS)
        finally:
            with contextlib.suppress(ProcessLookupError):  # it may have been killed meanwhile
                os.kill(pid, signal.SIGCONT)

    async with asyncio.TaskGroup() as group:
        for fact, victim in plan:
            group.create_task(kill(fact, victim))
        group.create_task(outage())


@contextlib.asynccontextmanager
async def running(*works: Coroutine[Any, Any, None]) -> AsyncGenerator[list[asyncio.Task[None]]]:
    """Tasks that are over when the block is, whatever it ends with."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        _, left = await asyncio.wait(tasks, timeout=PATIENCE_SECONDS)
        for task in left:
            task.print_stack()
        assert not left, "a task does not end when it is cancelled"


async def test_the_demo_outlives_everything(seed: int, tmp_path: Path) -> None:
    order = random.Random(seed).sample(VICTIMS, len(VICTIMS))
    plan = list(zip(MOMENTS, order, strict=True))
    print(f"seed {seed}: {plan}")
    findings, screen = Findings(own_source=False), tmp_path / "screen.log"
    async with Mesh(
        MeshConfig(data_dir=tmp_path / "mesh", ready_timeout_seconds=2 * PATIENCE_SECONDS)
    ) as mesh:
        settings = load_settings(server=mesh.address, environ={"FINEMESH_DATA_DIR": str(mesh.site.data)})
        facts = Facts(settings, tmp_path / "handled.db")
        async with running(harm(mesh, facts, plan), facts.run()) as (harming, _):
            with (
                screen.open("w", buffering=1) as shown,
                Display(Console(file=shown)) as display,
                Stopwatch(mesh.memory_pss_bytes) as watch,
            ):
                await run_main_job(mesh, None, tmp_path, tmp_path / "out", display, watch, findings)
            assert findings.failures == [], (findings.events, facts.kinds)
            async with asyncio.timeout(PATIENCE_SECONDS):
                await harming
                # The relay of a killed service waits for its predecessor's lease.
                for fact, count in ONCE_EACH.items():
                    await facts.wait_for(fact, count)
            with Connection(settings) as connection:
                jobs = await asyncio.to_thread(check_runs, connection)
    assert set(facts.effects.values()) == {1}, "a fact took effect twice"
    assert {fact: facts.kinds[fact] for fact in ONCE_EACH} == ONCE_EACH
    # An attempt that is killed as soon as it has resumed leaves no certificate.
    assert facts.kinds["training_job.resumed"] >= sum(len(job.resume_certificates) for job in jobs) > 0


def check_runs(connection: Connection) -> list[training_job_pb2.TrainingJob]:
    """Every point of each curve once, and every resume where it left off."""
    request = training_service_pb2.ListTrainingJobsRequest(parent=connection.parent)
    jobs = list(connection.training.ListTrainingJobs(request).training_jobs)
    for job in jobs:
        curve = tracking_service_pb2.QueryMetricsRequest(
            parent=connection.parent, runs=[job.run], keys=["train/loss"], max_points=20_000
        )
        (series,) = connection.tracking.QueryMetrics(curve).series
        assert list(series.steps) == list(range(1, job.total_steps + 1)), "a gap or a duplicate in the curve"
        assert all(certificate.matches for certificate in job.resume_certificates)
    return jobs
