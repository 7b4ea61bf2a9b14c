"""The RPCs of `finemesh.v1.TrackingService` that move files."""
# ruff: noqa: N802, ARG002  the generated base class sets names and signatures

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from datetime import timedelta
from typing import Any, Final

from google.api.httpbody_pb2 import HttpBody

from finemesh.chassis.auth import current_principal
from finemesh.core.clock import Clock
from finemesh.core.errors import InvalidError
from finemesh.core.names import parse_name
from finemesh.core.requests import PageRequest
from finemesh.tracking.artifact_rows import Artifact
from finemesh.tracking.artifacts import URL_SECONDS, Artifacts
from finemesh.tracking.downloads import Downloads, Format
from finemesh.v1 import run_artifact_pb2
from finemesh.v1 import tracking_service_pb2 as pb

Context = Any
_FORMATS: Final = {
    pb.DownloadRunMetricsRequest.FORMAT_CSV: Format.CSV,
    pb.DownloadRunMetricsRequest.FORMAT_ARROW: Format.ARROW,
    pb.DownloadRunMetricsRequest.FORMAT_PARQUET: Format.PARQUET,
    pb.DownloadRunMetricsRequest.FORMAT_TENSORBOARD: Format.TENSORBOARD,
}


class FileServicer:
    """The part of `TrackingServicer` that moves files."""

    def __init__(self, artifacts: Artifacts, downloads: Downloads, clock: Clock) -> None:
        self._artifacts = artifacts
        self._downloads = downloads
        self._clock = clock

    async def UploadRunArtifact(
        self, request_iterator: AsyncIterator[pb.UploadRunArtifactRequest], context: Context
    ) -> run_artifact_pb2.RunArtifact:
        first = await anext(request_iterator, None)
        if first is None:
            raise InvalidError.of("run", "the first message names the run and the artifact")

        async def chunks() -> AsyncIterator[bytes]:
            if first.chunk.data:
                yield first.chunk.data
            async for message in request_iterator:
                if message.chunk.data:
                    yield message.chunk.data

        told = first.artifact
        artifact = Artifact(
            path=told.path,
            sha256=told.sha256,
            size_bytes=told.size_bytes,
            media_type=told.media_type or first.chunk.content_type,
            step=told.step if told.HasField("step") else None,
            create_time=self._clock.now(),
        )
        name = parse_name(first.run, "runs", "run")
        stored = await self._artifacts.upload(current_principal(), name, artifact, chunks())
        return _to_proto(stored)

    async def ListRunArtifacts(
        self, request: pb.ListRunArtifactsRequest, context: Context
    ) -> pb.ListRunArtifactsResponse:
        name = parse_name(request.parent, "runs", "parent")
        found, token = await self._artifacts.list(current_principal(), name, PageRequest.of(request))
        response = pb.ListRunArtifactsResponse(next_page_token=token)
        expire_time = self._clock.now() + timedelta(seconds=URL_SECONDS)
        for artifact, url in found:
            message = _to_proto(artifact)
            message.url = url
            message.expire_time.FromDatetime(expire_time)
            response.artifacts.append(message)
        return response

    async def DownloadRunMetrics(
        self, request: pb.DownloadRunMetricsRequest, context: Context
    ) -> AsyncGenerator[HttpBody]:
        if request.format not in _FORMATS:
            raise InvalidError.of(
                "format", "use FORMAT_CSV, FORMAT_ARROW, FORMAT_PARQUET or FORMAT_TENSORBOARD"
            )
        form, name = _FORMATS[request.format], parse_name(request.name, "runs")
        content = self._downloads.metrics(
            current_principal(), name, form, tuple(request.keys), all_attempts=request.all_attempts
        )
        async for data in content:
            yield HttpBody(content_type=form, data=data)


def _to_proto(artifact: Artifact) -> run_artifact_pb2.RunArtifact:
    message = run_artifact_pb2.RunArtifact(
        path=artifact.path,
        sha256=artifact.sha256,
        size_bytes=artifact.size_bytes,
        media_type=artifact.media_type,
        step=artifact.step,
    )
    message.create_time.FromDatetime(artifact.create_time)
    return message
