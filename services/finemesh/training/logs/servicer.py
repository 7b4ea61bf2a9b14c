"""The part of `finemesh.v1.TrainingService` that is about logs."""
# ruff: noqa: N802, ARG002  the generated base class sets names and signatures

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from finemesh.chassis.auth import Role, authorised, current_principal
from finemesh.core.errors import FencedError, InvalidError
from finemesh.core.names import parse_name
from finemesh.training.logs.service import LogService, Wish
from finemesh.v1 import training_log_pb2 as pb
from finemesh.v1.training_service_pb2_grpc import TrainingServiceServicer


class LogServicer(TrainingServiceServicer):
    """Viewers read; the job's attempts and their cluster write."""

    _logs: LogService

    async def StreamTrainingJobLogs(
        self, request: pb.StreamTrainingJobLogsRequest, context: Any
    ) -> AsyncGenerator[pb.TrainingJobLog]:
        name = parse_name(request.name, "trainingJobs")
        authorised(name.project, Role.VIEWER)
        if request.attempt < 0 or request.tail < 0:
            raise InvalidError.of("attempt" if request.attempt < 0 else "tail", "must not be negative")
        wish = Wish(request.attempt, request.tail, request.follow, request.cursor)
        async for lines, place in self._logs.stream(name, wish):
            yield pb.TrainingJobLog(
                lines=[
                    pb.LogLine(
                        attempt=line.attempt, offset=line.offset, text=line.text, dropped_bytes=line.dropped
                    )
                    for line in lines
                ],
                cursor=str(place),
            )

    async def AppendTrainingJobLog(
        self, request: pb.AppendTrainingJobLogRequest, context: Any
    ) -> pb.AppendTrainingJobLogResponse:
        name = parse_name(request.name, "trainingJobs")
        principal = current_principal()
        if principal.role is Role.ATTEMPT:
            # What earlier attempts have left on the disk is brought by a later one.
            principal.require_attempt(request.name, principal.attempt)
            if request.attempt > principal.attempt:
                raise FencedError(f"the token is of attempt {principal.attempt}: stop")
        else:
            principal.require_role(Role.SERVICE)
        durable = await self._logs.append(name, request.attempt, request.offset, request.content)
        return pb.AppendTrainingJobLogResponse(durable_bytes=durable)
