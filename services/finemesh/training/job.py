"""What a training job is, and the one way it gets from state to state.

A function that moves a job returns a `Step`: the job as it is afterwards, the facts to publish with it, and
the entries of its history.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from finemesh.core.attempts import Directive, ResumeCertificate, Worker
from finemesh.core.errors import ErrorRecord
from finemesh.core.names import Name
from finemesh.core.spec.finetune import FineTuneSpec
from finemesh.core.states import FIRST_ATTEMPT, LATER_ATTEMPT, TRAINING_JOB, TrainingJobState, facts_of
from finemesh.training.checkpoints import Checkpoint
from finemesh.training.estimates.domain import Estimate
from finemesh.training.history import Entry, Kind
from finemesh.training.pace import Pace

State = TrainingJobState
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
        kill_after_step: the process of the first attempt kills itself after so many steps, or later, when a
            checkpoint is committed; 0 means never.
        pause_at_step: after so many steps it saves its state and waits; 0 means never.
        not_before: when the scheduler or the validation may look at it again.
        worker: who works on it, while somebody does, with its last sign of life and the end of its lease.
        row_usage: rows of the dataset by use: trained, held_out, gap, truncated, over_length.
        estimate: what it was estimated to take when it was submitted; None if its base model was not known.
        micro_batch_size: rows of a forward pass in place of the spec's, since memory ran out; 0 as it says.
        error: why it failed; in other states the cause of the last loss.
        revision: counts every change.
        max_run_seconds: how long it may be RUNNING, over all attempts; 0 means for ever.
        history_size: how many entries its history has; its submission is the first.
        state_time: since when it is in its state; None for the first one.
        run_seconds: how long it was RUNNING before, in all.
        following: the directive that its attempt says it acts on.
        pace: how fast its attempt trains.
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
    pause_at_step: int = 0
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
    estimate: Estimate | None = None
    micro_batch_size: int = 0
    error: ErrorRecord | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    revision: int = 0
    max_run_seconds: float = 0.0
    history_size: int = 1
    state_time: datetime | None = None
    run_seconds: float = 0.0
    following: Directive = Directive.CONTINUE
    pace: Pace | None = None

    @property
    def terminal(self) -> bool:
        return self.state in TRAINING_JOB.terminal

    @property
    def saved_step(self) -> int:
        """Optimiser steps that nothing can lose any more."""
        return self.latest_checkpoint.step if self.latest_checkpoint else 0

    @property
    def at_pause(self) -> bool:
        """Whether it is saved where it is to pause."""
        return 0 < self.pause_at_step <= self.saved_step

    @property
    def estimated_end_time(self) -> datetime | None:
        """When its last step is done, if it goes on as it does; None unless it is RUNNING."""
        if self.state is not State.RUNNING or self.pace is None:
            return None
        return self.pace.end_time(self.total_steps)


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that became true of a job, with the checkpoint or certificate that it tells of."""

    name: str
    checkpoint: Checkpoint | None = None
    certificate: ResumeCertificate | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """A job after a change, what to publish about it, and what its history has to tell."""

    job: TrainingJob
    facts: tuple[Fact, ...] = ()
    entries: tuple[Entry, ...] = ()

    def then(self, target: State, now: datetime, **changes: Any) -> Step:
        """This step and, right after it, the one to `target`."""
        return move(self.job, target, now, **changes).after(self)

    def after(self, earlier: Step) -> Step:
        """`earlier` and this one, in one."""
        return Step(self.job, earlier.facts + self.facts, earlier.entries + self.entries)

    def by(self, actor: str) -> Step:
        """This step, with who has brought it about, for one that is saved outside of the call."""
        return replace(self, entries=tuple(replace(entry, actor=actor) for entry in self.entries))

    def noted(self, kind: Kind, now: datetime, message: str = "", error: ErrorRecord | None = None) -> Step:
        """This step, with an entry of the history that tells of the job as it is after it."""
        job = self.job
        entry = Entry(kind, now, job.state, None, job.attempt, job.step, message, error)
        return replace(self, entries=(*self.entries, entry))


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
    if job.state is State.RUNNING:
        ran = (now - (job.state_time or now)).total_seconds()
        changes["run_seconds"] = job.run_seconds + max(0.0, ran)
    moved = replace(job, state=target, state_time=now, update_time=now, **changes)
    entry = Entry(
        *(Kind.STATE, now, target, job.state, moved.attempt, moved.step),
        message=f"from step {certificate.step}" if certificate else moved.message,
        error=moved.error if target is State.FAILED else None,
    )
    return Step(moved, tuple(Fact(name, certificate=certificate) for name in names), (entry,))
