"""`finemesh.v1.TrainingService`: messages to use cases and back."""
# ruff: noqa: N802, ARG002  the generated base class sets names and signatures

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Any

from google.protobuf.empty_pb2 import Empty

from finemesh.chassis.attempts_servicer import authorise_attempt
from finemesh.chassis.auth import Role, authorised
from finemesh.chassis.requests import request_key
from finemesh.chassis.watch import Notifier, watch
from finemesh.core.errors import FencedError
from finemesh.core.names import Name, check_id, new_id, parse_name, parse_project
from finemesh.core.requests import PageRequest
from finemesh.training.catalogue import CatalogueServicer
from finemesh.training.convert import (
    checkpoint_from_proto,
    checkpoint_to_proto,
    draft_from_proto,
    entry_to_proto,
    job_to_proto,
)
from finemesh.training.domain import TrainingJob
from finemesh.training.estimates.servicer import Estimates
from finemesh.training.logs.service import LogService
from finemesh.training.logs.servicer import LogServicer
from finemesh.training.scheduler import Scheduler
from finemesh.training.service import TrainingService
from finemesh.v1 import estimate_pb2, training_job_pb2
from finemesh.v1 import training_service_pb2 as pb

COLLECTION = "trainingJobs"


class TrainingServicer(CatalogueServicer, LogServicer):
    """Viewers read; operators and above write; a checkpoint is committed by its attempt alone."""

    def __init__(
        self,
        service: TrainingService,
        scheduler: Scheduler,
        notifier: Notifier,
        estimates: Estimates,
        logs: LogService,
    ) -> None:
        self._service = service
        self._logs = logs
        self._scheduler = scheduler
        self._notifier = notifier
        self._estimates = estimates

    async def CreateTrainingJob(
        self, request: pb.CreateTrainingJobRequest, context: Any
    ) -> training_job_pb2.TrainingJob:
        project = authorised(parse_project(request.parent), Role.OPERATOR)
        key = request_key(project, "CreateTrainingJob", request)
        if request.training_job_id:
            check_id(request.training_job_id, "training_job_id")
        name = Name(project, COLLECTION, request.training_job_id or new_id("tj"))
        job = await self._estimates.of_draft(request, _draft(name, request.training_job))
        if request.validate_only:
            await self._scheduler.require_admissible(job)
            return job_to_proto(self._service.draft(job))
        return job_to_proto(await self._service.create(job, key))

    async def EstimateTrainingJob(
        self, request: pb.EstimateTrainingJobRequest, context: Any
    ) -> estimate_pb2.TrainingEstimate:
        project = authorised(parse_project(request.parent), Role.VIEWER)
        return await self._estimates.of_request(request, project)

    async def GetTrainingJob(
        self, request: pb.GetTrainingJobRequest, context: Any
    ) -> training_job_pb2.TrainingJob:
        return job_to_proto(await self._service.get(_name(request.name, Role.VIEWER)))

    async def ListTrainingJobs(
        self, request: pb.ListTrainingJobsRequest, context: Any
    ) -> pb.ListTrainingJobsResponse:
        project = authorised(parse_project(request.parent), Role.VIEWER)
        jobs, token = await self._service.list(project, PageRequest.of(request))
        return pb.ListTrainingJobsResponse(
            training_jobs=[job_to_proto(job) for job in jobs], next_page_token=token
        )

    async def WatchTrainingJob(
        self, request: pb.WatchTrainingJobRequest, context: Any
    ) -> AsyncGenerator[training_job_pb2.TrainingJob]:
        name = _name(request.name, Role.VIEWER)
        states = watch(
            self._notifier,
            str(name),
            lambda: self._service.get(name),
            version=lambda job: job.revision,
            terminal=lambda job: job.terminal,
        )
        async for job in states:
            yield job_to_proto(job)

    async def CancelTrainingJob(
        self, request: pb.CancelTrainingJobRequest, context: Any
    ) -> training_job_pb2.TrainingJob:
        return job_to_proto(await self._service.cancel(_name(request.name, Role.OPERATOR)))

    async def PauseTrainingJob(
        self, request: pb.PauseTrainingJobRequest, context: Any
    ) -> training_job_pb2.TrainingJob:
        return job_to_proto(await self._service.pause(_name(request.name, Role.OPERATOR)))

    async def ResumeTrainingJob(
        self, request: pb.ResumeTrainingJobRequest, context: Any
    ) -> training_job_pb2.TrainingJob:
        return job_to_proto(await self._service.resume(_name(request.name, Role.OPERATOR)))

    async def SetTrainingJobPriority(
        self, request: pb.SetTrainingJobPriorityRequest, context: Any
    ) -> training_job_pb2.TrainingJob:
        name = _name(request.name, Role.OPERATOR)
        return job_to_proto(await self._service.set_priority(name, request.priority))

    async def DeleteTrainingJob(self, request: pb.DeleteTrainingJobRequest, context: Any) -> Empty:
        await self._service.delete(_name(request.name, Role.OPERATOR))
        return Empty()

    async def ListCheckpoints(
        self, request: pb.ListCheckpointsRequest, context: Any
    ) -> pb.ListCheckpointsResponse:
        name = _name(request.parent, Role.VIEWER, "parent")
        checkpoints, token = await self._service.list_checkpoints(name, PageRequest.of(request))
        return pb.ListCheckpointsResponse(
            checkpoints=[checkpoint_to_proto(each) for each in checkpoints], next_page_token=token
        )

    async def ListTrainingJobHistory(
        self, request: pb.ListTrainingJobHistoryRequest, context: Any
    ) -> pb.ListTrainingJobHistoryResponse:
        name = _name(request.parent, Role.VIEWER, "parent")
        entries, token = await self._service.list_history(name, PageRequest.of(request))
        return pb.ListTrainingJobHistoryResponse(
            entries=[entry_to_proto(each) for each in entries], next_page_token=token
        )

    async def CommitCheckpoint(
        self, request: pb.CommitCheckpointRequest, context: Any
    ) -> pb.CommitCheckpointResponse:
        name = parse_name(request.name, COLLECTION)
        ref = authorise_attempt(str(name))
        if (ref.attempt, ref.fence) != (request.attempt, request.fence):
            raise FencedError(f"the token is not that of attempt {request.attempt} at {name}: stop")
        checkpoint = checkpoint_from_proto(request.checkpoint, ref.attempt)
        expired = await self._service.commit_checkpoint(ref, checkpoint)
        return pb.CommitCheckpointResponse(expired_uris=expired)


def _name(value: str, role: Role, field: str = "name") -> Name:
    name = parse_name(value, COLLECTION, field)
    authorised(name.project, role)
    return name


def _draft(name: Name, message: training_job_pb2.TrainingJob) -> TrainingJob:
    asked = draft_from_proto(message, name.project)
    now = datetime.now(UTC)
    return TrainingJob(
        name,
        asked.spec,
        run="",
        output_uri="",
        create_time=now,
        update_time=now,
        display_name=asked.display_name,
        labels=asked.labels,
        priority=asked.priority,
        max_restarts=asked.max_restarts,
        kill_after_step=asked.kill_after_step,
        pause_at_step=asked.pause_at_step,
        max_run_seconds=asked.max_run_seconds,
    )
