"""Whatever is killed in the middle of an export: it starts again, and leaves no half package."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from finemesh.chassis.s3 import S3ObjectStore
from finemesh.core.errors import NotFoundError, PreconditionError
from finemesh.v1 import export_retention_pb2
from finemesh.v1 import export_service_pb2 as pb

from tests.support.export_client import ExportClient, State
from tests.support.packages import place_of, release, result, upload_half
from tests.support.scripted_cluster import ScriptedCluster
from tests.support.servers import PATIENCE_SECONDS
from tests.support.services import ServiceProcess

pytestmark = pytest.mark.integration


async def eventually(holds: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait for what the service does on a timer."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await holds():  # noqa: ASYNC110  another process is waited for
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"not so in time: {what}") from None


async def is_empty(objects: S3ObjectStore, place: str) -> bool:
    return not await objects.list(f"{place}/")


@pytest.mark.parametrize("with_service", [False, True], ids=["worker", "worker and service"])
async def test_a_kill_while_a_package_is_uploaded(
    client: ExportClient,
    cluster: ScriptedCluster,
    job: str,
    objects: S3ObjectStore,
    service: ServiceProcess,
    tmp_path: Path,
    *,
    with_service: bool,
) -> None:
    export = await client.create(job)
    killed = await cluster.next_attempt()
    await killed.renew("VERIFYING")
    await upload_half(objects, killed, tmp_path)
    cluster.forget(killed)
    if with_service:
        service.kill()
        service.start()
    with pytest.raises(PreconditionError):
        await client.files(export.name)
    again = await cluster.next_attempt()
    assert place_of(again) != place_of(killed)
    place = await release(objects, again, tmp_path)
    done = await client.until(export.name, "SUCCEEDED")
    assert done.attempt == again.command.attempt > killed.command.attempt
    assert len((await client.files(export.name)).files) == 4
    await eventually(lambda: is_empty(objects, place_of(killed)), "the half package is gone")
    assert not await is_empty(objects, place)


@pytest.mark.parametrize("end", ["cancelled", "rejected"])
async def test_what_an_export_leaves_that_is_not_released(
    client: ExportClient, cluster: ScriptedCluster, job: str, objects: S3ObjectStore, tmp_path: Path, end: str
) -> None:
    export = await client.create(job)
    attempt = await cluster.next_attempt()
    await attempt.renew("VERIFYING")
    await upload_half(objects, attempt, tmp_path)
    if end == "cancelled":
        await client.cancel(export.name)
        await attempt.stop()
    else:
        await attempt.complete(result(passed=False))
    await client.until(export.name, end.upper())
    await eventually(lambda: is_empty(objects, place_of(attempt)), "nothing is left")


async def test_exports_that_have_had_their_time_go(
    client: ExportClient, cluster: ScriptedCluster, job: str, objects: S3ObjectStore, tmp_path: Path
) -> None:
    """By their own time and by the project's retention; the pinned one and the newest stay."""
    made: list[str] = []
    for step, pinned in ((20, True), (30, False), (40, False)):
        choice = "CHECKPOINT_CHOICE_STEP"
        export = await client.create(job, pinned=pinned, checkpoint=choice, step=step)
        place = await release(objects, await cluster.next_attempt(), tmp_path)
        await client.until(export.name, "SUCCEEDED")
        made.append(export.name)
    pinned, older, newest = made

    async def gone(name: str) -> bool:
        try:
            await client.get(name)
        except NotFoundError:
            return True
        return False

    admin = client.as_admin()
    setting = export_retention_pb2.ExportRetention(name=f"{client.parent}/exportRetention", keep_last=1)
    request = pb.UpdateExportRetentionRequest(export_retention=setting)
    assert (await admin.call("UpdateExportRetention", request)).keep_last == 1
    await admin.channel.close()
    await eventually(lambda: gone(older), "the older one has gone")
    assert not await gone(newest)
    soon = datetime.now(UTC) + timedelta(seconds=4)  # it must be in the future when it arrives
    for name in (pinned, newest):
        await client.update(name, "expire_time", expire_time=soon)
    await eventually(lambda: gone(newest), "the newest one has had its own time")
    await eventually(lambda: is_empty(objects, place), "and so has its package")
    assert (await client.get(pinned)).state == State.STATE_SUCCEEDED
