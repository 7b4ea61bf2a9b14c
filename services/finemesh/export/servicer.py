"""`finemesh.v1.ExportService`: messages to use cases and back."""
# ruff: noqa: N802, ARG002  the generated base class sets names and signatures

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncGenerator
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from google.api.httpbody_pb2 import HttpBody
from google.protobuf.empty_pb2 import Empty

from finemesh.chassis.auth import Role, authorised, current_principal
from finemesh.chassis.paging import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE
from finemesh.chassis.requests import request_key
from finemesh.chassis.watch import Notifier, watch
from finemesh.core.clock import Clock
from finemesh.core.errors import InvalidError
from finemesh.core.names import Name, check_id, new_id, parse_name, parse_project
from finemesh.core.requests import PageRequest
from finemesh.export.convert import draft_from_proto, export_to_proto, timestamp
from finemesh.export.downloads import open_download
from finemesh.export.ports import Packages
from finemesh.export.requests import (
    changes_from_proto,
    kind_from_proto,
    members,
    retention_from_proto,
    retention_project,
    retention_to_proto,
)
from finemesh.export.service import Draft, ExportService
from finemesh.v1 import dataset_pb2, export_pb2, export_retention_pb2
from finemesh.v1 import export_service_pb2 as pb
from finemesh.v1.export_service_pb2_grpc import ExportServiceServicer

COLLECTION: Final = "exports"
URL_SECONDS: Final = 3600


