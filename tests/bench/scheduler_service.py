"""The bars of the real Training service at 100,000 waiting jobs and 1,000 nodes of 8 GPUs.

`fill` lets the service fill an empty mesh; `service` starts with a full one, whose attempts renew, and
submits, lists and watches. `renewals` is a small full mesh, whose attempts renew often: what one takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc.aio
import psutil
from finemesh.chassis.auth import Role
from finemesh.chassis.client_channel import channel
from finemesh.training.files import ObjectFiles
from finemesh.v1 import training_job_pb2
from finemesh.v1 import training_service_pb2 as pb
from finemesh.v1.training_service_pb2_grpc import TrainingServiceStub

from tests.bench.measuring import Board
from tests.bench.scheduler_fill import fill_mesh
from tests.bench.scheduler_mesh import NODE_GPUS, PROJECTS, Agent, write_jobs
from tests.support.scripted_dataprep import ScriptedDataPrep
from tests.support.servers import NatsServer, S3Server, free_ports
from tests.support.services import ServiceProcess
from tests.support.training_client import make_spec

NODES: Final = 100  # of each cluster
SUBMITS_A_SECOND, SUBMIT_SECONDS = 200, 20
CALLS: Final = 300
LEASE_SECONDS: Final = 180
RENEWALS_SECONDS: Final = 30.0
RENEWAL_MS: Final = 4.0  # of CPU: the 113 a second of the whole mesh then leave half of a core
FILL_SECONDS: Final = 200.0
FULL: Final = 0.97  # of the GPUs are held before anything is measured


@dataclass(frozen=True, slots=True)
class Size:
    """How many jobs wait on how many clusters, whose attempts renew so often."""

    jobs: int
    clusters: int
    renew_seconds: float


WHOLE: Final = Size(100_000, 10, LEASE_SECONDS / 6)  # six renewals to a lease, as ours
SMALL: Final = Size(5_000, 2, 2.0)


class Site:
    """The service with its neighbours, and a caller of all projects."""

    def __init__(self, service: ServiceProcess, dataprep: ScriptedDataPrep, agents: Sequence[Agent]) -> None:
        self.service = service
        self.agents = agents
        self.datasets = {project: dataprep.add_trainable(project) for project in PROJECTS}
        token = service.key.mint("bench", Role.OPERATOR, ["*"], 3600)
        self.channel = channel(service.address, lambda: token)
        self.stub = TrainingServiceStub(self.channel)

    def held(self) -> float:
        """Share of the GPUs that attempts hold which have renewed their leases."""
        working = [(key in agent.taken_up, c) for agent in self.agents for key, c in agent.working.items()]
        gpus = sum(command.resources.gpus for taken_up, command in working if taken_up)
        return gpus / (len(self.agents) * NODES * NODE_GPUS)

    async def fill(self, patience_seconds: float) -> None:
        """Wait until the mesh is full, or so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_seconds):
                for agent in itertools.cycle(self.agents):
                    if self.held() >= FULL:
                        return
                    await agent.reported.wait()

    def renewals(self) -> int:
        """How many were answered."""
        return sum(agent.renewals for agent in self.agents)

    def passes(self) -> list[dict[str, Any]]:
        """What the service has logged of its scheduling passes so far."""
        lines = self.service.log_path.read_text().splitlines()
        return [json.loads(line) for line in lines if '"scheduling_pass"' in line]


@contextlib.asynccontextmanager
async def site(folder: Path, size: Size, *, full: bool) -> AsyncGenerator[Site]:
    """Everything started, with the jobs waiting and the agents at work: on what has been dispatched already
    if the mesh is to be `full`.
    """
    dataprep, nats = ScriptedDataPrep(free_ports(1)[0]), NatsServer(folder / "nats").start()
    storage = S3Server(folder / "s3").start()
    settings = {
        "FINEMESH_DATAPREP_ADDRESS": dataprep.address,
        "FINEMESH_LEASE_SECONDS": str(LEASE_SECONDS),
        "FINEMESH_LOG_LEVEL": "DEBUG",
    }
    service = ServiceProcess("training", folder / "training", nats, storage, settings)
    dataprep.key = service.key
    dataprep.start()
    try:
        database, clusters = service.folder / "service.db", [f"c{i}" for i in range(size.clusters)]
        await write_jobs(database, size.jobs, seed=1)
        if full:
            with contextlib.closing(service.object_store()) as objects:
                files = ObjectFiles(objects, storage.bucket)
                await fill_mesh(database, service.key, files, clusters, NODES)
        service.start()
        agents = [
            Agent(name, nats.url, service.address, service.key, NODES, None, size.renew_seconds, i)
            for i, name in enumerate(clusters)
        ]
        async with contextlib.AsyncExitStack() as stack:
            for agent in agents:
                await stack.enter_async_context(agent.running())
            made = Site(service, dataprep, agents)
            yield made
            await made.channel.close()
    finally:
        for server in (service, dataprep, storage, nats):
            server.stop()


async def fill(board: Board) -> None:
    """An empty mesh, which the service fills."""
    async with _scratch_site(full=False) as made:
        await made.fill(FILL_SECONDS)
        board.show("GPUs of the mesh that are held", made.held(), FULL, "share", ratio=made.held())
        _show_passes(board, "mesh filling", made.passes())


