"""What the tests of the Tracking service share: its process, callers, batches and events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
from finemesh.chassis.client_channel import channel
from finemesh.chassis.errors import from_rpc_error
from finemesh.chassis.events import Event
from finemesh.events.v1 import training_job_events_pb2
from finemesh.v1 import fine_tune_spec_pb2, metric_pb2, run_pb2, run_sql_pb2, training_job_pb2
from finemesh.v1 import tracking_service_pb2 as pb
from finemesh.v1.tracking_service_pb2_grpc import TrackingServiceStub

from tests.support.servers import PATIENCE_SECONDS, NatsServer, S3Server
from tests.support.services import ServiceProcess


def tracking_process(folder: Path, nats: NatsServer, **more: str) -> ServiceProcess:
    """Not started. Tracking needs no S3: the one it is told of does not exist."""
    settings = {"FINEMESH_DATA_DIR": str(folder / "data"), **more}
    return ServiceProcess("tracking", folder, nats, S3Server(folder / "s3"), settings)


class Client:
    """A caller with one token."""

    def __init__(self, service: ServiceProcess, token: str) -> None:
        self.channel = channel(service.address, lambda: token)
        self.stub: Any = TrackingServiceStub(self.channel)

    async def call(self, method: str, request: Any) -> Any:
        try:
            return await getattr(self.stub, method)(request, timeout=PATIENCE_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None

    async def get(self, name: str) -> run_pb2.Run:
        return await self.call("GetRun", pb.GetRunRequest(name=name))

    async def create(self, run_id: str, project: str = "p", **fields: Any) -> run_pb2.Run:
        run = run_pb2.Run(**fields)
        request = pb.CreateRunRequest(parent=f"projects/{project}", run_id=run_id, run=run)
        return await self.call("CreateRun", request)

    async def log(self, batch: metric_pb2.MetricBatch) -> int:
        response = await self.call("LogMetricBatch", pb.LogMetricBatchRequest(batch=batch))
        return response.durable_sequence

    async def stream(self, batches: Iterable[metric_pb2.MetricBatch]) -> AsyncIterator[int]:
        """Durable sequences as they are acknowledged. Raises what ends the stream."""
        requests = (pb.LogMetricsRequest(batch=batch) for batch in batches)
        try:
            async for response in self.stub.LogMetrics(requests):
                yield response.durable_sequence
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None

    async def log_all(self, batches: Iterable[metric_pb2.MetricBatch], durable: list[int]) -> None:
        """Stream batches to the end; what is acknowledged is noted in `durable` as it comes."""
        async for sequence in self.stream(batches):
            durable.append(sequence)  # noqa: PERF401  kept when the stream breaks

    async def curve(self, run: str, key: str, **fields: Any) -> metric_pb2.MetricSeries:
        parent = "/".join(run.split("/")[:2])
        request = pb.QueryMetricsRequest(parent=parent, runs=[run], keys=[key], **fields)
        [series] = (await self.call("QueryMetrics", request)).series
        return series

    async def sql(self, query: str) -> list[list[Any]]:
        """The rows that a query over project p gives."""
        form = run_sql_pb2.QuerySqlRequest.FORMAT_ROWS
        request = run_sql_pb2.QuerySqlRequest(parent="projects/p", query=query, format=form)
        parts = [part async for part in self.stub.QuerySql(request, timeout=PATIENCE_SECONDS)]
        return [list(row) for part in parts for row in part.rows]


def batch(
    run: str, sequence: int, steps: Iterable[int], attempt: int = 1, key: str = "train/loss"
) -> metric_pb2.MetricBatch:
    """Points whose value is `1/(1+step)`, shifted by the attempt, measured now."""
    steps = list(steps)
    now_us = time.time_ns() // 1000
    return metric_pb2.MetricBatch(
        run=run,
        attempt=attempt,
        sequence=sequence,
        keys=[key],
        key_indices=[0] * len(steps),
        steps=steps,
        values=[attempt - 1 + 1 / (1 + step) for step in steps],
        times_us=[now_us + step for step in steps],
    )


def job_event(fact: str, name: str, *, attempt: int = 0, rank: int = 8) -> Event:
    spec = fine_tune_spec_pb2.FineTuneSpec(
        task=fine_tune_spec_pb2.FineTuneSpec.TASK_LANGUAGE,
        base_model="tiny",
        dataset="projects/p/datasets/d",
        lora=fine_tune_spec_pb2.LoraMethod(rank=rank),
    )
    job = training_job_pb2.TrainingJob(
        name=name, display_name="A job", labels={"team": "vision"}, spec=spec, attempt=attempt
    )
    payload = getattr(training_job_events_pb2, f"TrainingJob{fact.title()}")(training_job=job)
    return Event.of("training_job", fact, name, payload, source="finemesh/training", time=datetime.now(UTC))


async def until_run(
    client: Client,
    name: str,
    wanted: Callable[[run_pb2.Run], bool],
    timeout_seconds: float = PATIENCE_SECONDS,
) -> run_pb2.Run:
    """Wait until the run is there and `wanted` holds of it."""
    async with asyncio.timeout(timeout_seconds):
        while True:
            try:
                async for run in client.stub.WatchRun(pb.WatchRunRequest(name=name)):
                    if wanted(run):
                        return run
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.NOT_FOUND:
                    raise
            await asyncio.sleep(0.05)
