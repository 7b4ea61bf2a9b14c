"""What a training job is and how it moves: values and pure functions, over the state table of the core.

A function that moves a job returns a `Step`: the job as it is afterwards, and the facts to publish with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final

from finemesh.core.attempts import (
    Attempt,
    Phase,
    RestartPolicy,
    ResumeCertificate,
    Worker,
    WorkReport,
)
from finemesh.core.errors import ErrorRecord
from finemesh.core.names import Name
from finemesh.core.spec.finetune import FineTuneSpec
from finemesh.core.states import FIRST_ATTEMPT, LATER_ATTEMPT, TRAINING_JOB, TrainingJobState, facts_of
from finemesh.training.checkpoints import Checkpoint

State = TrainingJobState
STOPPING: Final = frozenset({State.CANCELLING, State.PAUSING, State.PREEMPTING})
DEFAULT_MAX_RESTARTS: Final = 3


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """One fine-tune. Times are UTC.

    Attributes:
        run: name of the run that holds its metrics.
        dataset_uri: where the dataset is; empty until it was checked.
        output_uri: prefix of everything the job writes; checkpoints are under `checkpoints/`.
        fraction: share of the work that is done, 0 to 1; `message` says what is being done.
        attempt: number of the last attempt, 0 before the first.
        restarts: attempts that were lost or failed and count against `max_restarts`.
        kill_after_step: the process of the first attempt kills itself after so many steps; 0 means never.
        not_before: when the scheduler or the validation may look at it again.
        worker: who works on it, while somebody does, with its last sign of life and the end of its lease.
        row_usage: rows of the dataset by use: trained, held_out, gap, truncated, over_length.
        error: why it failed; in other states the cause of the last loss.
        revision: counts every change.
    """

    name: Name
    spec: FineTuneSpec
    run: str
    output_uri: str
    create_time: datetime
    update_time: datetime
    display_name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    priority: int = 0
    max_restarts: int = DEFAULT_MAX_RESTARTS
    kill_after_step: int = 0
    state: State = State.VALIDATING
    dataset_uri: str = ""
    fraction: float = 0.0
    message: str = ""
    report_time: datetime | None = None
    step: int = 0
    total_steps: int = 0
    attempt: int = 0
    restarts: int = 0
    not_before: datetime | None = None
    worker: Worker | None = None
    heartbeat_time: datetime | None = None
    lease_expire_time: datetime | None = None
    latest_checkpoint: Checkpoint | None = None
    resume_certificates: tuple[ResumeCertificate, ...] = ()
    row_usage: Mapping[str, int] = field(default_factory=dict[str, int])
    peak_memory_bytes: int = 0
    error: ErrorRecord | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    revision: int = 0

    @property
    def terminal(self) -> bool:
        return self.state in TRAINING_JOB.terminal


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that became true of a job, with the checkpoint or certificate that it tells of."""

    name: str
    checkpoint: Checkpoint | None = None
    certificate: ResumeCertificate | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """A job after a change, and what to publish about it."""

    job: TrainingJob
    facts: tuple[Fact, ...] = ()

    def then(self, target: State, now: datetime, **changes: Any) -> Step:
        """This step and, right after it, the one to `target`."""
        return move(self.job, target, now, **changes).after(self)

    def after(self, earlier: Step) -> Step:
        """`earlier` and this one, in one."""
        return Step(self.job, earlier.facts + self.facts)


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What a finished attempt brings back. `step` counts over all attempts."""

    step: int
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    row_usage: Mapping[str, int] = field(default_factory=dict[str, int])
    peak_memory_bytes: int = 0


def move(
    job: TrainingJob,
    target: State,
    now: datetime,
    *,
    certificate: ResumeCertificate | None = None,
    **changes: Any,
) -> Step:
    """Bring `job` to `target`. Raises PreconditionError, reason ILLEGAL_TRANSITION."""
    case = FIRST_ATTEMPT if job.start_time is None else LATER_ATTEMPT
    names = facts_of(TRAINING_JOB, job.state, target, case)
    if target in TRAINING_JOB.terminal:
        changes |= {"end_time": now, "worker": None, "lease_expire_time": None, "not_before": None}
    if target is State.RUNNING and job.start_time is None:
        changes["start_time"] = now
    moved = replace(job, state=target, update_time=now, **changes)
    return Step(moved, tuple(Fact(name, certificate=certificate) for name in names))


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
    return move(job, State.FAILED, now, error=error, message="")


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
    }
    if job.state is State.STARTING:  # again, after a loss
        return Step(replace(job, update_time=now, **changes))
    return move(job, State.STARTING, now, **changes)


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
        step=max(report.step, job.latest_checkpoint.step if job.latest_checkpoint else 0),
        total_steps=report.total_steps or job.total_steps,
        peak_memory_bytes=max(job.peak_memory_bytes, report.peak_memory_bytes),
        resume_certificates=certificates,
    )
    if job.state is State.STARTING and report.phase is not Phase.STARTING:
        return move(seen, State.RUNNING, now, certificate=certificate)
    return Step(seen)


def committed(job: TrainingJob, checkpoint: Checkpoint, now: datetime) -> Step:
    """A checkpoint counts from now on."""
    job = replace(job, latest_checkpoint=checkpoint, step=max(job.step, checkpoint.step), update_time=now)
    return Step(job, (Fact("checkpointed", checkpoint=checkpoint),))


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
    step = move(job, State.CANCELLING, now, message="saving its state, then ending", not_before=None)
    return step if at_work else step.then(State.CANCELLED, now, message="")


def pause_asked(job: TrainingJob, now: datetime, *, at_work: bool) -> Step:
    """The user wants the job to wait: at once when nobody works on it."""
    step = move(job, State.PAUSING, now, message="saving its state, then waiting", not_before=None)
    return step if at_work else stopped(step.job, now).after(step)


def preempt_asked(job: TrainingJob, why: str, now: datetime, *, at_work: bool) -> Step:
    """The scheduler needs the room of a job in state STARTING or RUNNING; `why` is for its user."""
    step = move(job, State.PREEMPTING, now, message=f"making room: {why}", not_before=None)
    return step if at_work else stopped(step.job, now).after(step)


def resume_asked(job: TrainingJob, now: datetime) -> Step:
    """The user wants a paused job to go on; its checks are made first if they never were."""
    if not job.dataset_uri:
        return move(job, State.VALIDATING, now, message="")
    return move(job, State.QUEUED, now, message="waiting for resources")


def prioritised(job: TrainingJob, priority: int, now: datetime) -> Step:
    """The job has another priority from now on."""
    return Step(replace(job, priority=priority, update_time=now))


def stopped(job: TrainingJob, now: datetime, *, step: int = 0, error: ErrorRecord | None = None) -> Step:
    """An attempt at a job that is being cancelled, paused or preempted has ended, in whatever way.

    What it has not saved is lost, unless it said so; no restart is used up.
    """
    error = error or job.error
    if job.state is State.CANCELLING:
        return move(job, State.CANCELLED, now, step=max(step, job.step), error=error, message="")
    paused = job.state is State.PAUSING
    return move(
        job,
        State.PAUSED if paused else State.QUEUED,
        now,
        step=job.latest_checkpoint.step if job.latest_checkpoint else 0,
        error=error,
        worker=None,
        lease_expire_time=None,
        message="paused: resume it to go on" if paused else "preempted: waiting for resources",
    )


def failed(
    job: TrainingJob, error: ErrorRecord, now: datetime, *, final: bool, counts: bool, policy: RestartPolicy
) -> Step:
    """An attempt failed or was lost: the job starts again from its last checkpoint, or is given up.

    Args:
        job: in state STARTING or RUNNING.
        error: what happened to the attempt.
        now: the time of the change.
        final: whether another attempt would fail the same way.
        counts: whether it uses up a restart; not when the cluster never took the attempt up.
        policy: back-off between restarts; the job brings its own budget.
    """
    if final:
        return move(job, State.FAILED, now, error=error, message="")
    policy = replace(policy, max_restarts=job.max_restarts)
    delay_seconds = policy.delay_seconds(job.restarts) if counts else policy.first_delay_seconds
    if delay_seconds is None:
        spent = f"{error.message}; given up after {job.restarts} restarts"
        gave_up = replace(error, message=spent, metadata={**error.metadata, "restarts": str(job.restarts)})
        return move(job, State.FAILED, now, error=gave_up, message="")
    changes: dict[str, Any] = {
        "restarts": job.restarts + counts,
        "not_before": now + timedelta(seconds=delay_seconds),
        "worker": None,
        "lease_expire_time": None,
        "error": error,
        "message": f"restarting: {error.message}",
        "step": job.latest_checkpoint.step if job.latest_checkpoint else 0,
    }
    if job.state is State.STARTING:
        return Step(replace(job, update_time=now, **changes))
    return move(job, State.STARTING, now, **changes)