async def measure(board: Board) -> None:
    """A full mesh: submit, list and watch."""
    async with _scratch_site(full=True) as made:
        await made.fill(FILL_SECONDS)
        assert made.held() >= FULL, f"the agents have taken up {made.held():.3f} of the mesh only"
        await _settled(made)
        before = len(made.passes())
        submitted = await _submit(made)
        refused = SUBMITS_A_SECOND * SUBMIT_SECONDS - len(submitted)
        print(f"submit: median {statistics.median(submitted):.1f} ms, {refused} refused", file=sys.stderr)
        submitted += [float("inf")] * refused
        board.show("submit at 200 a second, p99", _p99(submitted), 20.0, "ms")
        await _settled(made)
        listed = await _timed(lambda i: made.stub.ListTrainingJobs(_list_request(i), timeout=60))
        board.show("list 50 of a project's jobs, p99", _p99(listed), 50.0, "ms")
        urgent = await _timed(
            lambda i: made.stub.ListTrainingJobs(_list_request(i, "priority > 4"), timeout=60)
        )
        board.show("list by priority, p99", _p99(urgent), 50.0, "ms")
        watched = await _timed(lambda i: _first_of_watch(made, i))
        board.show("watch to its first message, p99", _p99(watched), 50.0, "ms")
        _show_passes(board, "mesh full", made.passes()[before:])


async def renewals(board: Board) -> None:
    """CPU time of the service for a renewal, all that it does beside them included."""
    async with _scratch_site(SMALL, full=True) as made:
        await made.fill(FILL_SECONDS)
        process = psutil.Process(made.service.pid)
        used, counted = sum(process.cpu_times()[:2]), made.renewals()
        await asyncio.sleep(RENEWALS_SECONDS)
        renewed = made.renewals() - counted
        took = (sum(process.cpu_times()[:2]) - used) * 1e3 / renewed
        print(f"{renewed / RENEWALS_SECONDS:.0f} renewals a second", file=sys.stderr)
        board.show("a renewal, with what the service does beside it", took, RENEWAL_MS, "ms of CPU")


@contextlib.asynccontextmanager
async def _scratch_site(size: Size = WHOLE, *, full: bool) -> AsyncGenerator[Site]:
    with tempfile.TemporaryDirectory(prefix="finemesh-bench-", dir="/var/tmp") as folder:
        async with site(Path(folder), size, full=full) as made:
            yield made


def _show_passes(board: Board, when: str, passes: Sequence[dict[str, Any]]) -> None:
    took = [each["read_ms"] + each["decide_ms"] for each in passes]
    board.show(f"scheduling pass of the service, {when}, p99", _p99(took), 100.0, "ms")


async def _submit(made: Site) -> list[float]:
    """Times of the accepted CreateTrainingJob in ms. Each is sent at its time, answered the others or not."""
    took: list[float] = []

    async def submit(number: int) -> None:
        project = PROJECTS[number % len(PROJECTS)]
        spec = make_spec(made.datasets[project])
        spec.resources.gpus, spec.resources.cpus = 8, 8
        job = training_job_pb2.TrainingJob(spec=spec)
        request = pb.CreateTrainingJobRequest(parent=f"projects/{project}", training_job=job)
        began = time.perf_counter()
        with contextlib.suppress(grpc.aio.AioRpcError):  # it is too much: one that is not answered is missing
            await made.stub.CreateTrainingJob(request, timeout=60)
            took.append((time.perf_counter() - began) * 1e3)

    async with asyncio.TaskGroup() as group:
        begin = time.perf_counter()
        for number in range(SUBMITS_A_SECOND * SUBMIT_SECONDS):
            await asyncio.sleep(max(begin + number / SUBMITS_A_SECOND - time.perf_counter(), 0))
            group.create_task(submit(number))
    return took


async def _settled(made: Site) -> None:
    """Wait until the jobs that wait have been read and what was too much is done."""
    while True:
        with contextlib.suppress(grpc.aio.AioRpcError):
            await made.stub.ListTrainingJobs(_list_request(0), timeout=1)
            if made.passes():
                return
        await asyncio.sleep(1)


def _list_request(number: int, filter_text: str = "") -> pb.ListTrainingJobsRequest:
    return pb.ListTrainingJobsRequest(parent=f"projects/{PROJECTS[number % 50]}", filter=filter_text)


async def _first_of_watch(made: Site, number: int) -> None:
    name = f"projects/{PROJECTS[number % 500 % 50]}/trainingJobs/waiting-{number % 500:06}-150"
    call = made.stub.WatchTrainingJob(pb.WatchTrainingJobRequest(name=name), timeout=60)
    await anext(aiter(call))
    call.cancel()


async def _timed(call: Callable[[int], Awaitable[Any]]) -> list[float]:
    took: list[float] = []
    for number in range(CALLS):
        began = time.perf_counter()
        await call(number)
        took.append((time.perf_counter() - began) * 1e3)
    return took


def _p99(values: Sequence[float]) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(0.99 * len(ordered)))] if ordered else float("inf")


def run_renewals(board: Board) -> None:
    asyncio.run(renewals(board))


def run_fill(board: Board) -> None:
    asyncio.run(fill(board))


def run(board: Board) -> None:
    asyncio.run(measure(board))
