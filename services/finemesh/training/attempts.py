"""The jobs as owner of their attempts: the queue's calls brought to the use cases, and the commands."""

from __future__ import annotations

from collections.abc import Sequence

from finemesh.chassis.attempts_servicer import mint_attempt_token
from finemesh.chassis.auth import SigningKey
from finemesh.chassis.fine_tune_spec import resources_to_proto, spec_to_proto
from finemesh.chassis.sql import Tx
from finemesh.chassis.telemetry import trace_headers
from finemesh.core.attempts import Attempt, Completion, WorkReport
from finemesh.core.clock import Clock
from finemesh.core.names import parse_name
from finemesh.training.checkpoints import Checkpoint
from finemesh.training.convert import checkpoint_to_proto
from finemesh.training.domain import TrainingJob, TrainingResult
from finemesh.training.estimates.records import record
from finemesh.training.gpu_leases import lease
from finemesh.training.service import TrainingService
from finemesh.training.store import SqlStore, SqlUnit
from finemesh.v1 import attempt_pb2


class JobAttempts:
    """Implements `chassis.attempts.AttemptOwner`."""

    def __init__(self, store: SqlStore, service: TrainingService, key: SigningKey, clock: Clock) -> None:
        self._store = store
        self._service = service
        self._key = key
        self._clock = clock

    async def command(self, tx: Tx, attempt: Attempt) -> bytes:
        unit, name = SqlUnit(self._store, tx), parse_name(attempt.resource, "trainingJobs")
        job = await unit.job(name)
        checkpoints = await unit.checkpoints(name)
        seconds_to_start = (attempt.lease_expire_time - self._clock.now()).total_seconds()
        token = mint_attempt_token(self._key, attempt.ref, seconds_to_start)
        return command_of(job, attempt, token, checkpoints).SerializeToString()

    async def on_reports(self, tx: Tx, reports: Sequence[tuple[Attempt, WorkReport]]) -> None:
        unit = SqlUnit(self._store, tx)
        await self._service.take_reports(unit, reports)
        workers = [(attempt, report.worker) for attempt, report in reports]
        await unit.publish(await lease(tx, workers, self._clock.now()))

    async def on_completed(self, tx: Tx, attempt: Attempt, completion: Completion[TrainingResult]) -> None:
        unit = SqlUnit(self._store, tx)
        await self._service.take_completion(unit, attempt, completion)
        if completion.result is not None:
            job = await unit.job(parse_name(attempt.resource, "trainingJobs"))
            await record(tx, job, completion.result, self._clock.now())

    async def on_lost(self, tx: Tx, attempt: Attempt) -> None:
        await self._service.take_loss(SqlUnit(self._store, tx), attempt)


def command_of(
    job: TrainingJob, attempt: Attempt, token: str, checkpoints: Sequence[Checkpoint] = ()
) -> attempt_pb2.Command:
    """The order to carry out `attempt` at `job`, from the last of its `checkpoints`, oldest first, on."""
    *earlier, latest = checkpoints or (None,)
    best = next((each for each in earlier if each and each.best), None)
    command = attempt_pb2.Command(
        resource=attempt.resource,
        attempt=attempt.number,
        fence=attempt.ref.fence,
        cluster=attempt.cluster,
        nodes=attempt.nodes,
        token=token,
        traceparent=trace_headers().get("traceparent", ""),
        resources=resources_to_proto(job.spec.resources),
        train_work=attempt_pb2.TrainWork(
            spec=spec_to_proto(job.spec),
            dataset_uri=job.dataset_uri,
            run=job.run,
            output_uri=job.output_uri,
            resume_from=checkpoint_to_proto(latest) if latest else None,
            best=checkpoint_to_proto(best) if best else None,
            kill_after_step=job.kill_after_step if attempt.number == 1 else 0,
            pause_at_step=job.pause_at_step,
            micro_batch_size=job.micro_batch_size,
            earlier=[checkpoint_to_proto(each) for each in reversed(earlier) if each],
        ),
    )
    command.start_deadline.FromDatetime(attempt.lease_expire_time)
    return command
