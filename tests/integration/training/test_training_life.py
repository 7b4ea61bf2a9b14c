"""A job from its submission to its end, over losses, cancellations and partitions."""

from __future__ import annotations

import asyncio

import pytest
from finemesh.core.errors import FencedError, FinemeshError, PermissionDeniedError, PreconditionError
from finemesh.events.v1 import training_job_events_pb2
from finemesh.v1 import fine_tune_spec_pb2, training_job_pb2
from google.rpc import code_pb2

from tests.support.scripted_cluster import ScriptedAttempt, ScriptedCluster
from tests.support.servers import PATIENCE_SECONDS
from tests.support.services import ServiceProcess
from tests.support.training_client import FactLog, State, TrainingClient

pytestmark = pytest.mark.integration


async def renew_until_refused(attempt: ScriptedAttempt) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            await attempt.renew()
            await asyncio.sleep(0.2)


async def test_a_job_lives_from_submission_to_success(
    client: TrainingClient, cluster: ScriptedCluster, trainable: str, facts: FactLog
) -> None:
    job = await client.create(trainable, display_name="first", labels={"team": "vision"})
    assert job.state == State.STATE_VALIDATING
    assert job.spec.lora.alpha == 8

    attempt = await cluster.next_attempt()
    work = attempt.command.train_work
    assert work.dataset_uri == f"s3://finemesh-test/{trainable}"
    assert work.output_uri == f"s3://finemesh-test/{job.name}"
    assert work.run == job.name.replace("trainingJobs", "runs")
    assert not work.HasField("resume_from")
    assert (await client.get(job.name)).state == State.STATE_STARTING

    await attempt.renew("STARTING")
    assert (await client.get(job.name)).state == State.STATE_STARTING
    await attempt.renew("RUNNING", step=10, total_steps=40, fraction=0.25)
    running = await client.get(job.name)
    assert running.state == State.STATE_RUNNING
    assert (running.step, running.total_steps, running.worker.pids) == (10, 40, [4242])
    assert running.worker.cluster == cluster.id

    assert await attempt.commit(20, loss=1.0) == []
    assert await attempt.commit(40, loss=2.0) == []
    await attempt.finish_training(40)
    done = await client.until(job.name, "SUCCEEDED")
    assert done.latest_checkpoint.step == done.step == 40
    assert done.row_usage == {"trained": 90, "held_out": 10}
    assert done.HasField("end_time")
    assert not done.HasField("worker")
    assert await facts.names_until("succeeded") == [
        "queued",
        "started",
        "checkpointed",
        "checkpointed",
        "succeeded",
    ]


async def test_a_lost_attempt_is_followed_by_one_that_resumes(
    client: TrainingClient, cluster: ScriptedCluster, trainable: str, facts: FactLog
) -> None:
    job = await client.create(trainable)
    first = await cluster.next_attempt()
    await first.renew()
    await first.commit(20, loss=1.0)
    cluster.forget(first)  # kill -9: it says nothing more

    second = await cluster.next_attempt()
    assert second.command.attempt == 2
    assert second.command.fence > first.command.fence
    assert second.command.train_work.resume_from == (await client.checkpoints(job.name))[0]

    with pytest.raises(FinemeshError):
        await first.renew()
    with pytest.raises(FinemeshError):
        await first.commit(40)
    with pytest.raises(FinemeshError):
        await first.finish_training(20)

    certificate = training_job_pb2.ResumeCertificate(
        attempt=2, step=20, expected_sample_hash="ab", actual_sample_hash="ab", matches=True
    )
    await second.renew(certificate=certificate, step=20)
    resumed = await client.get(job.name)
    assert list(resumed.resume_certificates) == [certificate]
    assert resumed.error.code == code_pb2.UNAVAILABLE
    await second.commit(40)
    await second.finish_training(40)
    await client.until(job.name, "SUCCEEDED")

    told = await facts.until("succeeded")
    expected = ["queued", "started", "checkpointed", "resumed", "checkpointed", "succeeded"]
    assert [event.fact for event in told] == expected
    assert training_job_events_pb2.TrainingJobResumed.FromString(told[3].payload).certificate == certificate


