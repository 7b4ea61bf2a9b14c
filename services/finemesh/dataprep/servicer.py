"""`finemesh.v1.DataPrepService`: messages to use cases and back."""
# ruff: noqa: N802, ARG002  the generated base class sets names and signatures

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import timedelta
from typing import Any, Final, cast

from google.protobuf.empty_pb2 import Empty

from finemesh.chassis.auth import Role, authorised
from finemesh.chassis.dataset_options import validate_options
from finemesh.chassis.objects import ObjectStore
from finemesh.chassis.preflight_options import preflight_options
from finemesh.chassis.requests import request_key
from finemesh.chassis.watch import Notifier, watch
from finemesh.core.clock import Clock
from finemesh.core.errors import InvalidError, PreconditionError, ResourceExhaustedError
from finemesh.core.names import Name, check_id, new_id, parse_name, parse_project
from finemesh.core.requests import PageRequest
from finemesh.core.states import DATASET
from finemesh.dataprep.convert import (
    dataset_to_proto,
    ledger_entry_to_proto,
    origin_from_proto,
    preflight_to_proto,
    report_to_proto,
    stamp,
    upload_to_proto,
)
from finemesh.dataprep.domain import Dataset, Preflight, Report, Upload, is_terminal, new_life
from finemesh.dataprep.service import UPLOAD_SECONDS, DataPrepService
from finemesh.v1 import dataprep_service_pb2 as pb
from finemesh.v1 import dataset_pb2, preflight_pb2, validation_report_pb2
from finemesh.v1.dataprep_service_pb2_grpc import DataPrepServiceServicer

URL_SECONDS: Final = 3600
REPORT_PAGE: Final = "report.html"
REPORT_JSON: Final = "report.json"
_REPORTS: Final = "datasets/validationReports"
_PREFLIGHTS: Final = "datasets/preflightReports"


