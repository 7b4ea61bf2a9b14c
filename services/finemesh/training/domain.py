"""How a training job moves: a pure function for each thing that is done to it, by whomever."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final

from finemesh.core.attempts import Attempt, Directive, Phase, RestartPolicy, Worker, WorkReport
from finemesh.core.error_classes import ErrorClass, classed, classify, is_hopeless
from finemesh.core.errors import ErrorRecord
from finemesh.training.checkpoints import Checkpoint
from finemesh.training.history import Kind
from finemesh.training.job import Fact, State, Step, TrainingJob, move
from finemesh.training.memory_faults import smaller_micro_batch
from finemesh.training.pace import Pace

STOPPING: Final = frozenset({State.CANCELLING, State.PAUSING, State.PREEMPTING})


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What a finished attempt brings back. `step` counts over all attempts."""

    step: int
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    row_usage: Mapping[str, int] = field(default_factory=dict[str, int])
    peak_memory_bytes: int = 0
    peak_device_memory_bytes: int = 0
    step_seconds: float = 0.0


def validated(job: TrainingJob, dataset_uri: str, now: datetime) -> Step:
    """The dataset is fit for training: the job waits for resources."""
    return move(
        job,
        State.QUEUED,
        now,
        dataset_uri=dataset_uri,
        message="waiting for resources",
        not_before=None,
        error=None,
    )


def refused(job: TrainingJob, error: ErrorRecord, now: datetime) -> Step:
    """The job cannot be carried out, now or later."""
    return move(job, State.FAILED, now, error=classed(error), message="")


def postponed(job: TrainingJob, why: str, not_before: datetime, now: datetime) -> Step:
    """The checks could not be made; they will be made again."""
    return Step(replace(job, message=why, not_before=not_before, update_time=now))


def dispatched(job: TrainingJob, attempt: Attempt, now: datetime) -> Step:
    """An attempt was given to a cluster."""
    changes: dict[str, Any] = {
        "attempt": attempt.number,
        "worker": Worker(cluster=attempt.cluster),
        "heartbeat_time": None,
        "lease_expire_time": attempt.lease_expire_time,
        "not_before": None,
        "fraction": 0.0,
        "message": f"starting on cluster {attempt.cluster}",
        "following": Directive.CONTINUE,
        "pace": None,
    }
    if job.state is State.STARTING:  # again, after a loss
        step = Step(replace(job, update_time=now, **changes))
    else:
        step = move(job, State.STARTING, now, **changes)
    return step.noted(Kind.DISPATCHED, now, f"to cluster {attempt.cluster}")


def reported(job: TrainingJob, attempt: Attempt, report: WorkReport, now: datetime) -> Step:
    """The attempt renewed its lease and said how far it is."""
    certificates = job.resume_certificates
    certificate = report.resume_certificate
    if certificate is not None and certificate not in certificates:
        certificates = (*certificates, certificate)
    seen = replace(
        job,
        update_time=now,
        report_time=now,
        heartbeat_time=now,
        lease_expire_time=attempt.lease_expire_time,
        worker=replace(report.worker, cluster=attempt.cluster),
        fraction=max(job.fraction, report.fraction),
        message=job.message if job.state in STOPPING else report.message or job.message,
        step=max(report.step, job.saved_step),
        total_steps=report.total_steps or job.total_steps,
        peak_memory_bytes=max(job.peak_memory_bytes, report.peak_memory_bytes),
        resume_certificates=certificates,
        following=report.following,
    )
    step = Step(seen)
    if job.heartbeat_time is None:
        step = step.noted(Kind.TAKEN_UP, now, f"by cluster {attempt.cluster}")
    if report.following is not job.following:
        step = step.noted(Kind.ACKNOWLEDGED, now, report.following)
    if report.phase is Phase.STARTING:
        return step
    pace = seen.pace.seen(seen.step, now) if seen.pace else Pace(now, seen.step)
    seen = replace(seen, pace=pace)
    if job.state is State.STARTING:
        return move(seen, State.RUNNING, now, certificate=certificate).after(step)
    return replace(step, job=seen)


def committed(job: TrainingJob, checkpoint: Checkpoint, now: datetime) -> Step:
    """A checkpoint counts from now on."""
    job = replace(job, latest_checkpoint=checkpoint, step=max(job.step, checkpoint.step), update_time=now)
    step = Step(job, (Fact("checkpointed", checkpoint=checkpoint),))
    return step.noted(Kind.CHECKPOINT, now, f"step {checkpoint.step}")


def succeeded(job: TrainingJob, result: TrainingResult, now: datetime) -> Step:
    """The attempt finished. A job that is being cancelled stays so: its user has turned away from it."""
    changes: dict[str, Any] = {
        "step": result.step,
        "row_usage": dict(result.row_usage),
        "peak_memory_bytes": max(job.peak_memory_bytes, result.peak_memory_bytes),
        "message": "",
    }
    if job.state is State.CANCELLING:
        return move(job, State.CANCELLED, now, **changes)
    changes |= {"fraction": 1.0, "error": None, "start_time": job.start_time or now}
    if job.state is State.STARTING:  # so quick that it was never seen at work
        return move(job, State.RUNNING, now).then(State.SUCCEEDED, now, **changes)
    return move(job, State.SUCCEEDED, now, **changes)


def cancel_asked(job: TrainingJob, now: datetime, *, at_work: bool) -> Step:
    """The user wants the job to end: at once when nobody works on it."""
    return _asked_to_stop(job, Directive.CANCEL, "saving its state, then ending", now, at_work=at_work)