async def test_a_fenced_attempt_is_refused_while_its_token_is_still_good(
    client: TrainingClient, cluster: ScriptedCluster, trainable: str, service: ServiceProcess
) -> None:
    job = await client.create(trainable)
    first = await cluster.next_attempt()
    await first.renew()
    cluster.forget(first)
    second = await cluster.next_attempt()
    # The partitioned attempt holds a token that outlives its lease: the fence alone must stop it.
    first.token = service.key.mint_attempt(
        resource=job.name, attempt=1, fence=first.command.fence, project=client.project, ttl_seconds=600
    )
    for refused in (first.renew(), first.commit(20), first.finish_training(0)):
        with pytest.raises(FencedError):
            await refused
    # Its token names its own fence: claiming the newer one does not help either.
    first.command.fence, first.command.attempt = second.command.fence, second.command.attempt
    for refused in (first.renew(), first.commit(20), first.finish_training(0)):
        with pytest.raises((FencedError, PermissionDeniedError)):
            await refused
    assert await client.checkpoints(job.name) == []
    await client.cancel(job.name)


async def test_errors_that_blame_the_request_are_final_and_others_use_up_the_budget(
    client: TrainingClient, cluster: ScriptedCluster, trainable: str
) -> None:
    blamed = await client.create(trainable)
    attempt = await cluster.next_attempt()
    await attempt.renew()
    await attempt.fail(code_pb2.INVALID_ARGUMENT, "row 7 is too long")
    cluster.forget(attempt)
    failed = await client.until(blamed.name, "FAILED")
    assert (failed.attempt, failed.error.message) == (1, "row 7 is too long")

    unlucky = await client.create(trainable, max_restarts=1)
    for number in (1, 2):
        attempt = await cluster.next_attempt()
        assert attempt.command.attempt == number
        if number == 1:  # the second could not even begin
            await attempt.renew()
        await attempt.fail(code_pb2.INTERNAL, "the actor died")
        cluster.forget(attempt)
    failed = await client.until(unlucky.name, "FAILED")
    assert failed.attempt == 2
    assert "the actor died" in failed.error.message
    told = f"given up after 1 restarts: `finemesh train history {unlucky.name.rpartition('/')[2]}` tells"
    assert told in failed.error.message


@pytest.mark.parametrize("moment", ["QUEUED", "STARTING", "RUNNING", "RUNNING, deaf"])
async def test_a_job_cancels_in_every_state(
    client: TrainingClient, cluster: ScriptedCluster, trainable: str, facts: FactLog, moment: str
) -> None:
    resources = fine_tune_spec_pb2.ResourceSpec(gpus=1 if moment == "QUEUED" else 0)
    job = await client.create(trainable, spec={"resources": resources})
    if moment == "QUEUED":
        await client.until(job.name, "QUEUED")
        assert (await client.cancel(job.name)).state == State.STATE_CANCELLED
    elif moment == "STARTING":
        attempt = await cluster.next_attempt()
        assert (await client.cancel(job.name)).state == State.STATE_CANCELLED
        with pytest.raises(FencedError):
            await attempt.renew()
    else:
        attempt = await cluster.next_attempt()
        assert await attempt.renew() == "CONTINUE"
        assert (await client.cancel(job.name)).state == State.STATE_CANCELLING
        assert (await client.cancel(job.name)).state == State.STATE_CANCELLING
        assert await attempt.renew() == "CANCEL"
        if moment == "RUNNING":
            await attempt.commit(7)
            await attempt.stop(step=7)
            assert (await client.until(job.name, "CANCELLED")).latest_checkpoint.step == 7
        else:  # it goes on as if nothing had been said: the hard limit ends it
            with pytest.raises(FencedError):
                await renew_until_refused(attempt)
    await client.until(job.name, "CANCELLED")
    assert (await facts.names_until("cancelled"))[-1] == "cancelled"
    assert (await client.cancel(job.name)).state == State.STATE_CANCELLED


