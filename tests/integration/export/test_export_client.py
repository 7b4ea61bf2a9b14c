"""Downloads by the client, through the gateway: they go on where they broke off, and believe nothing."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import zipfile
from collections.abc import Generator
from pathlib import Path

import pytest
from finemesh.chassis.auth import Role
from finemesh.chassis.s3 import S3ObjectStore
from finemesh.client import Connection, Settings, connect, download_files
from finemesh.client.archives import download_archive
from finemesh.client.transfer import TransferError, partial_of
from finemesh.v1 import dataset_pb2
from finemesh.v1 import export_service_pb2 as pb

from tests.support.export_client import ExportClient
from tests.support.export_gateway import HttpDoor
from tests.support.packages import CONTENT, release
from tests.support.scripted_cluster import ScriptedCluster
from tests.support.servers import PATIENCE_SECONDS
from tests.support.services import ServiceProcess

pytestmark = pytest.mark.integration

LARGE = {"weights": bytes(48 << 20)}


@pytest.fixture
def connection(door: HttpDoor, client: ExportClient) -> Generator[Connection]:
    token = door.key.mint("tester", Role.OPERATOR, [client.project], 600)
    with connect(Settings(door.address, client.project, token)) as made:
        yield made


def files_of(connection: Connection, name: str) -> list[dataset_pb2.File]:
    return list(connection.export.ListExportFiles(pb.ListExportFilesRequest(parent=name)).files)


async def test_files_go_on_where_they_broke_off(
    client: ExportClient,
    cluster: ScriptedCluster,
    job: str,
    objects: S3ObjectStore,
    connection: Connection,
    tmp_path: Path,
) -> None:
    export = await client.create(job)
    await release(objects, await cluster.next_attempt(), tmp_path / "made")
    [file] = [each for each in files_of(connection, export.name) if each.path.endswith("safetensors")]
    data, folder, told = CONTENT[file.path], tmp_path / "got", list[int]()
    target = folder / file.path
    target.parent.mkdir(parents=True)
    for kept in (data[:1_000_000], data):
        partial_of(target, file.sha256).write_bytes(kept)
        assert download_files([file], folder, told.append) == [target]
        assert target.read_bytes() == data
        assert told[0] == len(kept)
        assert sum(told) == len(data)
        target.unlink()
        told.clear()
    partial_of(target, file.sha256).write_bytes(b"x" * 1000)
    with pytest.raises(TransferError, match="SHA-256 differs"):
        download_files([file], folder)
    assert download_files([file], folder) == [target]
    with pytest.raises(TransferError, match=r"the download broke off: .*(exists|Not a directory)"):
        download_files([file], target)


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
async def test_archives_go_on_and_are_checked_file_by_file(
    client: ExportClient,
    cluster: ScriptedCluster,
    job: str,
    objects: S3ObjectStore,
    connection: Connection,
    tmp_path: Path,
    suffix: str,
) -> None:
    export = await client.create(job)
    await release(objects, await cluster.next_attempt(), tmp_path / "made")
    target = tmp_path / f"package{suffix}"
    size = await asyncio.to_thread(download_archive, connection, export.name, target)
    data = target.read_bytes()
    assert size == len(data)
    release_id = f"{export.name} {(await client.get(export.name)).manifest_sha256}"
    partial = partial_of(target, hashlib.sha256(release_id.encode()).hexdigest())
    told: list[int] = []
    partial.write_bytes(data[:1_000_001])
    await asyncio.to_thread(download_archive, connection, export.name, target, on_bytes=told.append)
    assert target.read_bytes() == data
    assert told[0] == 1_000_001
    for resume in (True, False):
        partial.write_bytes(data[:2_000_000].replace(b"\x01\x02\x03\x04", b"\x01\x02\x03\x05"))
        if resume:
            with pytest.raises(TransferError, match="not what the export holds"):
                await asyncio.to_thread(download_archive, connection, export.name, target)
            assert not partial.exists()
        else:
            await asyncio.to_thread(download_archive, connection, export.name, target, resume=False)
    (tmp_path / f"folder{suffix}").mkdir()
    for nowhere in (target / f"within-a-file{suffix}", tmp_path / f"folder{suffix}"):
        with pytest.raises(TransferError, match=r"the download broke off: .*(exists|directory)"):
            await asyncio.to_thread(download_archive, connection, export.name, nowhere)


async def test_a_download_outlives_the_service_that_is_killed_in_its_middle(
    client: ExportClient,
    cluster: ScriptedCluster,
    job: str,
    objects: S3ObjectStore,
    connection: Connection,
    service: ServiceProcess,
    tmp_path: Path,
) -> None:
    export = await client.create(job)
    await release(objects, await cluster.next_attempt(), tmp_path / "made", content=LARGE)
    begun, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def wait_once(count: int) -> None:
        if count and not go_on.is_set():
            loop.call_soon_threadsafe(begun.set)
            assert go_on.wait(PATIENCE_SECONDS)

    target = tmp_path / "package.zip"
    downloading = asyncio.create_task(
        asyncio.to_thread(download_archive, connection, export.name, target, on_bytes=wait_once)
    )
    await begun.wait()
    service.kill()
    service.start()  # by this thread: a server ends with the one that started it
    go_on.set()
    await downloading
    with zipfile.ZipFile(target) as archive:
        assert archive.testzip() is None
        assert [info.file_size for info in archive.infolist()] == [48 << 20]
