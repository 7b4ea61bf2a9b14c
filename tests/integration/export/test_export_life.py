"""An export from the request to its release, and the ways in which it is not released."""

from __future__ import annotations

import asyncio

import pytest
from finemesh.core.errors import (
    AlreadyExistsError,
    FencedError,
    InvalidError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionError,
    UnavailableError,
)
from finemesh.v1 import fine_tune_spec_pb2
from google.rpc import code_pb2

from tests.support.export_client import ExportClient, State
from tests.support.packages import result
from tests.support.scripted_cluster import ScriptedCluster
from tests.support.scripted_dataprep import ScriptedDataPrep
from tests.support.scripted_training import ScriptedTraining
from tests.support.services import ServiceProcess
from tests.support.training_client import FactLog

pytestmark = pytest.mark.integration


async def test_a_proven_package_is_released(
    client: ExportClient, cluster: ScriptedCluster, job: str, facts: FactLog
) -> None:
    export = await client.create(job, display_name="best one", labels={"team": "vision"})
    assert export.state == State.STATE_QUEUED
    assert export.step == 20  # the best by default

    attempt = await cluster.next_attempt()
    work = attempt.command.export_work
    assert work.checkpoint.step == 20
    assert work.spec.lora.rank == 4
    assert work.output_uri.startswith(f"s3://finemesh-test/projects/{client.project}/packages/")
    assert work.dataset_uri.startswith("s3://finemesh-test/projects/")
    assert work.lineage["training_job"] == job
    assert work.lineage["checkpoint_digest"] == work.checkpoint.manifest_sha256

    await attempt.renew("STARTING")
    assert (await client.get(export.name)).state == State.STATE_QUEUED
    await attempt.renew("RUNNING", fraction=0.5)
    assert (await client.get(export.name)).state == State.STATE_RUNNING
    await attempt.renew("VERIFYING", fraction=0.9)
    assert (await client.get(export.name)).state == State.STATE_VERIFYING
    await attempt.complete(result())
    done = await client.until(export.name, "SUCCEEDED")
    assert (done.size_bytes, done.parity.items, done.progress.fraction) == (1234, 16, 1.0)
    assert await facts.names_until("succeeded") == ["started", "verified", "succeeded"]


async def test_a_package_that_differs_is_rejected(
    client: ExportClient, cluster: ScriptedCluster, job: str, facts: FactLog
) -> None:
    export = await client.create(job, checkpoint="CHECKPOINT_CHOICE_LAST", format="EXPORT_FORMAT_MERGED")
    assert export.step == 40
    attempt = await cluster.next_attempt()
    await attempt.renew("RUNNING")
    await attempt.complete(result(passed=False, difference=float("inf")))
    rejected = await client.until(export.name, "REJECTED")
    assert rejected.parity.max_logit_difference == float("inf")
    assert await facts.names_until("rejected") == ["started", "verified", "rejected"]
    for refused in (client.files(export.name), client.download(export.name)):
        with pytest.raises(PreconditionError) as error:
            await refused
        assert error.value.reason == "EXPORT_NOT_RELEASED"


async def test_nothing_is_released_unproven(client: ExportClient, cluster: ScriptedCluster, job: str) -> None:
    export = await client.create(job)
    attempt = await cluster.next_attempt()
    await attempt.renew("VERIFYING")
    unproven = result()
    unproven.export.parity.items = 0
    with pytest.raises(InvalidError):
        await attempt.complete(unproven)
    assert (await client.get(export.name)).state == State.STATE_VERIFYING


async def test_a_lost_attempt_is_followed_by_another(
    client: ExportClient, cluster: ScriptedCluster, job: str, facts: FactLog
) -> None:
    export = await client.create(job)
    first = await cluster.next_attempt()
    await first.renew("VERIFYING")
    cluster.forget(first)
    second = await cluster.next_attempt()
    assert second.command.fence > first.command.fence
    first.token = second.token
    with pytest.raises((FencedError, PermissionDeniedError)):
        await first.complete(result())
    await second.renew("RUNNING")
    await second.fail(code_pb2.INTERNAL, "out of luck")
    cluster.forget(second)
    third = await cluster.next_attempt()
    await third.renew("VERIFYING")
    await third.complete(result())
    done = await client.until(export.name, "SUCCEEDED")
    assert done.attempt == 3
    assert await facts.names_until("succeeded") == ["started", "verified", "succeeded"]


async def test_an_error_that_blames_the_request_is_final(
    client: ExportClient, cluster: ScriptedCluster, job: str, facts: FactLog
) -> None:
    export = await client.create(job)
    attempt = await cluster.next_attempt()
    await attempt.renew("RUNNING")
    await attempt.fail(code_pb2.NOT_FOUND, "the base model is gone")
    assert (await client.until(export.name, "FAILED")).error.message == "the base model is gone"
    assert await facts.names_until("failed") == ["started", "failed"]


