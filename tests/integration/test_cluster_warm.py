"""Warm workers on a real Ray: they take nothing, are given away once, and are gone with their attempt."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from finemesh.chassis.auth import SigningKey
from finemesh.chassis.fine_tune_spec import resources_to_proto, spec_to_proto
from finemesh.chassis.objects import upload_directory
from finemesh.core.spec.finetune import Checkpointing, Optimization, Resources, Task
from finemesh.v1 import attempt_pb2
from finemesh.v1.attempt_service_pb2 import GpuRelease

from tests.support.cluster_site import LEASE_SECONDS, Site
from tests.support.conversations import spec, text_rows, tiny_model, write_dataset
from tests.support.ray_head import RayHeadProcess
from tests.support.scripted_mesh import HeldAttempt, ScriptedMesh, scripted_mesh, until
from tests.support.servers import NatsServer, S3Server

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
GPUS = 2


@pytest.fixture(scope="module")
def ray_head(tmp_path_factory: pytest.TempPathFactory) -> Generator[RayHeadProcess]:
    """With GPUs that Ray gives out as if they were there."""
    head = RayHeadProcess(tmp_path_factory.mktemp("ray"), gpus=GPUS)
    try:
        yield head.start()
    finally:
        head.remove()


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncGenerator[ScriptedMesh]:
    mesh = scripted_mesh(SigningKey.load_or_create(tmp_path / "jwt.key"), LEASE_SECONDS)
    await mesh.start("service")
    await mesh.start("tracking")
    yield mesh
    await mesh.stop("service")
    await mesh.stop("tracking")


@pytest.fixture
async def site(
    tmp_path: Path,
    mesh: ScriptedMesh,
    start_nats: Callable[[], NatsServer],
    s3_server: S3Server,
    ray_head: RayHeadProcess,
) -> AsyncGenerator[Site]:
    settings = {"FINEMESH_WARM_WORKERS": "1", "FINEMESH_WARM_REFILL_SECONDS": "0"}
    site = Site(tmp_path, mesh, start_nats(), s3_server, ray_head, **settings)
    await site.objects.ensure_bucket()
    write_dataset(tmp_path / "dataset", list(text_rows({"train": 64, "val": 8, "test": 8})))
    tiny_model(tmp_path / "model", "llama")
    await upload_directory(site.objects, tmp_path / "dataset", "material/dataset")
    await site.bus.start()
    await site.start_agent()
    yield site
    await site.close()


async def train(site: Site, job: str, **resources: float) -> HeldAttempt:
    """Have a run begun that ends long after the test."""
    wanted = replace(Resources(cpus=1), **resources)
    endless = replace(
        spec(Task.LANGUAGE, resources=wanted),
        base_model=str(site.data_dir.parent / "model"),
        optimization=Optimization(max_steps=1_000_000, micro_batch_size=4, seed=3),
        checkpoint=Checkpointing(every_steps=0),
    )
    work = attempt_pb2.TrainWork(
        spec=spec_to_proto(endless),
        dataset_uri=f"s3://{site.bucket}/material/dataset",
        run=f"projects/p/runs/{job}",
        output_uri=f"s3://{site.bucket}/{job}",
    )
    name = f"projects/p/trainingJobs/{job}"
    held = site.mesh.dispatch(name, train_work=work, resources=resources_to_proto(wanted))
    await site.send(held)
    return held


def warm(site: Site) -> set[int]:
    """The processes of Ray that wait with their imports done."""
    return {process.pid for process in actors(site, "WarmWorker")}


def actors(site: Site, kind: str) -> list[psutil.Process]:
    """The processes of Ray that are a `kind`, oldest first. Others may end meanwhile."""
    found: list[tuple[float, psutil.Process]] = []
    for process in site.ray.processes:
        with contextlib.suppress(psutil.Error):
            if " ".join(process.cmdline()).startswith(f"ray::{kind}"):
                found.append((process.create_time(), process))
    return [process for _, process in sorted(found, key=lambda each: each[0])]


def alive(pids: set[int]) -> bool:
    return any(psutil.pid_exists(pid) for pid in pids)


async def heard(mesh: ScriptedMesh, resource: str) -> GpuRelease:
    """What the services are told of the GPUs of an attempt at `resource`."""

    def told() -> list[GpuRelease]:
        every = (release for sync in mesh.syncs for release in sync.gpu_releases)
        return [release for release in every if release.attempt.resource == resource]

    await until(told, "the release")
    return told()[0]


def kept_from_others(site: Site, gpu: str) -> set[str]:
    """Which GPUs Ray can still give away while a keeper has `gpu`, as another driver finds them."""
    environment = os.environ | site.ray.environment | {"ADDRESS": site.ray.address, "GPU": gpu}
    done = subprocess.run(
        [sys.executable, "-c", KEEP], env=environment, capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stderr
    return set(json.loads(done.stdout))


KEEP = """
import json, os, ray
from finemesh.cluster.devices import Device
from finemesh.cluster.keeper import Keeper, Keepers
from finemesh.cluster.reaper import Holding

