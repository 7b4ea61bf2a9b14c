"""Bytes in and out through the gateway, and the facts that a dataset leaves on the event stream."""

from __future__ import annotations

import asyncio
import hashlib
import json
import uuid
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any, Final

import pytest
import urllib3
from finemesh.client import (
    Connection,
    Received,
    RpcError,
    Subscriber,
    download_files,
    load_settings,
    wait_for,
)
from finemesh.v1 import dataprep_service_pb2 as pb
from finemesh.v1 import dataset_pb2
from google.api.httpbody_pb2 import HttpBody

from tests.e2e.conftest import RunningMesh
from tests.support.servers import PATIENCE_SECONDS

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

Dataset = dataset_pb2.Dataset
LIVE: Final = (Dataset.STATE_QUEUED, Dataset.STATE_RUNNING, Dataset.STATE_CANCELLING)
CHUNK_BYTES: Final = 100


def masklets(frames: int) -> bytes:
    """A SA-V JSON: one object of 10 by 8 pixels in a video of `frames` frames, 40 wide and 30 high.

    The uncompressed runs of a mask go down its columns, as COCO writes them.
    """
    column = [8, 22]
    runs = [100, *column * 9, 8, 30 * 40 - 100 - 30 * 9 - 8]
    source = {
        "video_id": "dog",
        "video_height": 30.0,
        "video_width": 40.0,
        "masklet": [[{"size": [30, 40], "counts": runs}] for _ in range(frames)],
        "masklet_id": [0],
        "masklet_num": 1,
    }
    return json.dumps(source).encode()


@pytest.fixture(scope="module")
def connection(running_mesh: RunningMesh) -> Iterator[Connection]:
    """Stubs for a project of these tests' own."""
    settings = load_settings(project="transfers", environ={}, folder=running_mesh.folder)
    with Connection(settings) as opened:
        yield opened


def announce(connection: Connection, content: bytes) -> dataset_pb2.Upload:
    upload = dataset_pb2.Upload(
        filename="dog.json", size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest()
    )
    return connection.dataprep.CreateUpload(pb.CreateUploadRequest(parent=connection.parent, upload=upload))


def stream(connection: Connection, name: str, content: bytes) -> dataset_pb2.Upload:
    """Send the bytes of an upload in pieces, by the call that needs no URL."""

    def pieces() -> Iterator[pb.UploadArchiveRequest]:
        for start in range(0, len(content), CHUNK_BYTES):
            chunk = HttpBody(data=content[start : start + CHUNK_BYTES])
            yield pb.UploadArchiveRequest(name="" if start else name, chunk=chunk)

    return connection.dataprep.UploadArchive(pieces())


def make(connection: Connection, dataset: Dataset) -> Dataset:
    """Have a dataset made, and wait for its end."""
    made = connection.dataprep.CreateDataset(
        pb.CreateDatasetRequest(parent=connection.parent, dataset=dataset, request_id=str(uuid.uuid4()))
    )
    request = pb.WatchDatasetRequest(name=made.name)
    return wait_for(
        lambda: connection.dataprep.WatchDataset(request), lambda version: version.state not in LIVE
    )


@pytest.fixture(scope="module")
def imported(connection: Connection) -> Dataset:
    """A dataset whose source went in as a stream of messages."""
    content = masklets(4)
    upload = stream(connection, announce(connection, content).name, content)
    dataset = make(connection, Dataset(imported_from=dataset_pb2.ImportOrigin(upload=upload.name)))
    assert dataset.state == Dataset.STATE_SUCCEEDED, dataset.error
    return dataset


def files_of(connection: Connection, dataset: Dataset) -> list[dataset_pb2.File]:
    request = pb.ListDatasetFilesRequest(parent=dataset.name)
    return list(connection.dataprep.ListDatasetFiles(request).files)


def fetch(url: str, **headers: str) -> Any:
    """GET without a token: the URL is the permission."""
    return urllib3.request("GET", url, headers=headers, retries=False, timeout=PATIENCE_SECONDS)


def test_a_streamed_source_is_imported(imported: Dataset) -> None:
    ledger = imported.summary.ledger
    assert (ledger.inputs, ledger.kept, ledger.quarantined) == (4, 4, 0)