async def test_checkpoints_the_policy_does_not_keep_expire(
    client: TrainingClient, cluster: ScriptedCluster, trainable: str
) -> None:
    policy = fine_tune_spec_pb2.CheckpointSpec(every_steps=10, keep_last=2, keep_best=True)
    job = await client.create(trainable, spec={"checkpoint": policy})
    attempt = await cluster.next_attempt()
    await attempt.renew()
    uri = {step: attempt.checkpoint(step).uri for step in (10, 20, 30, 40)}
    assert await attempt.commit(10, loss=0.5) == []
    assert await attempt.commit(20, loss=0.9) == []
    assert await attempt.commit(30, loss=0.8) == []  # 10 stays: it is the best
    assert await attempt.commit(40, loss=0.7) == [uri[20]]
    assert await attempt.commit(40, loss=0.7) == [uri[20]]  # the answer got lost: the same once more
    kept = await client.checkpoints(job.name)
    assert [(each.step, each.best) for each in kept] == [(40, False), (30, False), (10, True)]

    for refused, reason in (
        (attempt.commit(40, loss=0.1), "STEP_COMMITTED"),
        (attempt.commit(35), "STALE_CHECKPOINT"),
        (attempt.commit(50, uri="s3://finemesh-test/projects/other/x"), "INVALID_CHECKPOINT"),
    ):
        with pytest.raises(FinemeshError) as error:
            await refused
        assert error.value.reason == reason
    with pytest.raises(PreconditionError) as unsaved:
        await attempt.finish_training(50)
    assert unsaved.value.reason == "CHECKPOINT_NOT_COMMITTED"
    await client.cancel(job.name)
    await attempt.stop()


async def test_an_attempt_may_resume_before_a_checkpoint_that_is_damaged(
    client: TrainingClient, cluster: ScriptedCluster, trainable: str
) -> None:
    policy = fine_tune_spec_pb2.CheckpointSpec(every_steps=10, keep_last=3, keep_best=True)
    job = await client.create(trainable, spec={"checkpoint": policy})
    first = await cluster.next_attempt()
    await first.renew()
    for step, loss in ((10, 0.4), (20, 0.9), (30, 0.8)):
        await first.commit(step, loss=loss)
    await first.fail(code_pb2.UNAVAILABLE, "the worker died")

    second = await cluster.next_attempt()
    work = second.command.train_work
    assert (work.resume_from.step, work.best.step) == (30, 10)
    assert [each.step for each in work.earlier] == [20, 10]
    await second.renew()
    assert await second.commit(30, loss=0.3) == []  # it could read neither 30 nor 20
    assert [(each.step, each.attempt, each.best) for each in await client.checkpoints(job.name)] == [
        (30, 2, True),
        (20, 1, False),
        (10, 1, False),
    ]
    await second.finish_training(30)
    done = await client.until(job.name, "SUCCEEDED")
    assert (done.latest_checkpoint.attempt, done.latest_checkpoint.metrics["val/loss"]) == (2, 0.3)


async def test_priority_then_age_decides_who_runs_next(
    client: TrainingClient, cluster: ScriptedCluster, trainable: str
) -> None:
    whole = fine_tune_spec_pb2.ResourceSpec(cpus=4)
    first = await client.create(trainable, spec={"resources": whole})
    attempt = await cluster.next_attempt()
    assert attempt.command.resource == first.name
    await attempt.renew()
    async with attempt.kept_alive():
        old = await client.create(trainable, spec={"resources": whole})
        await client.until(old.name, "QUEUED")
        urgent = await client.create(trainable, priority=5, spec={"resources": whole})
        for each in (old, urgent):
            await client.until(each.name, "QUEUED")
    await attempt.commit(1)
    await attempt.finish_training(1)
    cluster.forget(attempt)
    for expected in (urgent, old):
        attempt = await cluster.next_attempt()
        assert attempt.command.resource == expected.name
        await attempt.renew()
        await attempt.commit(1)
        await attempt.finish_training(1)
        cluster.forget(attempt)
