"""What callers may ask, and what they are told: idempotency, bad input, lists, rights, watching, deleting."""

from __future__ import annotations

import asyncio

import pytest
from finemesh.chassis.auth import Role
from finemesh.core.errors import (
    AlreadyExistsError,
    InvalidError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionError,
)
from finemesh.v1 import fine_tune_spec_pb2
from finemesh.v1 import training_service_pb2 as pb

from tests.support.scripted_cluster import ScriptedCluster
from tests.support.services import ServiceProcess
from tests.support.training_client import State, TrainingClient

pytestmark = pytest.mark.integration


async def test_the_same_request_makes_one_job(client: TrainingClient, trainable: str) -> None:
    answers = await asyncio.gather(*(client.create(trainable, request_id="r-1") for _ in range(8)))
    assert len({job.name for job in answers}) == 1
    listed = await client.call("ListTrainingJobs", pb.ListTrainingJobsRequest(parent=client.parent))
    assert [job.name for job in listed.training_jobs] == [answers[0].name]
    with pytest.raises(AlreadyExistsError) as refused:
        await client.create(trainable, request_id="r-1", priority=5)
    assert refused.value.reason == "REQUEST_ID_REUSED"

    await client.create(trainable, job_id="mine")
    with pytest.raises(AlreadyExistsError) as taken:
        await client.create(trainable, job_id="mine")
    assert taken.value.reason == "TRAINING_JOB_EXISTS"


async def test_a_bad_spec_names_every_wrong_field(client: TrainingClient, trainable: str) -> None:
    lora = fine_tune_spec_pb2.LoraMethod(rank=-1)
    optimization = fine_tune_spec_pb2.OptimizationSpec(learning_rate=-1)
    with pytest.raises(InvalidError) as refused:
        await client.create(
            trainable,
            max_restarts=-1,
            labels={"UPPER": "x"},
            spec={"task": "TASK_UNSPECIFIED", "base_model": "", "lora": lora, "optimization": optimization},
        )
    assert {violation.field for violation in refused.value.violations} == {
        "training_job.labels",
        "training_job.max_restarts",
        "training_job.spec.task",
        "training_job.spec.base_model",
        "training_job.spec.lora.rank",
        "training_job.spec.optimization.learning_rate",
    }
    for wrong in (
        client.create(trainable, job_id="Not-An-Id"),
        client.get(f"{client.parent}/jobs/x"),
        client.create("projects/another/datasets/d"),
    ):
        with pytest.raises(InvalidError):
            await wrong
    with pytest.raises(NotFoundError) as missing:
        await client.get(f"{client.parent}/trainingJobs/nobody")
    assert missing.value.reason == "TRAINING_JOB_NOT_FOUND"


async def test_lists_filter_order_and_page(client: TrainingClient, trainable: str) -> None:
    for priority in range(5):
        await client.create(trainable, job_id=f"j{priority}", priority=priority)
    names: list[str] = []
    token = ""
    for _ in range(3):
        request = pb.ListTrainingJobsRequest(
            parent=client.parent,
            page_size=2,
            page_token=token,
            filter="priority > 0",
            order_by="priority desc",
        )
        page = await client.call("ListTrainingJobs", request)
        names += [job.name.rpartition("/")[2] for job in page.training_jobs]
        token = page.next_page_token
        if not token:
            break
    assert names == ["j4", "j3", "j2", "j1"]
    unknown_field = pb.ListTrainingJobsRequest(parent=client.parent, filter="colour = 3")
    with pytest.raises(InvalidError):
        await client.call("ListTrainingJobs", unknown_field)


async def test_projects_and_roles_are_kept_apart(
    client: TrainingClient, service: ServiceProcess, trainable: str
) -> None:
    job = await client.create(trainable)
    stranger, viewer = (
        TrainingClient(service.address, service.key, "elsewhere"),
        TrainingClient(service.address, service.key, client.project, Role.VIEWER),
    )
    try:
        for call in (stranger.get(job.name), stranger.cancel(job.name), stranger.checkpoints(job.name)):
            with pytest.raises(PermissionDeniedError):
                await call
        assert (await viewer.get(job.name)).name == job.name
        for call in (viewer.cancel(job.name), viewer.create(trainable)):
            with pytest.raises(PermissionDeniedError) as refused:
                await call
            assert refused.value.reason == "ROLE_DENIED"
        commit = pb.CommitCheckpointRequest(name=job.name, attempt=1, fence=1)
        with pytest.raises(PermissionDeniedError):  # not even an operator commits for an attempt
            await client.call("CommitCheckpoint", commit)
    finally:
        await stranger.channel.close()
        await viewer.channel.close()


async def test_delete_takes_the_files_along(
    client: TrainingClient, cluster: ScriptedCluster, trainable: str, service: ServiceProcess
) -> None:
    job = await client.create(trainable)
    attempt = await cluster.next_attempt()
    await attempt.renew()
    with pytest.raises(PreconditionError) as live:
        await client.delete(job.name)
    assert live.value.reason == "TRAINING_JOB_LIVE"
    await attempt.commit(1)
    await attempt.finish_training(1)
    objects = service.object_store()
    try:
        key = f"{job.name}/checkpoints/step-00000001-a1/adapter.bin"
        await objects.put_bytes(key, b"weights")
        await objects.put_bytes(f"{job.name}x/checkpoints/other", b"a neighbour's")
        await client.delete(job.name)
        assert [each.key for each in await objects.list(job.name)] == [f"{job.name}x/checkpoints/other"]
    finally:
        objects.close()
    with pytest.raises(NotFoundError):
        await client.get(job.name)


async def test_watch_tells_a_change_at_once_and_ends_with_the_job(
    client: TrainingClient, trainable: str
) -> None:
    job = await client.create(trainable)
    await client.until(job.name, "QUEUED")
    loop = asyncio.get_running_loop()
    states: list[int] = []
    asked_at = loop.time()
    async for change in client.stub.WatchTrainingJob(pb.WatchTrainingJobRequest(name=job.name)):
        states.append(change.state)
        if len(states) == 1:
            asked_at = loop.time()
            await client.cancel(job.name)
    assert states[0] == State.STATE_QUEUED
    assert states[-1] == State.STATE_CANCELLED
    assert loop.time() - asked_at < 1.5  # the timer alone would take 2 s