def test_a_file_comes_whole_and_in_ranges(
    running_mesh: RunningMesh, connection: Connection, imported: Dataset
) -> None:
    """Through the gateway's address; the parts are the whole."""
    for file in files_of(connection, imported):
        assert file.url.startswith(running_mesh.url)
        whole = fetch(file.url)
        assert (whole.status, len(whole.data)) == (200, file.size_bytes)
        assert hashlib.sha256(whole.data).hexdigest() == file.sha256
        middle = file.size_bytes // 2
        first, rest = (
            fetch(file.url, Range=f"bytes=0-{middle - 1}"),
            fetch(file.url, Range=f"bytes={middle}-"),
        )
        assert (first.status, rest.status) == (206, 206)
        assert rest.headers["content-range"] == f"bytes {middle}-{file.size_bytes - 1}/{file.size_bytes}"
        assert first.data + rest.data == whole.data


def test_a_url_opens_its_file_alone(connection: Connection, imported: Dataset) -> None:
    """Neither another file, nor writing, nor the listing of the bucket."""
    one, other, *_ = files_of(connection, imported)
    assert fetch(one.url.replace(one.path, other.path)).status == 403
    assert urllib3.request("PUT", one.url, body=b"x", retries=False).status == 403
    unsigned = one.url.split("?")[0]
    assert fetch(unsigned).status in (401, 403)
    assert fetch(unsigned.removesuffix(one.path)).status in (401, 403)


def test_a_dataset_travels_out_and_in(connection: Connection, imported: Dataset, tmp_path: Any) -> None:
    """What was downloaded has the digests of its list, and fetching it again asks for nothing."""
    files = files_of(connection, imported)
    paths = download_files(files, tmp_path)
    assert [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths] == [
        file.sha256 for file in files
    ]
    for file in files:
        file.url = "http://127.0.0.1:1/gone"
    assert download_files(files, tmp_path) == paths


@pytest.mark.parametrize("wrong", ["short", "long", "other"])
def test_a_stream_with_other_bytes_is_refused(connection: Connection, wrong: str) -> None:
    content = masklets(2)
    sent = {"short": content[:-1], "long": content + b" ", "other": content.replace(b"dog", b"cat")}[wrong]
    upload = announce(connection, content)
    with pytest.raises(RpcError) as refusal:
        stream(connection, upload.name, sent)
    assert refusal.value.reason == "UPLOAD_CORRUPT"
    # Nothing of it counts as the upload, and the right bytes are welcome after all.
    with pytest.raises(RpcError, match="upload") as refusal:
        make(connection, Dataset(imported_from=dataset_pb2.ImportOrigin(upload=upload.name)))
    assert refusal.value.reason == "UPLOAD_INCOMPLETE"
    assert stream(connection, upload.name, content).name == upload.name


def test_a_dataset_may_be_taken_back(connection: Connection, imported: Dataset) -> None:
    """Deleted while nothing needs it: neither itself nor its files are left."""
    origin = dataset_pb2.SplitOrigin(
        dataset=imported.name, strategy=dataset_pb2.SPLIT_STRATEGY_TEMPORAL, gap_frames=0
    )
    split = make(connection, Dataset(split_from=origin))
    assert split.state == Dataset.STATE_SUCCEEDED, split.error
    urls = [file.url for file in files_of(connection, split)]
    connection.dataprep.DeleteDataset(pb.DeleteDatasetRequest(name=split.name))
    with pytest.raises(RpcError) as refusal:
        connection.dataprep.GetDataset(pb.GetDatasetRequest(name=split.name))
    assert refusal.value.reason == "DATASET_NOT_FOUND"
    assert {fetch(url).status for url in urls} == {404}


async def test_an_import_is_told_as_a_cloud_event(connection: Connection, imported: Dataset) -> None:
    """Once, with the attributes of CloudEvents 1.0 as headers, and in the trace of the request."""

    async def first() -> Received:
        subject = "finemesh.v1.dataset.imported.transfers.*"
        async with aclosing(Subscriber(connection.settings, subject=subject, start=1).events()) as events:
            return await anext(events)

    event = await asyncio.wait_for(first(), PATIENCE_SECONDS)
    assert event.resource == imported.name
    assert event.headers["ce-specversion"] == "1.0"
    assert event.headers["ce-type"] == "finemesh.v1.dataset.imported"
    assert event.headers["ce-subject"] == imported.name
    assert event.headers["ce-id"] == event.id
    assert event.headers["ce-dataschema"].endswith(event.payload.DESCRIPTOR.full_name)
    assert event.headers["ce-source"]
    assert event.headers["traceparent"]
