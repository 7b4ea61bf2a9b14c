"""The facts of a training job as events."""

from __future__ import annotations

from typing import Any, Final

from finemesh.chassis.events import Event
from finemesh.core.states import TRAINING_JOB
from finemesh.events.v1 import training_job_events_pb2 as pb
from finemesh.training.convert import certificate_to_proto, checkpoint_to_proto, job_to_proto
from finemesh.training.domain import Fact, TrainingJob

SOURCE: Final = "finemesh/training"

_PAYLOADS: Final[dict[str, Any]] = {
    "queued": pb.TrainingJobQueued,
    "started": pb.TrainingJobStarted,
    "checkpointed": pb.TrainingJobCheckpointed,
    "resumed": pb.TrainingJobResumed,
    "paused": pb.TrainingJobPaused,
    "preempted": pb.TrainingJobPreempted,
    "succeeded": pb.TrainingJobSucceeded,
    "failed": pb.TrainingJobFailed,
    "cancelled": pb.TrainingJobCancelled,
}


def event_of(job: TrainingJob, fact: Fact) -> Event:
    """The event that tells `fact` about `job` as it is now."""
    payload = _PAYLOADS[fact.name](training_job=job_to_proto(job))
    if fact.checkpoint is not None:
        payload.checkpoint.CopyFrom(checkpoint_to_proto(fact.checkpoint))
    if fact.certificate is not None:
        payload.certificate.CopyFrom(certificate_to_proto(fact.certificate))
    noun = TRAINING_JOB.event_noun
    return Event.of(noun, fact.name, str(job.name), payload, source=SOURCE, time=job.update_time)
