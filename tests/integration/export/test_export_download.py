"""A released package can be had file by file and as one archive, from any byte on."""

from __future__ import annotations

import io
import tarfile
import urllib.request
import zipfile
from pathlib import Path

import pytest
from finemesh.chassis.s3 import S3ObjectStore
from finemesh.core.errors import FinemeshError, InvalidError, NotFoundError, PreconditionError

from tests.support.export_client import ExportClient
from tests.support.packages import CONTENT, release
from tests.support.scripted_cluster import ScriptedCluster
from tests.support.servers import PATIENCE_SECONDS

pytestmark = pytest.mark.integration

# Whether the cluster told of the files with their checksums; those of earlier releases do not.
TOLD = pytest.mark.parametrize("told", [True, False], ids=["told", "untold"])


async def released(
    client: ExportClient,
    cluster: ScriptedCluster,
    job: str,
    objects: S3ObjectStore,
    folder: Path,
    *,
    told: bool = True,
) -> tuple[str, str]:
    """Name of an export whose package has the files of CONTENT, and where that is."""
    export = await client.create(job)
    place = await release(objects, await cluster.next_attempt(), folder, told=told)
    await client.until(export.name, "SUCCEEDED")
    return export.name, place


@TOLD
async def test_archives_hold_the_package_and_begin_anywhere(
    client: ExportClient,
    cluster: ScriptedCluster,
    job: str,
    objects: S3ObjectStore,
    tmp_path: Path,
    *,
    told: bool,
) -> None:
    name, _ = await released(client, cluster, job, objects, tmp_path, told=told)
    folder = name.rpartition("/")[2]
    packed, taped = await client.download(name), await client.download(name, "TAR")
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        assert archive.testzip() is None
        found = {each: archive.read(each) for each in archive.namelist()}
    assert list(found.items()) == [(f"{folder}/{path}", CONTENT[path]) for path in sorted(CONTENT)]
    with tarfile.open(fileobj=io.BytesIO(taped)) as archive:
        assert archive.getnames() == list(found)

    for offset in (1, 700_001, len(packed) - 3, len(packed)):
        assert await client.download(name, offset=offset) == packed[offset:]
    with pytest.raises(InvalidError):
        await client.download(name, offset=len(packed) + 1)
    counted = await client.get(name)
    assert (counted.download_count, counted.link_count) == (6, 0)
    assert counted.HasField("last_download_time")


async def test_each_file_can_be_fetched_by_its_url(
    client: ExportClient, cluster: ScriptedCluster, job: str, objects: S3ObjectStore, tmp_path: Path
) -> None:
    name, _ = await released(client, cluster, job, objects, tmp_path)
    first = await client.files(name, page_size=3)
    rest = await client.files(name, page_size=3, page_token=first.next_page_token)
    files = [*first.files, *rest.files]
    assert not rest.next_page_token
    assert [file.path for file in files] == sorted(CONTENT)
    for file in files:
        with urllib.request.urlopen(file.url, timeout=PATIENCE_SECONDS) as response:
            assert response.read() == CONTENT[file.path]
    large = files[2]
    ranged = urllib.request.Request(large.url, headers={"Range": "bytes=1000-1999"})
    with urllib.request.urlopen(ranged, timeout=PATIENCE_SECONDS) as response:
        assert response.status == 206
        assert response.read() == CONTENT[large.path][1000:2000]
    with pytest.raises(InvalidError):
        await client.files(name, page_token="made up")
    assert (await client.get(name)).link_count == 1


@TOLD
async def test_a_package_that_was_tampered_with_does_not_download(
    client: ExportClient,
    cluster: ScriptedCluster,
    job: str,
    objects: S3ObjectStore,
    tmp_path: Path,
    *,
    told: bool,
) -> None:
    name, place = await released(client, cluster, job, objects, tmp_path, told=told)
    path = "adapter/weights.safetensors"
    await objects.put_bytes(f"{place}/{path}", CONTENT[path][:-1] + b"x")
    with pytest.raises(FinemeshError) as error:
        await client.download(name)
    assert error.value.reason == "OBJECT_CORRUPT"
    assert not (await client.get(name)).download_count


async def test_delete_takes_the_package_along(
    client: ExportClient, cluster: ScriptedCluster, job: str, objects: S3ObjectStore, tmp_path: Path
) -> None:
    name, place = await released(client, cluster, job, objects, tmp_path)
    live = await client.create(job, format="EXPORT_FORMAT_MERGED")
    with pytest.raises(PreconditionError) as refused:
        await client.delete(live.name)
    assert refused.value.reason == "EXPORT_LIVE"
    assert await objects.list(f"{place}/")
    await client.delete(name)
    assert await objects.list(f"{place}/") == []
    with pytest.raises(NotFoundError):
        await client.get(name)
