"""A caller of the DataPrep service, for tests."""

from __future__ import annotations

import hashlib
import http.client
import urllib.parse
from typing import Any

from finemesh.chassis.auth import Role, SigningKey
from finemesh.chassis.client_channel import channel
from finemesh.v1 import dataprep_service_pb2 as pb
from finemesh.v1 import dataset_pb2
from finemesh.v1.dataprep_service_pb2_grpc import DataPrepServiceStub

from tests.support.scripted_cluster import translated
from tests.support.servers import PATIENCE_SECONDS


class DataPrepClient:
    """A caller of one project."""

    def __init__(self, address: str, key: SigningKey, project: str, role: Role = Role.OPERATOR) -> None:
        self.project = project
        self.parent = f"projects/{project}"
        token = key.mint("tester", role, [project], 600)
        self.channel = channel(address, lambda: token)
        self.stub = DataPrepServiceStub(self.channel)

    async def call(self, method: str, request: Any) -> Any:
        with translated():
            return await getattr(self.stub, method)(request, timeout=PATIENCE_SECONDS)

    async def announce(self, content: bytes, filename: str = "scenes.zip") -> dataset_pb2.Upload:
        """Ask for a place to put `content`."""
        upload = dataset_pb2.Upload(
            filename=filename, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest()
        )
        return await self.call("CreateUpload", pb.CreateUploadRequest(parent=self.parent, upload=upload))

    async def uploaded(self, content: bytes = b"annotations") -> str:
        """The name of an upload that has its bytes."""
        upload = await self.announce(content)
        assert put(upload.url, content) == 200
        return upload.name

    async def create(self, dataset: dataset_pb2.Dataset, **fields: Any) -> dataset_pb2.Dataset:
        request = pb.CreateDatasetRequest(parent=self.parent, dataset=dataset, **fields)
        return await self.call("CreateDataset", request)

    async def import_upload(self, upload: str, **fields: Any) -> dataset_pb2.Dataset:
        origin = dataset_pb2.ImportOrigin(upload=upload)
        return await self.create(dataset_pb2.Dataset(imported_from=origin), **fields)

    async def get(self, name: str) -> dataset_pb2.Dataset:
        return await self.call("GetDataset", pb.GetDatasetRequest(name=name))

    async def cancel_all(self) -> None:
        """Cancel whatever of the project has not ended."""
        listed = await self.call("ListDatasets", pb.ListDatasetsRequest(parent=self.parent))
        live = {dataset_pb2.Dataset.STATE_QUEUED, dataset_pb2.Dataset.STATE_RUNNING}
        for dataset in listed.datasets:
            if dataset.state in live:
                await self.call("CancelDataset", pb.CancelDatasetRequest(name=dataset.name))


def put(url: str, content: bytes) -> int:
    """PUT to a presigned URL; the HTTP status."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=PATIENCE_SECONDS)
    try:
        connection.request("PUT", f"{parts.path}?{parts.query}", body=content)
        return connection.getresponse().status
    finally:
        connection.close()