ray.init(address=os.environ["ADDRESS"], log_to_driver=False)
holding = Holding(1, 1.0, ray.nodes()[0]["NodeID"], "", (Device(os.environ["GPU"]),))
keepers = Keepers()
keepers.take(holding)
assert keepers.has(holding.node, holding.devices[0])
other = ray.remote(Keeper).options(num_cpus=0, num_gpus=1).remote()
print(json.dumps([ray.get(other.gpu.remote(), timeout=90)]))
"""


async def filled(site: Site, without: set[int]) -> set[int]:
    """Wait until the cluster reports a worker that is warm. Returns it; it is none of `without`."""
    await until(lambda: site.mesh.syncs[-1].capacity.warm_workers == 1, "a warm worker")
    await until(lambda: len(warm(site) - without) == 1, "the one before to be gone")
    return warm(site) - without


async def test_a_warm_worker_is_given_away_once_and_ends_with_its_attempt(
    site: Site, mesh: ScriptedMesh
) -> None:
    first = await filled(site, set())
    [worker] = first
    memory = psutil.Process(worker).memory_full_info()  # its proportional size lies between these
    assert 0.8 * memory.uss < mesh.syncs[-1].capacity.warm_memory_bytes < 1.2 * memory.rss
    await until(
        lambda: (
            (mesh.syncs[-1].capacity.cpus_free, mesh.syncs[-1].capacity.gpus_free) == (site.ray.cpus, GPUS)
        ),
        "a report of all that is free",
    )

    cancelled = await train(site, "cancelled")
    await until(lambda: cancelled.step or cancelled.completions, "a step")
    assert cancelled.pids == first
    await until(lambda: site.cpus_free == site.ray.cpus - 1, "a report of what it holds")
    cancelled.cancelled = True
    await until(lambda: cancelled.completions, "the cancellation")
    assert cancelled.outcome == "cancelled"
    await until(lambda: site.cpus_free == site.ray.cpus, "the CPU back")
    await until(lambda: not alive(first), "the end of the worker")

    # The pool outlives the agent, and what was given away stays so.
    second = await filled(site, first)
    site.kill_agent()
    await site.start_agent()
    assert await filled(site, first) == second
    orphaned = await train(site, "orphaned", gpus=1)
    await until(lambda: orphaned.pids, "its report")
    assert orphaned.pids == second
    (gpu,) = next(report for report in orphaned.reports if report.worker.pids).worker.gpu_ids
    assert gpu in {"0", "1"}
    await until(lambda: orphaned.completions, "the refusal")  # of a machine without an accelerator
    assert mesh.syncs[-1].capacity.gpus == GPUS
    await until(lambda: site.mesh.syncs[-1].capacity.gpus_free == GPUS, "the GPU back")
    await until(lambda: not alive(second), "the end of the worker")
    # That it is free was proven, and the service is told so.
    released = await heard(mesh, "projects/p/trainingJobs/orphaned")
    assert (list(released.gpus), released.attempt.attempt) == ([gpu], 1)
    assert f"process {min(second)} is gone" in released.evidence
    assert await asyncio.to_thread(kept_from_others, site, gpu) == {"0", "1"} - {gpu}

    # Whatever ends the supervisor ends the worker.
    third = await filled(site, second)
    killed = await train(site, "killed")
    await until(lambda: killed.step or killed.completions, "a step")
    assert killed.pids == third
    actors(site, "Standby")[0].kill()
    await until(lambda: not alive(third), "the end of the worker")
    await until(lambda: site.cpus_free == site.ray.cpus, "the CPU back")

    # One that has died without anybody's notice costs the attempt nothing but a cold start.
    fourth = await filled(site, third)
    for pid in fourth:
        os.kill(pid, signal.SIGKILL)
    cold = await train(site, "cold")
    await until(lambda: cold.step or cold.completions, "a step")
    assert cold.step
    assert cold.pids.isdisjoint(fourth)
