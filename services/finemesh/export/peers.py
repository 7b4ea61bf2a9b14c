"""Training and DataPrep as Export sees them, over gRPC."""

from __future__ import annotations

from typing import Final

import grpc.aio

from finemesh.chassis.errors import from_rpc_error
from finemesh.chassis.fine_tune_spec import spec_from_proto
from finemesh.export.convert import checkpoint_from_proto
from finemesh.export.domain import SourceCheckpoint
from finemesh.export.ports import JobFacts
from finemesh.v1 import dataprep_service_pb2, training_job_pb2, training_service_pb2
from finemesh.v1.dataprep_service_pb2_grpc import DataPrepServiceStub
from finemesh.v1.training_service_pb2_grpc import TrainingServiceStub

TIMEOUT_SECONDS: Final = 5.0


class TrainingJobs:
    """Implements `ports.Jobs`."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = TrainingServiceStub(channel)

    async def describe(self, name: str) -> JobFacts:
        request = training_service_pb2.GetTrainingJobRequest(name=name)
        try:
            job = await self._stub.GetTrainingJob(request, timeout=TIMEOUT_SECONDS)
            checkpoints = await self._checkpoints(name)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        return JobFacts(
            name=name,
            state=training_job_pb2.TrainingJob.State.Name(job.state).removeprefix("STATE_"),
            spec=spec_from_proto(job.spec),
            run=job.run,
            checkpoints=checkpoints,
        )

    async def _checkpoints(self, name: str) -> tuple[SourceCheckpoint, ...]:
        found: list[SourceCheckpoint] = []
        request = training_service_pb2.ListCheckpointsRequest(parent=name)
        while True:
            page = await self._stub.ListCheckpoints(request, timeout=TIMEOUT_SECONDS)
            found += [checkpoint_from_proto(each) for each in page.checkpoints]
            if not page.next_page_token:
                return tuple(found)
            request.page_token = page.next_page_token


class DataPrepDatasets:
    """Implements `ports.Datasets`."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = DataPrepServiceStub(channel)

    async def digest(self, name: str) -> str:
        request = dataprep_service_pb2.GetDatasetRequest(name=name)
        try:
            dataset = await self._stub.GetDataset(request, timeout=TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        return dataset.summary.digest