class DataPrepServicer(DataPrepServiceServicer):
    """Viewers read; operators and above write."""

    def __init__(
        self, service: DataPrepService, objects: ObjectStore, notifier: Notifier, clock: Clock
    ) -> None:
        self._service = service
        self._objects = objects
        self._notifier = notifier
        self._clock = clock

    # Uploads

    async def CreateUpload(self, request: pb.CreateUploadRequest, context: Any) -> dataset_pb2.Upload:
        project = authorised(parse_project(request.parent), Role.OPERATOR)
        asked = request.upload
        upload = await self._service.create_upload(project, asked.filename, asked.size_bytes, asked.sha256)
        return upload_to_proto(upload, self._upload_url(upload))

    async def UploadArchive(
        self, request_iterator: AsyncIterator[pb.UploadArchiveRequest], context: Any
    ) -> dataset_pb2.Upload:
        first = await anext(request_iterator, None)
        if first is None:
            raise InvalidError.of("name", "the first message names the upload")
        upload = await self._service.upload(_named(first.name, "uploads", Role.OPERATOR))

        async def chunks() -> AsyncIterator[bytes]:
            yield first.chunk.data
            async for message in request_iterator:
                yield message.chunk.data

        try:
            await self._objects.put_stream(
                upload.key, chunks(), max_bytes=upload.size_bytes, sha256=upload.sha256
            )
        except (InvalidError, ResourceExhaustedError) as error:
            raise PreconditionError(
                f"{upload.name} was announced as {upload.size_bytes} bytes, and others came: {error}; "
                "send it again",
                reason="UPLOAD_CORRUPT",
                metadata={"upload": str(upload.name)},
            ) from error
        return upload_to_proto(upload, url="")

    def _upload_url(self, upload: Upload) -> str:
        return self._objects.presign_put(
            upload.key, expires_seconds=UPLOAD_SECONDS, content_length=upload.size_bytes
        )

    # Datasets

    async def CreateDataset(self, request: pb.CreateDatasetRequest, context: Any) -> dataset_pb2.Dataset:
        project = authorised(parse_project(request.parent), Role.OPERATOR)
        key = request_key(project, "CreateDataset", request)
        dataset_id = check_id(request.dataset_id, "dataset_id") if request.dataset_id else new_id("ds")
        draft = Dataset(
            name=Name(project, "datasets", dataset_id),
            origin=origin_from_proto(request.dataset),
            life=new_life(DATASET, self._clock.now()),
            display_name=request.dataset.display_name[:256],
            labels=dict(request.dataset.labels),
        )
        if request.validate_only:
            await self._service.check(draft)
            return dataset_to_proto(draft)
        return dataset_to_proto(await self._service.create(draft, key))

    async def GetDataset(self, request: pb.GetDatasetRequest, context: Any) -> dataset_pb2.Dataset:
        return dataset_to_proto(await self._service.get(_named(request.name, "datasets", Role.VIEWER)))

    async def ListDatasets(self, request: pb.ListDatasetsRequest, context: Any) -> pb.ListDatasetsResponse:
        project = authorised(parse_project(request.parent), Role.VIEWER)
        datasets, token = await self._service.list(project, PageRequest.of(request))
        return pb.ListDatasetsResponse(
            datasets=[dataset_to_proto(each, tables=False) for each in datasets], next_page_token=token
        )

    async def WatchDataset(
        self, request: pb.WatchDatasetRequest, context: Any
    ) -> AsyncGenerator[dataset_pb2.Dataset]:
        name = _named(request.name, "datasets", Role.VIEWER)
        states = watch(
            self._notifier,
            str(name),
            lambda: self._service.get(name),
            version=lambda dataset: dataset.life.revision,
            terminal=is_terminal,
        )
        async for dataset in states:
            yield dataset_to_proto(dataset)

    async def CancelDataset(self, request: pb.CancelDatasetRequest, context: Any) -> dataset_pb2.Dataset:
        name = _named(request.name, "datasets", Role.OPERATOR)
        return dataset_to_proto(cast("Dataset", await self._service.cancel(name)))

    async def DeleteDataset(self, request: pb.DeleteDatasetRequest, context: Any) -> Empty:
        await self._service.delete(_named(request.name, "datasets", Role.OPERATOR))
        return Empty()

    async def ListDatasetFiles(
        self, request: pb.ListDatasetFilesRequest, context: Any
    ) -> pb.ListDatasetFilesResponse:
        name = _named(request.parent, "datasets", Role.VIEWER, "parent")
        after, size = _file_token(request.page_token), _page_size(request.page_size)
        files = [file for file in await self._service.files(name) if file.path > after]
        expires = stamp(self._clock.now() + timedelta(seconds=URL_SECONDS))
        page = [
            dataset_pb2.File(
                path=file.path,
                size_bytes=file.size_bytes,
                sha256=file.sha256,
                url=self._objects.presign_get(f"{name}/{file.path}", expires_seconds=URL_SECONDS),
                expire_time=expires,
            )
            for file in files[:size]
        ]
        token = base64.urlsafe_b64encode(page[-1].path.encode()).decode() if len(files) > size else ""
        return pb.ListDatasetFilesResponse(files=page, next_page_token=token)

    async def ListLedgerEntries(
        self, request: pb.ListLedgerEntriesRequest, context: Any
    ) -> pb.ListLedgerEntriesResponse:
        name = _named(request.parent, "datasets", Role.VIEWER, "parent")
        rows, token = await self._service.ledger(name, PageRequest.of(request))
        return pb.ListLedgerEntriesResponse(
            ledger_entries=[ledger_entry_to_proto(row) for row in rows], next_page_token=token
        )

    # Reports

    async def ValidateDataset(
        self, request: pb.ValidateDatasetRequest, context: Any
    ) -> validation_report_pb2.ValidationReport:
        name = _named(request.name, "datasets", Role.OPERATOR)
        key = request_key(name.project, "ValidateDataset", request)
        options = validate_options(request.level, request.thresholds)
        return self._report(await self._service.validate(name, options, key))

    async def GetValidationReport(
        self, request: pb.GetValidationReportRequest, context: Any
    ) -> validation_report_pb2.ValidationReport:
        return self._report(await self._service.report(_named(request.name, _REPORTS, Role.VIEWER)))

    async def ListValidationReports(
        self, request: pb.ListValidationReportsRequest, context: Any
    ) -> pb.ListValidationReportsResponse:
        name = _named(request.parent, "datasets", Role.VIEWER, "parent")
        reports, token = await self._service.reports(name, PageRequest.of(request))
        return pb.ListValidationReportsResponse(
            validation_reports=[report_to_proto(each, findings=False) for each in reports],
            next_page_token=token,
        )

    async def WatchValidationReport(
        self, request: pb.WatchValidationReportRequest, context: Any
    ) -> AsyncGenerator[validation_report_pb2.ValidationReport]:
        name = _named(request.name, _REPORTS, Role.VIEWER)
        states = watch(
            self._notifier,
            str(name),
            lambda: self._service.report(name),
            version=lambda report: report.life.revision,
            terminal=is_terminal,
        )
        async for report in states:
            yield self._report(report)

    async def CancelValidationReport(
        self, request: pb.CancelValidationReportRequest, context: Any
    ) -> validation_report_pb2.ValidationReport:
        name = _named(request.name, _REPORTS, Role.OPERATOR)
        return self._report(cast("Report", await self._service.cancel(name)))

    def _report(self, report: Report) -> validation_report_pb2.ValidationReport:
        return report_to_proto(report, self._url(report, REPORT_PAGE))

    def _url(self, report: Report | Preflight, file: str) -> str:
        """Where a file of a report can be fetched; empty until it is complete."""
        if not report.result:
            return ""
        return self._objects.presign_get(f"{report.name}/{file}", expires_seconds=URL_SECONDS)

    # Preflights

    async def PreflightDataset(
        self, request: pb.PreflightDatasetRequest, context: Any
    ) -> preflight_pb2.PreflightReport:
        name = _named(request.name, "datasets", Role.OPERATOR)
        key = request_key(name.project, "PreflightDataset", request)
        options = preflight_options(request.spec, request.options, str(name))
        return self._preflight(await self._service.start_preflight(name, options, key))

    async def GetPreflightReport(
        self, request: pb.GetPreflightReportRequest, context: Any
    ) -> preflight_pb2.PreflightReport:
        name = _named(request.name, _PREFLIGHTS, Role.VIEWER)
        return self._preflight(await self._service.preflight(name))

    async def ListPreflightReports(
        self, request: pb.ListPreflightReportsRequest, context: Any
    ) -> pb.ListPreflightReportsResponse:
        name = _named(request.parent, "datasets", Role.VIEWER, "parent")
        preflights, token = await self._service.preflights(name, PageRequest.of(request))
        return pb.ListPreflightReportsResponse(
            preflight_reports=[preflight_to_proto(each, rows=False) for each in preflights],
            next_page_token=token,
        )

    async def WatchPreflightReport(
        self, request: pb.WatchPreflightReportRequest, context: Any
    ) -> AsyncGenerator[preflight_pb2.PreflightReport]:
        name = _named(request.name, _PREFLIGHTS, Role.VIEWER)
        states = watch(
            self._notifier,
            str(name),
            lambda: self._service.preflight(name),
            version=lambda preflight: preflight.life.revision,
            terminal=is_terminal,
        )
        async for preflight in states:
            yield self._preflight(preflight)

    async def CancelPreflightReport(
        self, request: pb.CancelPreflightReportRequest, context: Any
    ) -> preflight_pb2.PreflightReport:
        name = _named(request.name, _PREFLIGHTS, Role.OPERATOR)
        return self._preflight(cast("Preflight", await self._service.cancel(name)))

    def _preflight(self, preflight: Preflight) -> preflight_pb2.PreflightReport:
        return preflight_to_proto(
            preflight, self._url(preflight, REPORT_PAGE), self._url(preflight, REPORT_JSON)
        )


def _named(value: str, collection: str, role: Role, field: str = "name") -> Name:
    name = parse_name(value, collection, field)
    authorised(name.project, role)
    return name


def _page_size(asked: int) -> int:
    if asked < 0:
        raise InvalidError.of("page_size", f"{asked} is negative: use 0 for the default")
    return min(asked or 50, 500)


def _file_token(token: str) -> str:
    """The path after which a page of files begins."""
    try:
        return base64.urlsafe_b64decode(token).decode()
    except ValueError as error:
        raise InvalidError.of(
            "page_token", "not a token of ours: pass the next_page_token of the page before, unchanged"
        ) from error
