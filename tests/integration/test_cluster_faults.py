"""The cluster side on a real Ray, NATS and S3: what is killed, cut off or said twice, no harm lasts.

The services are scripted ones that keep the rules of leases, fences and sequences.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc.aio
import psutil
import pytest
from finemesh.chassis.attempts_servicer import mint_attempt_token
from finemesh.chassis.auth import SigningKey
from finemesh.chassis.bus import NatsEventBus
from finemesh.chassis.client_channel import channel
from finemesh.chassis.errors import from_rpc_error
from finemesh.chassis.fine_tune_spec import resources_to_proto, spec_to_proto
from finemesh.chassis.objects import DIRECTORY_MANIFEST, read_manifest, upload_directory
from finemesh.cluster.head import RayHead
from finemesh.core.errors import FencedError, FinemeshError, PreconditionError
from finemesh.core.spec.finetune import Checkpointing, Optimization, Resources, Task
from finemesh.embedded.processes import is_running
from finemesh.v1 import attempt_pb2, dataset_pb2, tracking_service_pb2
from finemesh.v1 import training_service_pb2 as training_pb
from finemesh.v1.metric_pb2 import MetricBatch
from finemesh.v1.tracking_service_pb2_grpc import TrackingServiceStub
from finemesh.v1.training_service_pb2_grpc import TrainingServiceStub

from tests.support.cluster_site import LEASE_SECONDS, Site
from tests.support.conversations import spec, text_rows, tiny_model, write_dataset
from tests.support.ray_head import RayHeadProcess
from tests.support.scripted_mesh import HeldAttempt, ScriptedMesh, scripted_mesh, until
from tests.support.servers import NatsServer, S3Server

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

JOB, RUN = "projects/p/trainingJobs/j", "projects/p/runs/j"
STEPS_PER_CHECKPOINT = 25


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of conversations and a tiny language model."""
    folder = tmp_path_factory.mktemp("material")
    write_dataset(folder / "dataset", list(text_rows({"train": 64, "val": 8, "test": 8})))
    tiny_model(folder / "model", "llama")
    return folder


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
    material: Path,
) -> AsyncGenerator[Site]:
    site = Site(tmp_path, mesh, start_nats(), s3_server, ray_head)
    await site.objects.ensure_bucket()
    await upload_directory(site.objects, material / "dataset", "material/dataset")
    await site.bus.start()
    await until(lambda: _ready(site.bus), "NATS")
    await site.start_agent()
    yield site
    await site.close()
    for ref in mesh.attempts:  # what a test left running would take the CPUs of the next one
        for pid in mesh.attempts[ref].pids:
            _kill(pid)


def _ready(bus: NatsEventBus) -> bool:
    return bus._client.is_connected


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def convert_work(site: Site, name: str) -> dict[str, Any]:
    """Copy a small dataset to `name`, in canonical form."""
    origin = dataset_pb2.ConvertOrigin(
        dataset="projects/p/datasets/parent", format=dataset_pb2.DATASET_FORMAT_CANONICAL
    )
    return {
        "convert_work": attempt_pb2.ConvertWork(
            source_uri=f"s3://{site.bucket}/material/dataset",
            origin=origin,
            output_uri=f"s3://{site.bucket}/{name}",
        )
    }


def train_work(
    site: Site, material: Path, resume: HeldAttempt | None = None, workers: int = 1
) -> dict[str, Any]:
    """A run that ends long after the test, with checkpoints on the way."""
    resources = Resources(cpus=workers, workers=workers)
    endless = replace(
        spec(Task.LANGUAGE, resources=resources),
        base_model=str(material / "model"),
        optimization=Optimization(max_steps=1_000_000, micro_batch_size=4, seed=3),
        checkpoint=Checkpointing(every_steps=STEPS_PER_CHECKPOINT, keep_last=2, keep_best=False),
    )
    work = attempt_pb2.TrainWork(
        spec=spec_to_proto(endless),
        dataset_uri=f"s3://{site.bucket}/material/dataset",
        run=RUN,
        output_uri=f"s3://{site.bucket}/{JOB}/{id(site)}",
        resume_from=resume.checkpoints[-1] if resume else None,
        earlier=resume.checkpoints[-2::-1] if resume else (),
    )
    return {"train_work": work, "resources": resources_to_proto(resources)}


async def trained_to(held: HeldAttempt, step: int) -> None:
    await until(lambda: held.step >= step or held.completions, f"step {step}")
    assert not held.completions, held.completions


def gone(pids: set[int]) -> bool:
    """Whether they have ended: a zombie does nothing any more, and its parent may take a while to notice."""
    return not any(is_running(process) for process in psutil.process_iter() if process.pid in pids)


