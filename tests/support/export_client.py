"""A caller of the Export service, for tests."""

from __future__ import annotations

import asyncio
from typing import Any

from finemesh.chassis.auth import Role, SigningKey
from finemesh.chassis.client_channel import channel
from finemesh.v1 import export_pb2
from finemesh.v1 import export_service_pb2 as pb
from finemesh.v1.export_service_pb2_grpc import ExportServiceStub
from google.protobuf.field_mask_pb2 import FieldMask

from tests.support.scripted_cluster import translated
from tests.support.servers import PATIENCE_SECONDS

State = export_pb2.Export.State


class ExportClient:
    """A caller of one project."""

    def __init__(self, address: str, key: SigningKey, project: str, role: Role = Role.OPERATOR) -> None:
        self.address, self.key, self.project = address, key, project
        self.parent = f"projects/{project}"
        token = key.mint("tester", role, [project], 600)
        self.channel = channel(address, lambda: token)
        self.stub = ExportServiceStub(self.channel)

    def as_admin(self) -> ExportClient:
        """The same for an admin. Close its channel when done."""
        return ExportClient(self.address, self.key, self.project, Role.ADMIN)

    async def call(self, method: str, request: Any) -> Any:
        with translated():
            return await getattr(self.stub, method)(request, timeout=PATIENCE_SECONDS)

    async def create(self, training_job: str, export_id: str = "", **fields: Any) -> export_pb2.Export:
        request_fields = {key: fields.pop(key) for key in ("request_id", "validate_only") if key in fields}
        fields = {"format": "EXPORT_FORMAT_ADAPTER", **fields}
        export = export_pb2.Export(training_job=training_job, **fields)
        request = pb.CreateExportRequest(
            parent=self.parent, export=export, export_id=export_id, **request_fields
        )
        return await self.call("CreateExport", request)

    async def get(self, name: str) -> export_pb2.Export:
        return await self.call("GetExport", pb.GetExportRequest(name=name))

    async def cancel(self, name: str) -> export_pb2.Export:
        return await self.call("CancelExport", pb.CancelExportRequest(name=name))

    async def delete(self, name: str) -> None:
        await self.call("DeleteExport", pb.DeleteExportRequest(name=name))

    async def list(self, **fields: Any) -> pb.ListExportsResponse:
        return await self.call("ListExports", pb.ListExportsRequest(parent=self.parent, **fields))

    async def files(self, name: str, **fields: Any) -> pb.ListExportFilesResponse:
        return await self.call("ListExportFiles", pb.ListExportFilesRequest(parent=name, **fields))

    async def create_several(
        self, training_job: str, *formats: str, **fields: Any
    ) -> list[export_pb2.Export]:
        export = export_pb2.Export(training_job=training_job)
        request = pb.BatchCreateExportsRequest(
            parent=self.parent,
            export=export,
            formats=[f"EXPORT_FORMAT_{each}" for each in formats],  # pyright: ignore[reportArgumentType]
            **fields,
        )
        return list((await self.call("BatchCreateExports", request)).exports)

    async def update(self, name: str, *paths: str, **values: Any) -> export_pb2.Export:
        export = export_pb2.Export(name=name, **values)
        request = pb.UpdateExportRequest(export=export, update_mask=FieldMask(paths=paths))
        return await self.call("UpdateExport", request)

    async def download(self, name: str, kind: str = "ZIP", offset: int = 0) -> bytes:
        """The archive, or what of it follows `offset`."""
        parts: list[bytes] = []
        request = pb.DownloadExportRequest(name=name, format=f"ARCHIVE_FORMAT_{kind}", offset=offset)
        with translated():
            async for part in self.stub.DownloadExport(request):
                assert part.content_type == {"ZIP": "application/zip", "TAR": "application/x-tar"}[kind]
                parts.append(part.data)
        return b"".join(parts)

    async def until(
        self, name: str, wanted: str, timeout_seconds: float = PATIENCE_SECONDS
    ) -> export_pb2.Export:
        """Watch until the export is in state `wanted`."""
        last = None
        try:
            async with asyncio.timeout(timeout_seconds):
                with translated():
                    async for export in self.stub.WatchExport(pb.WatchExportRequest(name=name)):
                        last = export
                        if State.Name(export.state) == f"STATE_{wanted}":
                            return export
        except TimeoutError:
            raise AssertionError(f"not {wanted}; last seen: {last}") from None
        raise AssertionError(f"the watch ended before {wanted}; last seen: {last}")

    async def cancel_all(self) -> None:
        """Cancel what has not ended."""
        for export in (await self.list()).exports:
            if not export.HasField("end_time"):
                await self.cancel(export.name)
