"""`finemesh.v1.TrackingService`: messages to use cases and back."""
# ruff: noqa: N802, ARG002  the generated base class sets names and signatures

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Final

from google.protobuf.empty_pb2 import Empty

from finemesh.chassis.auth import Principal, current_principal
from finemesh.chassis.requests import request_key
from finemesh.core.clock import Clock
from finemesh.core.errors import FinemeshError
from finemesh.core.names import Name, check_id, new_id, parse_name, parse_project
from finemesh.core.requests import PageRequest
from finemesh.tracking import convert
from finemesh.tracking.artifacts import Artifacts
from finemesh.tracking.chart_servicer import ChartServicer
from finemesh.tracking.charts import Charts
from finemesh.tracking.compare_servicer import CompareServicer
from finemesh.tracking.comparisons import Comparisons
from finemesh.tracking.domain import Batch
from finemesh.tracking.downloads import Downloads
from finemesh.tracking.drafts import check_mask
from finemesh.tracking.file_servicer import FileServicer
from finemesh.tracking.service import Tracking
from finemesh.tracking.sql_query import SqlQueries
from finemesh.tracking.sql_servicer import SqlServicer
from finemesh.v1 import run_pb2
from finemesh.v1 import tracking_service_pb2 as pb
from finemesh.v1.tracking_service_pb2_grpc import TrackingServiceServicer

# Batches of one stream that may wait for their commit; with more, it is not read, and gRPC slows the sender.
MAX_BATCHES_IN_FLIGHT: Final = 64

Context = Any
_Pending = tuple[Batch, asyncio.Future[int]] | FinemeshError | None


class TrackingServicer(ChartServicer, CompareServicer, FileServicer, SqlServicer, TrackingServiceServicer):
    """One method per RPC."""

    def __init__(
        self,
        tracking: Tracking,
        artifacts: Artifacts,
        downloads: Downloads,
        charts: Charts,
        queries: SqlQueries,
        comparisons: Comparisons,
        clock: Clock,
    ) -> None:
        ChartServicer.__init__(self, tracking, charts)
        FileServicer.__init__(self, artifacts, downloads, clock)
        SqlServicer.__init__(self, queries)
        CompareServicer.__init__(self, comparisons)

    async def CreateRun(self, request: pb.CreateRunRequest, context: Context) -> run_pb2.Run:
        project = parse_project(request.parent)
        run_id = check_id(request.run_id, "run_id") if request.run_id else new_id("run")
        draft = convert.draft_from_proto(request.run)
        key = request_key(project, "CreateRun", request)
        run = await self._tracking.create_run(current_principal(), Name(project, "runs", run_id), draft, key)
        return convert.run_to_proto(run)

    async def GetRun(self, request: pb.GetRunRequest, context: Context) -> run_pb2.Run:
        return convert.run_to_proto(
            await self._tracking.get_run(current_principal(), _run_name(request.name))
        )

    async def ListRuns(self, request: pb.ListRunsRequest, context: Context) -> pb.ListRunsResponse:
        project = parse_project(request.parent)
        query = PageRequest.of(request)
        runs, next_page_token = await self._tracking.list_runs(current_principal(), project, query)
        messages = [convert.run_to_proto(run) for run in runs]
        return pb.ListRunsResponse(runs=messages, next_page_token=next_page_token)

    async def WatchRun(self, request: pb.WatchRunRequest, context: Context) -> AsyncIterator[run_pb2.Run]:
        async for run in self._tracking.watch_run(current_principal(), _run_name(request.name)):
            yield convert.run_to_proto(run)

    async def UpdateRun(self, request: pb.UpdateRunRequest, context: Context) -> run_pb2.Run:
        fields, draft = check_mask(request.update_mask.paths), convert.draft_from_proto(request.run)
        name = parse_name(request.run.name, "runs", "run.name")
        return convert.run_to_proto(await self._tracking.update_run(current_principal(), name, draft, fields))

    async def FinishRun(self, request: pb.FinishRunRequest, context: Context) -> run_pb2.Run:
        state = convert.end_state_from_proto(request.state)
        ended = convert.instant_from_proto(request.end_time)
        run = await self._tracking.finish_run(current_principal(), _run_name(request.name), state, ended)
        return convert.run_to_proto(run)

    async def DeleteRun(self, request: pb.DeleteRunRequest, context: Context) -> Empty:
        await self._tracking.delete_run(current_principal(), _run_name(request.name))
        return Empty()

    async def LogMetrics(
        self, request_iterator: AsyncIterator[pb.LogMetricsRequest], context: Context
    ) -> AsyncGenerator[pb.LogMetricsResponse]:
        """Reads ahead while earlier batches are being committed, and acknowledges them in order."""
        pending: asyncio.Queue[_Pending] = asyncio.Queue(MAX_BATCHES_IN_FLIGHT)
        reading = asyncio.create_task(self._read_batches(current_principal(), request_iterator, pending))
        try:
            while (item := await pending.get()) is not None:
                if isinstance(item, FinemeshError):
                    raise item
                batch, done = item
                durable = await done
                yield pb.LogMetricsResponse(run=batch.run, attempt=batch.attempt, durable_sequence=durable)
            await reading  # raises what ended it, if that was a surprise
        finally:
            reading.cancel()

    async def _read_batches(
        self,
        principal: Principal,
        requests: AsyncIterator[pb.LogMetricsRequest],
        pending: asyncio.Queue[_Pending],
    ) -> None:
        """Submit what comes. A refusal takes its place in the queue: batches before it are still answered."""
        try:
            async for request in requests:
                batch = convert.batch_from_proto(request.batch)
                await pending.put((batch, await self._tracking.submit(principal, batch)))
        except FinemeshError as error:
            await pending.put(error)
        finally:
            await pending.put(None)

    async def LogMetricBatch(
        self, request: pb.LogMetricBatchRequest, context: Context
    ) -> pb.LogMetricBatchResponse:
        done = await self._tracking.submit(current_principal(), convert.batch_from_proto(request.batch))
        return pb.LogMetricBatchResponse(durable_sequence=await done)

    async def WatchMetrics(
        self, request: pb.WatchMetricsRequest, context: Context
    ) -> AsyncIterator[pb.WatchMetricsResponse]:
        name = parse_name(request.run, "runs", "run")
        async for found in self._tracking.watch_metrics(current_principal(), name, tuple(request.keys)):
            yield pb.WatchMetricsResponse(series=[convert.series_to_proto(series) for series in found])


def _run_name(text: str) -> Name:
    return parse_name(text, "runs")