async def test_ray_refuses_a_client_without_the_token(ray_head: RayHeadProcess) -> None:
    stranger, wrong, known = (RayHead(ray_head.address, token) for token in ("", "0" * 64, ray_head.token))
    for each in (stranger, wrong):
        with pytest.raises(PreconditionError) as refusal:
            await each.cluster_id()
        assert refusal.value.reason == "RAY_REFUSED"
        await each.close()
    assert await known.cluster_id()
    await known.require_token()
    await known.close()


async def test_a_command_is_carried_out_once_though_delivered_twice(site: Site, mesh: ScriptedMesh) -> None:
    held = mesh.dispatch("projects/p/datasets/d", **convert_work(site, "projects/p/datasets/d"))
    await site.send(held)
    await site.send(held)
    await until(lambda: held.completions, "the conversion")
    assert held.outcome == "result", held.completions
    await site.send(held)  # long after its end
    await until(lambda: not site.named(), "the end of the attempt")
    await asyncio.sleep(1)
    assert (len(held.completions), len(held.pids)) == (1, 1)
    assert site.log_lines("command_taken") == 1
    summary = held.completions[0].result.dataset
    assert summary.row_count == 80
    manifest = await read_manifest(site.objects, "projects/p/datasets/d")
    assert summary.size_bytes == manifest.total_bytes
    await until(lambda: site.cpus_free == site.ray.cpus, "the CPUs back")


async def test_a_fault_of_the_request_is_told_and_leaves_nothing(site: Site, mesh: ScriptedMesh) -> None:
    work = convert_work(site, "projects/p/datasets/lost")
    work["convert_work"].source_uri = f"s3://{site.bucket}/material/nothing"
    held = mesh.dispatch("projects/p/datasets/lost", **work)
    await site.send(held)
    await until(lambda: held.completions, "the end")
    error = from_status(held)
    assert error.reason == "DIRECTORY_NOT_FOUND"
    assert not await site.objects.list("projects/p/datasets/lost/")


def from_status(held: HeldAttempt) -> FinemeshError:
    from finemesh.chassis.errors import from_status as convert

    return convert(held.completions[0].error)


# The agent, with supervisors that cannot begin: the first raises, the second is killed while it starts, later
# ones before they have a lease.
BROKEN_SUPERVISORS = """
import os, runpy
from finemesh.cluster import driver
from finemesh.v1 import attempt_pb2

class Supervisor:
    def __init__(self, site, command):
        if attempt_pb2.Command.FromString(command).attempt == 1:
            raise RuntimeError("no room in /tmp")
        if attempt_pb2.Command.FromString(command).attempt == 2:
            os._exit(9)

    async def run(self):
        os._exit(9)

driver.Supervisor = Supervisor
runpy.run_module("finemesh.cluster", run_name="__main__")
"""


async def test_a_supervisor_that_cannot_begin_is_an_attempt_that_failed(
    tmp_path: Path,
    mesh: ScriptedMesh,
    start_nats: Callable[[], NatsServer],
    s3_server: S3Server,
    ray_head: Any,
) -> None:
    broken = ("-c", BROKEN_SUPERVISORS)
    site = Site(tmp_path, mesh, start_nats(), s3_server, ray_head, program=broken)
    await site.bus.start()
    await until(lambda: _ready(site.bus), "NATS")
    await site.start_agent()
    try:
        for number in range(1, 5):
            held = mesh.dispatch(JOB, **convert_work(site, JOB))
            seen = site.log_lines("supervisor_gone")
            await mesh.stop("service")  # which hears of it once it is back
            await site.send(held)
            await until(lambda seen=seen: site.log_lines("supervisor_gone") > seen, "the failure")
            if number == 4:  # another agent, which did not start this supervisor
                site.kill_agent()
            await mesh.start("service")
            if number == 4:
                await site.start_agent()
            await until(lambda held=held: held.completions, "the failure to be told")
            error = from_status(held)
            assert (error.reason, error.retryable) == ("SUPERVISOR_FAILED", True)
            assert held.completions[0].if_not_started
            # Ray's word for an exception may be that of the end of its process, whichever it hears of first.
            assert "for its supervisor failed: " in str(error)
            assert not held.reports
            await until(lambda: not site.named(), "the end of the attempt")
    finally:
        await site.close()


