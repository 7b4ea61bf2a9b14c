"""The mesh that the scheduler is measured on: a real Training on SQLite and NATS, and agents without Ray.

The jobs that wait are rows, written before the service starts, as it would have left them. The agents speak
the real protocol: they report their nodes, take commands from JetStream, renew leases and complete attempts.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import grpc.aio
from finemesh.chassis.auth import Role, SigningKey
from finemesh.chassis.bus import BusConfig, NatsEventBus
from finemesh.chassis.client_channel import channel
from finemesh.chassis.events import Delivery, command_subject
from finemesh.chassis.migrations import migrate
from finemesh.chassis.sql import Database
from finemesh.core.names import Name
from finemesh.core.spec.finetune import FineTuneSpec, Resources, Task
from finemesh.core.states import TrainingJobState
from finemesh.training.domain import TrainingJob
from finemesh.training.rows import job_values
from finemesh.training.tables import JOBS
from finemesh.v1 import attempt_pb2, attempt_service_pb2, training_job_pb2
from finemesh.v1.attempt_service_pb2_grpc import AttemptServiceStub
from sqlalchemy import insert, text

PROJECTS: Final = tuple(f"project-{number:02}" for number in range(50))
NODE_GPUS, NODE_CPUS = 8, 64
SIZES: Final = (1, 1, 1, 1, 2, 2, 4, 8, 8, 16)
SYNC_SECONDS: Final = 2.0
RETRY_SECONDS: Final = 0.5
# How calls end when there are many at once; the last was seen where the service had not seen the call.
BUSY: Final = {
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
}


async def write_jobs(database: Path, count: int, seed: int) -> None:
    """Rows of `count` jobs that wait, over all projects: a few of each project and size, written by our own
    code, and copies of them, which SQLite makes by itself.
    """
    rng, now = random.Random(seed), datetime.now(UTC)
    db = Database(f"sqlite:///{database}")
    patterns = len(PROJECTS) * len(SIZES)
    copies = [column.name for column in JOBS.columns if column.name not in {"id", "name", "create_time"}]
    listed = ", ".join(copies)
    try:
        await migrate(db, "finemesh.training")
        async with db.begin() as tx:
            made = [_job(number, now - timedelta(hours=30), rng) for number in range(patterns)]
            await tx.execute(insert(JOBS), [job_values(job) | {"traceparent": ""} for job in made])
            await tx.execute(
                text(
                    f"WITH RECURSIVE copy(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM copy WHERE n < :copies)"
                    f" INSERT INTO training_jobs (id, name, create_time, {listed})"
                    f" SELECT id || '-' || n, name || '-' || n,"
                    f" strftime('%Y-%m-%d %H:%M:%f000', create_time, '+' || n || ' minutes'), {listed}"
                    f" FROM copy CROSS JOIN training_jobs"
                ),
                {"copies": count // patterns - 1},
            )
    finally:
        await db.close()


def _job(number: int, created: datetime, rng: random.Random) -> TrainingJob:
    project = PROJECTS[number % len(PROJECTS)]
    name = Name(project, "trainingJobs", f"waiting-{number:06}")
    gpus = SIZES[number // len(PROJECTS) % len(SIZES)]
    spec = FineTuneSpec(Task.LANGUAGE, "base", f"projects/{project}/datasets/split")
    spec = replace(spec, resources=Resources(cpus=4.0 * gpus, gpus=gpus))
    return TrainingJob(
        name,
        spec,
        f"projects/{project}/runs/{name.id}",
        f"s3://bucket/{name}",
        created,
        created,
        priority=rng.choice([0, 0, 0, 1, 5]),
        state=TrainingJobState.QUEUED,
        dataset_uri="s3://bucket/dataset",
        message="waiting for resources",
    )


@dataclass
class Agent:
    """A cluster of `nodes` nodes; its attempts last `seconds` on average, without end if that is None."""

    id: str
    nats_url: str
    address: str
    key: SigningKey
    nodes: int
    seconds: float | None
    renew_seconds: float
    seed: int
    working: dict[tuple[str, int], attempt_pb2.Command] = field(
        default_factory=dict[tuple[str, int], attempt_pb2.Command]
    )
    seen: set[tuple[str, int]] = field(default_factory=set[tuple[str, int]])
    taken_up: set[tuple[str, int]] = field(default_factory=set[tuple[str, int]])
    gpus: Counter[str] = field(default_factory=Counter[str])
    reported: asyncio.Event = field(default_factory=asyncio.Event)
    renewals: int = 0
    _tasks: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[Agent]:
        self._rng = random.Random(self.seed)
        bus = NatsEventBus(BusConfig((self.nats_url,), f"agent-{self.id}"))
        self._service = channel(self.address, self.key.token_source(f"agent-{self.id}", Role.SERVICE))
        self._plain = channel(self.address, None)
        self._stub, self._attempts = AttemptServiceStub(self._service), AttemptServiceStub(self._plain)
        await bus.start()
        loops = [
            asyncio.create_task(bus.consume(f"agent-{self.id}", command_subject(self.id), self._take)),
            asyncio.create_task(self._sync()),
        ]
        try:
            yield self
        finally:
            for task in (*loops, *self._tasks):
                task.cancel()
            await asyncio.gather(*loops, *self._tasks, return_exceptions=True)
            await bus.close()
            await self._service.close()
            await self._plain.close()

    async def _take(self, delivery: Delivery) -> None:
        self._begin(attempt_pb2.Command.FromString(delivery.payload))

    def _begin(self, command: attempt_pb2.Command) -> None:
        key = (command.resource, command.attempt)
        if key in self.seen:
            return
        self.seen.add(key)
        self.working[key] = command
        task = asyncio.create_task(self._work(key, command))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self, key: tuple[str, int], command: attempt_pb2.Command) -> None:
        ref = attempt_service_pb2.AttemptRef(
            resource=command.resource, attempt=command.attempt, fence=command.fence
        )
        request = attempt_service_pb2.RenewLeaseRequest(
            attempt=ref, phase="PHASE_RUNNING", worker=training_job_pb2.WorkerStatus(node_id="n", pids=[1])
        )
        token, left = command.token, self._rng.expovariate(1.0 / self.seconds) if self.seconds else None
        pause = self._rng.uniform(0, self.renew_seconds)  # those that begin together do not renew together
        while True:
            answer = await self._call(self._attempts.RenewLease, request, token)
            token = answer.token
            self.renewals += 1
            self.taken_up.add(key)
            if left is not None and left <= self.renew_seconds:
                break
            await asyncio.sleep(pause)
            left = None if left is None else left - pause
            pause = self.renew_seconds
        done = attempt_service_pb2.CompleteAttemptRequest(
            attempt=ref, cancelled=attempt_service_pb2.CancelledOutcome()
        )
        done.error.code, done.error.message = 3, "the end of the measurement"
        await self._call(self._attempts.CompleteAttempt, done, token)
        del self.working[key]

    async def _call(self, method: Any, request: Any, token: str) -> Any:
        """Call until the service answers, as ours do: one that is busy refuses what is too much for it."""
        while True:
            try:
                return await method(request, metadata=(("authorization", f"Bearer {token}"),), timeout=60)
            except grpc.aio.AioRpcError as error:
                if error.code() not in BUSY:
                    raise
            await asyncio.sleep(RETRY_SECONDS)

    async def _sync(self) -> None:
        while True:
            attempts = [
                attempt_service_pb2.AttemptRef(resource=name, attempt=number, fence=command.fence)
                for (name, number), command in self.working.items()
            ]
            request = attempt_service_pb2.SyncClusterRequest(
                cluster=self.id, capacity=self._capacity(), attempts=attempts
            )
            try:
                answer = await self._stub.SyncCluster(request, timeout=60)
            except grpc.aio.AioRpcError:  # busy; the next one says as much
                await asyncio.sleep(RETRY_SECONDS)
                continue
            for command in answer.commands:
                self._begin(command)
            self.reported.set()
            self.reported.clear()
            await asyncio.sleep(SYNC_SECONDS)

    def _capacity(self) -> attempt_service_pb2.ClusterCapacity:
        """As Ray would tell it: gangs on one node where one is large enough, nodes filled in turn."""
        free = [float(NODE_GPUS)] * self.nodes
        for command in self.working.values():
            _give(free, command.resources.gpus)
        each = [
            attempt_service_pb2.NodeCapacity(
                node_id=f"{self.id}-n{i}",
                cpus=NODE_CPUS,
                cpus_free=NODE_CPUS - 4.0 * (NODE_GPUS - left),
                gpus=NODE_GPUS,
                gpus_free=left,
            )
            for i, left in enumerate(free)
        ]
        return attempt_service_pb2.ClusterCapacity(
            cpus=NODE_CPUS * self.nodes,
            cpus_free=sum(node.cpus_free for node in each),
            gpus=NODE_GPUS * self.nodes,
            gpus_free=sum(free),
            nodes=self.nodes,
            node_capacities=each,
        )


def _give(free: list[float], gpus: float) -> None:
    if gpus <= NODE_GPUS:
        fitting = [i for i, left in enumerate(free) if left >= gpus]
        if fitting:
            free[min(fitting, key=lambda i: free[i])] -= gpus
        return
    for i in sorted(range(len(free)), key=lambda i: -free[i]):
        taken = min(free[i], gpus)
        free[i] -= taken
        gpus -= taken
