"""A released package can be had file by file and as one ZIP, straight from the object store."""

from __future__ import annotations

import io
import urllib.request
import zipfile
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from finemesh.chassis.objects import upload_directory
from finemesh.chassis.s3 import S3ObjectStore
from finemesh.core.errors import FinemeshError, InvalidError, NotFoundError, PreconditionError

from tests.integration.export.test_export_life import result
from tests.support.export_client import ExportClient
from tests.support.scripted_cluster import ScriptedCluster
from tests.support.services import ServiceProcess

pytestmark = pytest.mark.integration

CONTENT = {
    "README.md": b"# a card",
    "adapter/adapter_config.json": b"{}",
    "adapter/weights.safetensors": bytes(range(256)) * 12_000,
    "golden/item-0.json": b"",
}


@pytest.fixture
async def objects(service: ServiceProcess) -> AsyncGenerator[S3ObjectStore]:
    store = service.object_store()
    yield store
    store.close()


@pytest.fixture
async def released(
    client: ExportClient, cluster: ScriptedCluster, job: str, objects: S3ObjectStore, tmp_path: Path
) -> str:
    """Name of an export whose package has the files of CONTENT."""
    export = await client.create(job)
    attempt = await cluster.next_attempt()
    await attempt.renew("VERIFYING")
    for path, data in CONTENT.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(data)
    await upload_directory(objects, tmp_path, export.name)
    await attempt.complete(result())
    await client.until(export.name, "SUCCEEDED")
    return export.name


async def test_the_zip_holds_the_package_and_is_always_the_same(client: ExportClient, released: str) -> None:
    first, second = await client.download(released), await client.download(released)
    assert first == second
    with zipfile.ZipFile(io.BytesIO(first)) as archive:
        assert archive.testzip() is None
        folder = released.rpartition("/")[2]
        assert archive.namelist() == [f"{folder}/{path}" for path in sorted(CONTENT)]
        for path, data in CONTENT.items():
            assert archive.read(f"{folder}/{path}") == data


async def test_each_file_can_be_fetched_by_its_url(client: ExportClient, released: str) -> None:
    first = await client.files(released, page_size=3)
    rest = await client.files(released, page_size=3, page_token=first.next_page_token)
    files = [*first.files, *rest.files]
    assert not rest.next_page_token
    assert [file.path for file in files] == sorted(CONTENT)
    for file in files:
        with urllib.request.urlopen(file.url, timeout=10) as response:
            assert response.read() == CONTENT[file.path]
    with pytest.raises(InvalidError):
        await client.files(released, page_token="made up")


async def test_a_package_that_was_tampered_with_does_not_download(
    client: ExportClient, released: str, objects: S3ObjectStore
) -> None:
    path = "adapter/weights.safetensors"
    await objects.put_bytes(f"{released}/{path}", CONTENT[path][:-1] + b"x")
    with pytest.raises(FinemeshError) as error:
        await client.download(released)
    assert error.value.reason == "OBJECT_CORRUPT"


async def test_delete_takes_the_package_along(
    client: ExportClient, released: str, objects: S3ObjectStore, job: str
) -> None:
    live = await client.create(job)
    with pytest.raises(PreconditionError) as refused:
        await client.delete(live.name)
    assert refused.value.reason == "EXPORT_LIVE"
    await client.delete(released)
    assert await objects.list(f"{released}/") == []
    with pytest.raises(NotFoundError):
        await client.get(released)
