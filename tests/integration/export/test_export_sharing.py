"""Equal exports get one package, and the exports of one request go their own ways."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from finemesh.chassis.s3 import S3ObjectStore
from finemesh.core.errors import InvalidError, PermissionDeniedError, PreconditionError
from finemesh.v1 import export_retention_pb2
from finemesh.v1 import export_service_pb2 as pb

from tests.support.export_client import ExportClient, State
from tests.support.packages import CONTENT, release, result
from tests.support.scripted_cluster import ScriptedCluster
from tests.support.scripted_training import ScriptedTraining
from tests.support.training_client import FactLog

pytestmark = pytest.mark.integration


async def test_equal_exports_at_once_and_later_are_made_once(
    client: ExportClient,
    cluster: ScriptedCluster,
    job: str,
    objects: S3ObjectStore,
    tmp_path: Path,
    facts: FactLog,
) -> None:
    """Two at once and one later get one package, which goes with the last of them."""
    together = await asyncio.gather(client.create(job), client.create(job))
    attempt = await cluster.next_attempt()
    maker = attempt.command.resource
    [waiting] = [export for export in together if export.name != maker]
    place = await release(objects, attempt, tmp_path)
    shared = await client.until(waiting.name, "SUCCEEDED")
    later = await client.create(job, display_name="again")
    assert later.state == State.STATE_SUCCEEDED
    assert shared.made_by == later.made_by == maker
    assert (await client.get(maker)).made_by == ""
    assert cluster.commands.empty()
    for _ in range(3):
        assert await facts.names_until("succeeded") == ["started", "verified", "succeeded"]
    for name in (maker, later.name):
        await client.delete(name)
        assert len(await client.download(waiting.name)) > sum(map(len, CONTENT.values()))
    await client.delete(waiting.name)
    assert await objects.list(f"{place}/") == []


async def test_whoever_waits_goes_on_when_the_maker_is_cancelled(
    client: ExportClient, cluster: ScriptedCluster, job: str
) -> None:
    first = await client.create(job)
    attempt = await cluster.next_attempt()
    await attempt.renew("RUNNING")
    async with attempt.kept_alive():
        second, third = await client.create(job), await client.create(job)
        assert first.name in second.progress.message
        assert (await client.cancel(third.name)).state == State.STATE_CANCELLED
        assert (await client.cancel(first.name)).state == State.STATE_CANCELLING
        taken_over = await cluster.next_attempt()
        assert taken_over.command.resource == second.name
        await attempt.stop()
    async with taken_over.kept_alive():
        fourth = await client.create(job)
        await taken_over.complete(result(passed=False, difference=1.0))
    rejected = await client.until(fourth.name, "REJECTED")  # by the same evidence
    assert rejected.parity.max_logit_difference == 1.0
    assert (await client.until(second.name, "REJECTED")).made_by == ""


async def test_what_differs_is_made_by_itself(client: ExportClient, job: str) -> None:
    made = [
        await client.create(job),
        await client.create(job, format="EXPORT_FORMAT_MERGED"),
        await client.create(job, checkpoint="CHECKPOINT_CHOICE_LAST"),
    ]
    assert {export.progress.message for export in made} == {"waiting for a cluster"}
    # The best checkpoint is that of step 20: however it is named, it is the same.
    named = await client.create(job, checkpoint="CHECKPOINT_CHOICE_STEP", step=20, pinned=True)
    assert made[0].name in named.progress.message


async def test_formats_of_one_request_go_their_own_ways(
    client: ExportClient, cluster: ScriptedCluster, job: str, objects: S3ObjectStore, tmp_path: Path
) -> None:
    made = await client.create_several(job, "MERGED", "ADAPTER", export_id_prefix="release-3", request_id="r")
    assert [export.name.rpartition("/")[2] for export in made] == ["release-3-merged", "release-3-adapter"]
    again = await client.create_several(
        job, "MERGED", "ADAPTER", export_id_prefix="release-3", request_id="r"
    )
    assert [export.name for export in again] == [export.name for export in made]
    [group] = {export.group for export in made}
    found = await client.list(filter=f'group = "{group}"')
    assert {export.name for export in found.exports} == {export.name for export in made}

    attempts = {each.command.resource: each for each in [await cluster.next_attempt() for _ in made]}
    merged, adapter = (export.name for export in made)
    await attempts[merged].renew("VERIFYING")
    await attempts[merged].complete(result(passed=False))
    await client.until(merged, "REJECTED")
    await release(objects, attempts[adapter], tmp_path)
    await client.until(adapter, "SUCCEEDED")
    await client.delete(merged)
    assert await client.download(adapter)


async def test_a_request_is_taken_whole_or_not_at_all(client: ExportClient, job: str) -> None:
    for formats in ((), ("MERGED", "MERGED"), ("MERGED", "UNSPECIFIED")):
        with pytest.raises(InvalidError) as refused:
            await client.create_several(job, *formats)
        assert refused.value.reason == "INVALID_EXPORT"
    await client.create(job, export_id="taken-adapter")
    with pytest.raises(Exception, match="taken-adapter"):
        await client.create_several(job, "MERGED", "ADAPTER", export_id_prefix="taken")
    assert len((await client.list()).exports) == 1


async def test_what_people_say_of_an_export_can_be_changed(client: ExportClient, job: str) -> None:
    export = await client.create(job, labels={"team": "vision"})
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    changed = await client.update(
        export.name, "expire_time", "display_name", expire_time=tomorrow, display_name="x"
    )
    assert changed.expire_time.ToDatetime(UTC) == tomorrow
    assert (changed.display_name, dict(changed.labels)) == ("x", {"team": "vision"})
    assert not (await client.update(export.name, "expire_time")).HasField("expire_time")
    with pytest.raises(InvalidError) as refused:
        await client.update(
            export.name, "state", "expire_time", expire_time=datetime.now(UTC) - timedelta(seconds=1)
        )
    assert {violation.field for violation in refused.value.violations} == {
        "update_mask",
        "export.expire_time",
    }


async def test_checkpoints_of_interrupted_jobs_can_be_exported(
    client: ExportClient, job: str, training: ScriptedTraining, cluster: ScriptedCluster
) -> None:
    """By the best one or by its step, and by the name of its run; the lineage says how the job ended."""
    name = training.add(client.project, "stopped", training.jobs[job].spec.dataset, state="STATE_CANCELLED")
    export = await client.create(name.replace("trainingJobs", "runs"))
    assert (export.training_job, export.step) == (name, 20)
    work = (await cluster.next_attempt()).command.export_work
    assert work.lineage["training_job_state"] == "CANCELLED"
    step = "CHECKPOINT_CHOICE_STEP"
    assert (await client.create(name, checkpoint=step, step=30, validate_only=True)).step == 30
    with pytest.raises(PreconditionError, match="40, 30, 20") as missing:
        await client.create(name, checkpoint=step, step=31)
    assert missing.value.reason == "NO_CHECKPOINT"
    contradictory: list[dict[str, Any]] = [{"checkpoint": step}, {"step": 30}]
    for wrong in contradictory:
        with pytest.raises(InvalidError) as refused:
            await client.create(name, **wrong)
        assert [each.field for each in refused.value.violations] == ["export.step"]


async def test_only_admins_say_how_long_exports_are_kept(client: ExportClient) -> None:
    name = f"{client.parent}/exportRetention"
    found = await client.call("GetExportRetention", pb.GetExportRetentionRequest(name=name))
    assert not found.HasField("keep_last")
    wrong = export_retention_pb2.ExportRetention(name=name, keep_last=-1)
    wrong.max_age.FromSeconds(0)
    request = pb.UpdateExportRetentionRequest(export_retention=wrong)
    with pytest.raises(PermissionDeniedError):
        await client.call("UpdateExportRetention", request)
    admin = client.as_admin()
    with pytest.raises(InvalidError) as refused:
        await admin.call("UpdateExportRetention", request)
    await admin.channel.close()
    assert refused.value.reason == "INVALID_RETENTION"
    assert [each.field.split(".")[1] for each in refused.value.violations] == ["keep_last", "max_age"]