async def test_damaged_checkpoints_are_passed_over_for_the_one_before(
    site: Site, mesh: ScriptedMesh, material: Path
) -> None:
    """One lacks its manifest, as if its upload had been cut off; of the next, one bit is another one."""
    first = mesh.dispatch(JOB, **train_work(site, material))
    await site.send(first)
    await until(lambda: len(first.checkpoints) > 2, "three checkpoints")
    for pid in first.pids:
        _kill(pid)
    await until(lambda: first.completions, "the loss to be told")
    await until(lambda: not site.named() and site.cpus_free == site.ray.cpus, "the end of attempt 1")
    intact, damaged, half = first.checkpoints[-3:]
    prefix = f"s3://{site.bucket}/"
    await site.objects.delete(f"{half.uri.removeprefix(prefix)}/{DIRECTORY_MANIFEST}")
    key = f"{damaged.uri.removeprefix(prefix)}/optimizer.safetensors"
    content = bytearray(await site.objects.get_bytes(key, max_bytes=1 << 30))
    content[-1] ^= 1
    await site.objects.put_bytes(key, bytes(content))

    second = mesh.dispatch(JOB, **train_work(site, material, resume=first))
    await site.send(second)
    await until(lambda: second.checkpoints, "a checkpoint of attempt 2")
    certificate = next(r.resume_certificate for r in second.reports if r.HasField("resume_certificate"))
    assert (certificate.step, certificate.matches) == (intact.step, True)
    assert second.checkpoints[0].step == damaged.step  # trained again: from the same samples
    assert second.checkpoints[0].sample_hash == damaged.sample_hash
    assert len(list(site.data_dir.glob("prepared/*"))) == 1  # nor was the split encoded anew
    second.cancelled = True
    await until(lambda: second.completions, "the cancellation")


async def test_a_rank_that_dies_ends_the_attempt_and_the_next_one_goes_on(
    site: Site, mesh: ScriptedMesh, material: Path
) -> None:
    chosen = random.Random(7)
    first = mesh.dispatch(JOB, **train_work(site, material, workers=2))
    await site.send(first)
    await trained_to(first, STEPS_PER_CHECKPOINT + chosen.randrange(20))
    await until(lambda: first.checkpoints, "a checkpoint")
    assert len(first.pids) == 2
    await until(lambda: site.cpus_free == site.ray.cpus - 2, "a report of what they hold")
    _kill(chosen.choice(sorted(first.pids)))
    await until(lambda: first.completions, "the loss to be told")
    error = from_status(first)
    assert error.reason in {"WORKER_LOST", "RANK_LOST"}
    assert error.retryable
    await until(lambda: gone(first.pids) and site.cpus_free == site.ray.cpus, "the end of both ranks")

    second = mesh.dispatch(JOB, **train_work(site, material, resume=first, workers=2))
    await site.send(second)
    resumed_from = first.checkpoints[-1].step
    await trained_to(second, resumed_from + 5)
    certificate = next(r.resume_certificate for r in second.reports if r.HasField("resume_certificate"))
    assert (certificate.step, certificate.matches) == (resumed_from, True)
    second.cancelled = True
    await until(lambda: second.completions, "the cancellation")
    assert second.outcome == "cancelled"
    assert second.completions[0].cancelled.step == second.checkpoints[-1].step
    await until(lambda: gone(second.pids) and site.cpus_free == site.ray.cpus, "the end of both ranks")
    await until(lambda: not list(site.data_dir.glob("scratch/*")), "the scratch folders to go")


async def test_a_supervisor_that_is_cut_off_stops_before_its_lease_ends(
    site: Site, mesh: ScriptedMesh, material: Path
) -> None:
    held = mesh.dispatch(JOB, **train_work(site, material))
    await site.send(held)
    await trained_to(held, 5)
    token = mint_attempt_token(mesh.key, held.ref, 60)
    await mesh.stop("service")
    await until(lambda: gone(held.pids), "the end of the worker")
    assert time.monotonic() < held.lease_end
    await mesh.start("service")
    # The partition is over, a token still unexpired, and another attempt has begun.
    mesh.dispatch(JOB, **train_work(site, material))
    async with contextlib.AsyncExitStack() as stack:
        service, tracking = (channel(mesh.address(name), lambda: token) for name in ("service", "tracking"))
        stack.push_async_callback(service.close)
        stack.push_async_callback(tracking.close)
        checkpoint = training_pb.CommitCheckpointRequest(name=JOB, attempt=1, fence=1)
        with pytest.raises(FencedError):
            await _translated(TrainingServiceStub(service).CommitCheckpoint(checkpoint))
        late = tracking_service_pb2.LogMetricsRequest(batch=MetricBatch(run=RUN, attempt=1, sequence=10**6))
        with pytest.raises(FencedError):
            await _translated(TrackingServiceStub(tracking).LogMetrics(iter([late])).read())
    assert not held.completions
    await until(lambda: site.cpus_free == site.ray.cpus, "the CPUs back")


async def _translated(call: Any) -> Any:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from None


async def test_stale_attempts_are_killed(site: Site, mesh: ScriptedMesh, material: Path) -> None:
    held = mesh.dispatch(JOB, **train_work(site, material))
    await site.send(held)
    await until(lambda: held.pids, "a worker")
    mesh.stale.append(held.ref)
    await until(lambda: gone(held.pids) and not site.named(), "the end of the stale attempt")