@pytest.mark.parametrize("moment", ["QUEUED", "RUNNING", "VERIFYING"])
async def test_an_export_cancels_in_every_state(
    client: ExportClient, cluster: ScriptedCluster, job: str, facts: FactLog, moment: str
) -> None:
    export = await client.create(job)
    attempt = await cluster.next_attempt()
    if moment == "QUEUED":
        assert (await client.cancel(export.name)).state == State.STATE_CANCELLED
        with pytest.raises(FencedError):
            await attempt.renew()
    else:
        await attempt.renew(moment)
        assert (await client.cancel(export.name)).state == State.STATE_CANCELLING
        assert await attempt.renew(moment) == "CANCEL"
        await attempt.stop()
    await client.until(export.name, "CANCELLED")
    assert (await facts.names_until("cancelled"))[-1] == "cancelled"


async def test_the_same_request_makes_one_export(
    client: ExportClient, job: str, training: ScriptedTraining
) -> None:
    answers = await asyncio.gather(*(client.create(job, request_id="r-1") for _ in range(6)))
    assert len({export.name for export in answers}) == 1
    training.stop()
    try:
        again = await client.create(job, request_id="r-1")  # answered from the database alone
        assert again.name == answers[0].name
        with pytest.raises(UnavailableError):
            await client.create(job)
    finally:
        training.start()
    with pytest.raises(AlreadyExistsError) as refused:
        await client.create(job, request_id="r-1", display_name="another")
    assert refused.value.reason == "REQUEST_ID_REUSED"
    assert len((await client.list()).exports) == 1


async def test_what_cannot_be_exported_is_refused(
    client: ExportClient, job: str, training: ScriptedTraining, dataprep: ScriptedDataPrep
) -> None:
    dataset = f"{client.parent}/datasets/split"
    running = training.add(client.project, "running", dataset, state="STATE_RUNNING")
    with pytest.raises(PreconditionError) as early:
        await client.create(running)
    assert early.value.reason == "TRAINING_JOB_NOT_READY"

    bare = training.add(client.project, "bare", dataset)
    training.checkpoints[bare] = []
    training.checkpoints[bare] = training.checkpoints[job][1:2]
    training.checkpoints[bare][0].best = False
    assert (await client.create(bare, validate_only=True)).step == 30  # the last one if none is best

    full = fine_tune_spec_pb2.FineTuneSpec(
        task="TASK_LANGUAGE", base_model="m", dataset=dataset, full=fine_tune_spec_pb2.FullMethod()
    )
    with pytest.raises(InvalidError) as adapterless:
        await client.create(training.add(client.project, "full", dataset, spec=full))
    assert adapterless.value.violations[0].field == "export.format"
    with pytest.raises(InvalidError, match="models of language alone") as sees:
        await client.create(job, format="EXPORT_FORMAT_GGUF_Q8_0")
    assert (sees.value.reason, sees.value.violations[0].field) == ("FORMAT_UNSUITABLE", "export.format")

    with pytest.raises(NotFoundError) as missing:
        await client.create(f"{client.parent}/trainingJobs/nobody")
    assert missing.value.reason == "TRAINING_JOB_NOT_FOUND"
    del dataprep.datasets[dataset]
    with pytest.raises(NotFoundError):
        await client.create(job)

    with pytest.raises(InvalidError) as wrong:
        await client.create("projects/other/trainingJobs/x", format="EXPORT_FORMAT_UNSPECIFIED")
    assert {v.field for v in wrong.value.violations} == {"export.training_job", "export.format"}
    assert not (await client.list()).exports


async def test_projects_are_kept_apart(client: ExportClient, job: str, service: ServiceProcess) -> None:
    export = await client.create(job)
    stranger = ExportClient(service.address, service.key, "elsewhere")
    try:
        for call in (stranger.get(export.name), stranger.cancel(export.name), stranger.download(export.name)):
            with pytest.raises(PermissionDeniedError):
                await call
        assert not (await stranger.list()).exports
    finally:
        await stranger.channel.close()


async def test_lists_filter(client: ExportClient, job: str) -> None:
    await client.create(job, export_id="one")
    await client.create(job, export_id="two", format="EXPORT_FORMAT_MERGED")
    merged = await client.list(filter='format = "MERGED" AND state = "QUEUED"')
    assert [export.name.rpartition("/")[2] for export in merged.exports] == ["two"]
    ordered = await client.list(order_by="name desc", page_size=1)
    assert ordered.exports[0].name.endswith("two")
    assert ordered.next_page_token