def pause_asked(job: TrainingJob, now: datetime, *, at_work: bool) -> Step:
    """The user wants the job to wait: at once when nobody works on it."""
    return _asked_to_stop(job, Directive.PAUSE, "saving its state, then waiting", now, at_work=at_work)


def preempt_asked(job: TrainingJob, why: str, now: datetime, *, at_work: bool) -> Step:
    """The scheduler needs the room of a job in state STARTING or RUNNING; `why` is for its user."""
    return _asked_to_stop(job, Directive.PREEMPT, f"making room: {why}", now, at_work=at_work)


_STATE_OF: Final = {
    Directive.CANCEL: State.CANCELLING,
    Directive.PAUSE: State.PAUSING,
    Directive.PREEMPT: State.PREEMPTING,
}


def _asked_to_stop(
    job: TrainingJob, directive: Directive, message: str, now: datetime, *, at_work: bool
) -> Step:
    asked = Step(job).noted(Kind.COMMAND, now, directive.lower())
    step = move(job, _STATE_OF[directive], now, message=message, not_before=None).after(asked)
    if at_work:
        return step.noted(Kind.DIRECTIVE, now, directive)
    return stopped(step.job, now).after(step)


def paused_itself(job: TrainingJob, now: datetime) -> Step:
    """An attempt at a job in state STARTING or RUNNING has stopped where the job was to pause."""
    if job.state is State.STARTING:  # so quick that it was never seen at work
        seen = move(job, State.RUNNING, now)
        return paused_itself(seen.job, now).after(seen)
    pausing = move(job, State.PAUSING, now, not_before=None)
    return stopped(pausing.job, now).after(pausing)


def resume_asked(job: TrainingJob, now: datetime) -> Step:
    """The user wants a paused job to go on; its checks are made first if they never were."""
    job = replace(job, pause_at_step=0) if job.at_pause else job
    asked = Step(job).noted(Kind.COMMAND, now, "resume")
    if not job.dataset_uri:
        return move(job, State.VALIDATING, now, message="").after(asked)
    return move(job, State.QUEUED, now, message="waiting for resources").after(asked)


def prioritised(job: TrainingJob, priority: int, now: datetime) -> Step:
    """The job has another priority from now on."""
    step = Step(replace(job, priority=priority, update_time=now))
    return step.noted(Kind.COMMAND, now, f"priority {priority}, {job.priority} before")


def stopped(job: TrainingJob, now: datetime, *, step: int = 0, error: ErrorRecord | None = None) -> Step:
    """An attempt at a job that is being cancelled, paused or preempted has ended, in whatever way.

    What it has not saved is lost, unless it said so; no restart is used up.
    """
    error = classed(error) if error else job.error
    if job.state is State.CANCELLING:
        return move(job, State.CANCELLED, now, step=max(step, job.step), error=error, message="")
    paused = job.state is State.PAUSING
    return move(
        job,
        State.PAUSED if paused else State.QUEUED,
        now,
        step=job.saved_step,
        error=error,
        worker=None,
        lease_expire_time=None,
        message="paused: resume it to go on" if paused else "preempted: waiting for resources",
    )


def failed(
    job: TrainingJob, error: ErrorRecord, now: datetime, *, counts: bool, policy: RestartPolicy
) -> Step:
    """An attempt failed or was lost: the job starts again from its last checkpoint, or is given up.

    Args:
        job: in state STARTING or RUNNING; in any live one if the error blames the request.
        error: what happened to the attempt.
        now: the time of the change.
        counts: whether it uses up a restart; not when the cluster never took the attempt up.
        policy: back-off between restarts; the job brings its own budget.
    """
    progressed = job.latest_checkpoint is not None and job.latest_checkpoint.attempt == job.attempt
    if smaller := smaller_micro_batch(job, error):  # which cannot go on for long
        job, counts = replace(job, micro_batch_size=smaller), False
    if smaller and job.state in STOPPING:
        return stopped(job, now, error=error)
    hopeless = not smaller and is_hopeless(error, job.error, progressed=progressed)
    if hopeless and classify(error) is ErrorClass.USER:
        return move(job, State.FAILED, now, error=classed(error), message="")
    policy = replace(policy, max_restarts=job.max_restarts)
    delay_seconds = policy.delay_seconds(job.restarts) if counts else policy.first_delay_seconds
    if hopeless or delay_seconds is None:
        told = f"`finemesh train history {job.name.id}` tells how each attempt ended"
        spent = f"{error.message}; given up after {job.restarts} restarts: {told}"
        gave_up = replace(error, message=spent, metadata={**error.metadata, "restarts": str(job.restarts)})
        return move(job, State.FAILED, now, error=classed(gave_up), message="")
    job = replace(job, restarts=job.restarts + counts)
    budget = f"restart {job.restarts} of {job.max_restarts}" if counts else "no restart is used up"
    cut = f", micro batches of {smaller} rows from now on" if smaller else ""
    step = _restarting(job, classed(error), now + timedelta(seconds=delay_seconds), now)
    return step.noted(Kind.RESTART, now, f"in {delay_seconds:g} s, {budget}{cut}")


def _restarting(job: TrainingJob, error: ErrorRecord, not_before: datetime, now: datetime) -> Step:
    """The job waits for its next attempt, at its last checkpoint."""
    changes: dict[str, Any] = {
        "not_before": not_before,
        "worker": None,
        "lease_expire_time": None,
        "error": error,
        "message": f"restarting: {error.message}",
        "step": job.saved_step,
    }
    if job.state is State.STARTING:
        return Step(replace(job, update_time=now, **changes))
    return move(job, State.STARTING, now, **changes)