class ExportServicer(ExportServiceServicer):
    """Viewers read and download; operators and above write."""

    def __init__(self, service: ExportService, packages: Packages, notifier: Notifier, clock: Clock) -> None:
        self._service = service
        self._packages = packages
        self._notifier = notifier
        self._clock = clock

    async def CreateExport(self, request: pb.CreateExportRequest, context: Any) -> export_pb2.Export:
        project = authorised(parse_project(request.parent), Role.OPERATOR)
        key = request_key(project, "CreateExport", request)
        if request.export_id:
            check_id(request.export_id, "export_id")
        draft = self._draft(request.export, Name(project, COLLECTION, request.export_id or new_id("ex")))
        if request.validate_only:
            return export_to_proto(await self._service.check(draft))
        [export] = await self._service.create([draft], key)
        return export_to_proto(export)

    async def BatchCreateExports(
        self, request: pb.BatchCreateExportsRequest, context: Any
    ) -> pb.BatchCreateExportsResponse:
        project = authorised(parse_project(request.parent), Role.OPERATOR)
        key = request_key(project, "BatchCreateExports", request)
        group = new_id("eg")
        drafts = [
            self._draft(message, Name(project, COLLECTION, export_id))
            for message, export_id in members(request, request.export_id_prefix or group)
        ]
        if request.validate_only:
            exports = [await self._service.check(draft) for draft in drafts]
        else:
            exports = await self._service.create(drafts, key, group)
        return pb.BatchCreateExportsResponse(exports=map(export_to_proto, exports))

    def _draft(self, message: export_pb2.Export, name: Name) -> Draft:
        draft = draft_from_proto(message, name, self._clock.now())
        if not draft.licence_override:
            return draft
        principal = current_principal()
        principal.require_role(Role.ADMIN)
        return replace(draft, licence_override_subject=principal.subject)

    async def GetExport(self, request: pb.GetExportRequest, context: Any) -> export_pb2.Export:
        return export_to_proto(await self._service.get(_name(request.name, Role.VIEWER)))

    async def ListExports(self, request: pb.ListExportsRequest, context: Any) -> pb.ListExportsResponse:
        project = authorised(parse_project(request.parent), Role.VIEWER)
        exports, token = await self._service.list(project, PageRequest.of(request))
        return pb.ListExportsResponse(
            exports=[export_to_proto(export) for export in exports], next_page_token=token
        )

    async def WatchExport(
        self, request: pb.WatchExportRequest, context: Any
    ) -> AsyncGenerator[export_pb2.Export]:
        name = _name(request.name, Role.VIEWER)
        states = watch(
            self._notifier,
            str(name),
            lambda: self._service.get(name),
            version=lambda export: export.revision,
            terminal=lambda export: export.terminal,
        )
        async for export in states:
            yield export_to_proto(export)

    async def UpdateExport(self, request: pb.UpdateExportRequest, context: Any) -> export_pb2.Export:
        name = _name(request.export.name, Role.OPERATOR, "export.name")
        changes = changes_from_proto(request, self._clock.now())
        return export_to_proto(await self._service.update(name, changes))

    async def CancelExport(self, request: pb.CancelExportRequest, context: Any) -> export_pb2.Export:
        return export_to_proto(await self._service.cancel(_name(request.name, Role.OPERATOR)))

    async def DeleteExport(self, request: pb.DeleteExportRequest, context: Any) -> Empty:
        await self._service.delete(_name(request.name, Role.OPERATOR))
        return Empty()

    async def ListExportFiles(
        self, request: pb.ListExportFilesRequest, context: Any
    ) -> pb.ListExportFilesResponse:
        name = _name(request.parent, Role.VIEWER, "parent")
        if request.page_size < 0:
            raise InvalidError.of("page_size", f"{request.page_size} is negative: use 0 for the default")
        size = min(request.page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
        after = _path_of(request.page_token)
        export = await self._service.released(name)
        files = [file for file in export.files or () if file.path > after]
        expire_time = timestamp(self._clock.now() + timedelta(seconds=URL_SECONDS))
        page = [
            dataset_pb2.File(
                path=file.path,
                size_bytes=file.size_bytes,
                sha256=file.sha256,
                url=self._packages.url(export.output_uri, file.path, URL_SECONDS),
                expire_time=expire_time,
            )
            for file in files[:size]
        ]
        token = _token_of(page[-1].path) if len(files) > size else ""
        if not token:
            await self._service.count(name, archive=False)
        return pb.ListExportFilesResponse(files=page, next_page_token=token)

    async def DownloadExport(
        self, request: pb.DownloadExportRequest, context: Any
    ) -> AsyncGenerator[HttpBody]:
        name = _name(request.name, Role.VIEWER)
        kind = kind_from_proto(request)
        headers = {key: str(value) for key, value in context.invocation_metadata()}
        download = open_download(await self._service.released(name), kind, request.offset, headers)
        await context.send_initial_metadata(download.headers())
        left, to_count = download.span.size_bytes, download.to_the_end
        async for body in download.bodies(self._packages):
            left -= len(body.data)
            if to_count and not left:
                to_count = False  # before the last bytes: who has them hangs up, which cancels this call
                await self._service.count(name, archive=True)
            yield body

    async def GetExportRetention(
        self, request: pb.GetExportRetentionRequest, context: Any
    ) -> export_retention_pb2.ExportRetention:
        project = authorised(retention_project(request.name, "name"), Role.VIEWER)
        return retention_to_proto(project, await self._service.retention(project))

    async def UpdateExportRetention(
        self, request: pb.UpdateExportRetentionRequest, context: Any
    ) -> export_retention_pb2.ExportRetention:
        message = request.export_retention
        project = authorised(retention_project(message.name, "export_retention.name"), Role.ADMIN)
        retention = await self._service.set_retention(project, retention_from_proto(message))
        return retention_to_proto(project, retention)


def _name(value: str, role: Role, field: str = "name") -> Name:
    name = parse_name(value, COLLECTION, field)
    authorised(name.project, role)
    return name


def _token_of(path: str) -> str:
    return base64.urlsafe_b64encode(path.encode()).decode()


def _path_of(token: str) -> str:
    """The last path of the page before. Raises InvalidError for a token that is made up."""
    try:
        return base64.b64decode(token, b"-_", validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise InvalidError.of(
            "page_token", "not a token of ours: pass next_page_token unchanged", reason="MALFORMED_PAGE_TOKEN"
        ) from error
