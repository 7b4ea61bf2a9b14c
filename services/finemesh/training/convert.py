"""Messages of the contract to values of the domain and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from finemesh.chassis.errors import record_to_status
from finemesh.chassis.fine_tune_spec import spec_from_proto, spec_to_proto
from finemesh.core.attempts import ResumeCertificate
from finemesh.core.errors import FieldViolation, InvalidError
from finemesh.core.labels import describe_violations
from finemesh.core.names import parse_name
from finemesh.core.spec.finetune import FineTuneSpec
from finemesh.training.checkpoints import Checkpoint
from finemesh.training.domain import TrainingResult
from finemesh.training.estimates.convert import estimate_to_proto
from finemesh.training.history import Entry
from finemesh.training.job import DEFAULT_MAX_RESTARTS, TrainingJob
from finemesh.v1 import attempt_pb2
from finemesh.v1 import training_job_history_pb2 as history_pb
from finemesh.v1 import training_job_pb2 as pb

MAX_RESTARTS_LIMIT: Final = 100


@dataclass(frozen=True, slots=True)
class Draft:
    """A job as its user asks for it."""

    spec: FineTuneSpec
    display_name: str
    labels: Mapping[str, str]
    priority: int
    max_restarts: int
    kill_after_step: int
    pause_at_step: int
    max_run_seconds: float


def draft_from_proto(message: pb.TrainingJob, project: str) -> Draft:
    """The checked content of a create request in `project`.

    Raises InvalidError, reason INVALID_TRAINING_JOB, naming every wrong field under `training_job` at once.
    """
    path = "training_job"
    violations = list(describe_violations(message.display_name, message.labels, path))
    if not 0 <= message.max_restarts <= MAX_RESTARTS_LIMIT:
        violations.append(
            FieldViolation(f"{path}.max_restarts", f"must lie in [0, {MAX_RESTARTS_LIMIT}]; 0 means 3")
        )
    if message.kill_after_step < 0:
        violations.append(FieldViolation(f"{path}.kill_after_step", "must not be negative; 0 means never"))
    if message.pause_at_step < 0:
        violations.append(FieldViolation(f"{path}.pause_at_step", "must not be negative; 0 means never"))
    if not 0 <= message.max_run_seconds < math.inf:
        violations.append(FieldViolation(f"{path}.max_run_seconds", "must not be negative; 0 means for ever"))
    spec = None
    try:
        spec = spec_from_proto(message.spec, f"{path}.spec")
        if parse_name(spec.dataset, "datasets").project != project:
            violations.append(
                FieldViolation(f"{path}.spec.dataset", f"{spec.dataset} is not in project {project!r}")
            )
    except InvalidError as error:
        violations += error.violations
    if violations or spec is None:
        listed = "; ".join(f"{violation.field}: {violation.description}" for violation in violations)
        raise InvalidError(listed, violations=violations, reason="INVALID_TRAINING_JOB")
    return Draft(
        spec=spec,
        display_name=message.display_name,
        labels=dict(message.labels),
        priority=message.priority,
        max_restarts=message.max_restarts or DEFAULT_MAX_RESTARTS,
        kill_after_step=message.kill_after_step,
        pause_at_step=message.pause_at_step,
        max_run_seconds=message.max_run_seconds,
    )


def job_to_proto(job: TrainingJob) -> pb.TrainingJob:
    """The resource as clients see it."""
    message = pb.TrainingJob(
        name=str(job.name),
        display_name=job.display_name,
        labels=job.labels,
        spec=spec_to_proto(job.spec),
        priority=job.priority,
        max_restarts=job.max_restarts,
        kill_after_step=job.kill_after_step,
        pause_at_step=job.pause_at_step,
        max_run_seconds=job.max_run_seconds,
        state=f"STATE_{job.state}",
        run=job.run,
        step=job.step,
        total_steps=job.total_steps,
        attempt=job.attempt,
        resume_certificates=[certificate_to_proto(each) for each in job.resume_certificates],
        row_usage=job.row_usage,
        peak_memory_bytes=job.peak_memory_bytes,
        estimate=estimate_to_proto(job.estimate) if job.estimate else None,
        micro_batch_size=job.micro_batch_size,
        create_time=_timestamp(job.create_time),
        start_time=_timestamp(job.start_time),
        end_time=_timestamp(job.end_time),
        update_time=_timestamp(job.update_time),
        estimated_end_time=_timestamp(job.estimated_end_time),
        run_seconds=job.run_seconds,
        state_time=_timestamp(job.state_time or job.create_time),
    )
    message.progress.fraction = job.fraction
    message.progress.message = job.message
    if job.report_time is not None:
        message.progress.update_time.FromDatetime(job.report_time)
    if job.worker is not None:
        message.worker.CopyFrom(_worker_to_proto(job))
    if job.latest_checkpoint is not None:
        message.latest_checkpoint.CopyFrom(checkpoint_to_proto(job.latest_checkpoint))
    if job.error is not None:
        message.error.CopyFrom(record_to_status(job.error))
    return message


def _worker_to_proto(job: TrainingJob) -> pb.WorkerStatus:
    assert job.worker is not None
    return pb.WorkerStatus(
        cluster=job.worker.cluster,
        node_id=job.worker.node_id,
        pids=job.worker.pids,
        gpu_ids=job.worker.gpu_ids,
        gpu_uuids=job.worker.gpu_uuids,
        heartbeat_time=_timestamp(job.heartbeat_time),
        lease_expire_time=_timestamp(job.lease_expire_time),
    )


def entry_to_proto(entry: Entry) -> history_pb.TrainingJobHistoryEntry:
    return history_pb.TrainingJobHistoryEntry(
        sequence=entry.sequence,
        time=_timestamp(entry.time),
        kind=f"KIND_{entry.kind}",
        state=f"STATE_{entry.state}",
        from_state=f"STATE_{entry.from_state}" if entry.from_state else None,
        attempt=entry.attempt,
        step=entry.step,
        actor=entry.actor,
        message=entry.message,
        error=record_to_status(entry.error) if entry.error else None,
    )


def checkpoint_to_proto(checkpoint: Checkpoint) -> pb.Checkpoint:
    return pb.Checkpoint(
        step=checkpoint.step,
        uri=checkpoint.uri,
        manifest_sha256=checkpoint.manifest_sha256,
        size_bytes=checkpoint.size_bytes,
        attempt=checkpoint.attempt,
        metrics=checkpoint.metrics,
        best=checkpoint.best,
        create_time=_timestamp(checkpoint.create_time),
        sample_hash=checkpoint.sample_hash,
        loss_digest=checkpoint.loss_digest,
        weights_sha256=checkpoint.weights_sha256,
    )


def checkpoint_from_proto(message: pb.Checkpoint, attempt: int) -> Checkpoint:
    """What an attempt wants to commit. Since when it counts is not its to say."""
    return Checkpoint(
        step=message.step,
        uri=message.uri,
        manifest_sha256=message.manifest_sha256,
        size_bytes=message.size_bytes,
        attempt=attempt,
        create_time=datetime.now(UTC),
        metrics=dict(message.metrics),
        best=message.best,
        sample_hash=message.sample_hash,
        loss_digest=message.loss_digest,
        weights_sha256=message.weights_sha256,
    )


def certificate_to_proto(certificate: ResumeCertificate) -> pb.ResumeCertificate:
    return pb.ResumeCertificate(
        attempt=certificate.attempt,
        step=certificate.step,
        expected_sample_hash=certificate.expected_sample_hash,
        actual_sample_hash=certificate.actual_sample_hash,
        matches=certificate.matches,
    )


def result_from_proto(message: attempt_pb2.AttemptResult) -> TrainingResult:
    """Raises InvalidError when an attempt at another kind of work speaks."""
    if message.WhichOneof("result") != "training":
        raise InvalidError.of("result", "an attempt at a training job ends with `training`")
    result = message.training
    return TrainingResult(
        step=result.step,
        metrics=dict(result.metrics),
        row_usage=dict(result.row_usage),
        peak_memory_bytes=result.peak_memory_bytes,
        peak_device_memory_bytes=result.peak_device_memory_bytes,
        step_seconds=result.step_seconds,
    )


def _timestamp(value: datetime | None) -> Timestamp | None:
    if value is None:
        return None
    timestamp = Timestamp()
    timestamp.FromDatetime(value)
    return timestamp
