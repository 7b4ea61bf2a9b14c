"""The use cases of the Training service: one method per RPC, one per thing that clusters report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import structlog

from finemesh.core.attempts import (
    Attempt,
    AttemptRef,
    Completion,
    Directive,
    Outcome,
    RestartPolicy,
    WorkReport,
)
from finemesh.core.clock import Clock
from finemesh.core.error_classes import classed
from finemesh.core.errors import ErrorRecord, PreconditionError
from finemesh.core.names import Name, parse_name
from finemesh.core.requests import PageRequest, RequestKey
from finemesh.core.states import TrainingJobState as State
from finemesh.training import domain
from finemesh.training.checkpoints import Checkpoint, check, find_repeat, retain
from finemesh.training.domain import TrainingResult
from finemesh.training.history import Entry, Kind
from finemesh.training.job import Step, TrainingJob
from finemesh.training.memory_faults import smaller_micro_batch
from finemesh.training.ports import Files, Store, Unit

log: Final = structlog.get_logger(__name__)

# How an attempt has ended that stopped in order, by what its job is then; else the job was cancelled.
_STOPS: Final = {State.PAUSED: "paused", State.QUEUED: "preempted"}
_STOPPED: Final = ErrorRecord("UNAVAILABLE", "ATTEMPT_STOPPED", "the attempt stopped without being told to")


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things are on the object store: `s3://{bucket}/projects/{project}/{collection}/{id}`."""

    bucket: str

    def uri(self, name: Name) -> str:
        """Prefix of everything that belongs to a resource."""
        return f"s3://{self.bucket}/{name}"


class TrainingService:
    """Jobs from their submission to their end. Who runs when and where is the scheduler's."""

    def __init__(
        self, store: Store, files: Files, layout: Layout, policy: RestartPolicy, clock: Clock
    ) -> None:
        self._store = store
        self._files = files
        self._layout = layout
        self._policy = policy
        self._clock = clock

    def draft(self, job: TrainingJob) -> TrainingJob:
        """`job` as it would be accepted now, in its first state."""
        now = self._clock.now()
        run = Name(job.name.project, "runs", job.name.id)
        return replace(
            job, run=str(run), output_uri=self._layout.uri(job.name), create_time=now, update_time=now
        )

    async def create(self, job: TrainingJob, key: RequestKey | None) -> TrainingJob:
        """Accept a job; or return the one that the same request made before.

        Raises AlreadyExistsError: TRAINING_JOB_EXISTS or REQUEST_ID_REUSED.
        """
        job = self.draft(job)
        earlier = await self._store.submit(job, key)
        if earlier is not None:
            return await self.get(earlier)
        log.info("job_accepted", job=str(job.name))
        return job

    async def get(self, name: Name) -> TrainingJob:
        """Raises NotFoundError."""
        async with self._store.read() as view:
            return await view.job(name)

    async def list(self, project: str, query: PageRequest) -> tuple[list[TrainingJob], str]:
        """One page of a project's jobs, and the token of the next."""
        async with self._store.read() as view:
            return await view.jobs(project, query)

    async def cancel(self, name: Name) -> TrainingJob:
        """Ask a job to stop; again changes nothing. Raises PreconditionError for a job that has ended."""
        async with self._store.begin() as unit:
            job = await unit.locked(name)
            if job.state in {State.CANCELLING, State.CANCELLED}:
                return job
            _require_live(job, "cancel")
            at_work = await unit.request_stop(name, Directive.CANCEL) is not None
            return await unit.save(domain.cancel_asked(job, self._clock.now(), at_work=at_work))

    async def pause(self, name: Name) -> TrainingJob:
        """Let a job wait until it is resumed; again changes nothing.

        Raises PreconditionError, TRAINING_JOB_ENDED or TRAINING_JOB_STOPPING: it has ended, or is about to.
        """
        async with self._store.begin() as unit:
            job = await unit.locked(name)
            if job.state in {State.PAUSING, State.PAUSED}:
                return job
            _require_live(job, "pause")
            _require_not(State.CANCELLING, job, "it is being cancelled, and cannot be paused any more")
            at_work = await unit.request_stop(name, Directive.PAUSE) is not None
            return await unit.save(domain.pause_asked(job, self._clock.now(), at_work=at_work))

    async def resume(self, name: Name) -> TrainingJob:
        """Let a paused job go on; one that goes on already stays as it is.

        Raises PreconditionError, TRAINING_JOB_ENDED or TRAINING_JOB_STOPPING: it has ended, or is about to
        end or to pause.
        """
        async with self._store.begin() as unit:
            job = await unit.locked(name)
            _require_live(job, "resume")
            _require_not(State.CANCELLING, job, "it is being cancelled: submit its spec as a new job")
            _require_not(State.PAUSING, job, "it still saves its state: resume it when it is PAUSED")
            if job.state is not State.PAUSED:
                return job
            return await unit.save(domain.resume_asked(job, self._clock.now()))

    async def set_priority(self, name: Name, priority: int) -> TrainingJob:
        """Give a job another priority. Raises PreconditionError, TRAINING_JOB_ENDED."""
        async with self._store.begin() as unit:
            job = await unit.locked(name)
            if job.priority == priority:
                return job
            _require_live(job, "put before others")
            return await unit.save(domain.prioritised(job, priority, self._clock.now()))

    async def delete(self, name: Name) -> None:
        """Delete a job that has ended, with its files. Raises PreconditionError, reason TRAINING_JOB_LIVE."""
        job = await self.get(name)
        if not job.terminal:
            raise PreconditionError(
                f"{name} is {job.state}: cancel it and wait for its end, then delete it",
                reason="TRAINING_JOB_LIVE",
                metadata={"training_job": str(name), "state": job.state},
            )
        # Files first: whatever fails in between, the job is still there to be deleted again.
        await self._files.delete(job.output_uri)
        async with self._store.begin() as unit:
            await unit.remove(name)

    async def list_checkpoints(self, name: Name, query: PageRequest) -> tuple[list[Checkpoint], str]:
        """One page of the checkpoints that are kept, latest first, and the token of the next."""
        async with self._store.read() as view:
            await view.job(name)
            return await view.checkpoint_page(name, query)

    async def list_history(self, name: Name, query: PageRequest) -> tuple[list[Entry], str]:
        """One page of a job's history, oldest first, and the token of the next."""
        async with self._store.read() as view:
            await view.job(name)
            return await view.history_page(name, query)

    async def commit_checkpoint(self, ref: AttemptRef, checkpoint: Checkpoint) -> list[str]:
        """Let an uploaded checkpoint count.

        Returns:
            URIs of the checkpoints that are no longer kept.

        Raises:
            FencedError: the attempt does not hold the job's lease.
            InvalidError: it cannot be a checkpoint of this job.
            PreconditionError: STEP_COMMITTED or STALE_CHECKPOINT.
        """
        name = parse_name(ref.resource, "trainingJobs")
        async with self._store.begin() as unit:
            job = await unit.locked(name)
            await unit.held(ref)
            check(checkpoint, job.output_uri)
            committed = await unit.checkpoints(name)
            repeated = find_repeat(committed, checkpoint)
            if repeated is None:
                now = self._clock.now()
                new = replace(checkpoint, create_time=now)
                retention = retain(committed, new, job.spec.checkpoint)
                await unit.retain(name, retention, checkpoint.step)
                marked = next(each for each in retention.kept if each.step == checkpoint.step)
                await unit.save(domain.committed(job, marked, now))
            return await unit.expired_by(name, checkpoint.step)

    # What clusters report, each in the transaction of the attempt's own change.

    async def take_reports(self, unit: Unit, reports: Sequence[tuple[Attempt, WorkReport]]) -> None:
        """Attempts renewed their leases."""
        found = await unit.all_locked([parse_name(each.resource, "trainingJobs") for each, _ in reports])
        jobs, now = {str(job.name): job for job in found}, self._clock.now()
        steps = [
            domain.reported(jobs[it.resource], it, report, now).by(f"{it.resource}/attempts/{it.number}")
            for it, report in reports
        ]
        await unit.save_all(steps)

    async def take_completion(
        self, unit: Unit, attempt: Attempt, completion: Completion[TrainingResult]
    ) -> None:
        """An attempt ended and says how.

        Raises PreconditionError, reason CHECKPOINT_NOT_COMMITTED: a success whose last step was not saved.
        """
        job = await unit.locked(parse_name(attempt.resource, "trainingJobs"))
        now = self._clock.now()
        blamed = completion.error is not None and completion.final
        blamed = blamed and not smaller_micro_batch(job, completion.error)
        if completion.result is not None:
            _require_saved(job, completion.result)
            step = domain.succeeded(job, completion.result, now)
        elif job.state is State.CANCELLING or (job.state in domain.STOPPING and not blamed):
            step = domain.stopped(job, now, step=completion.step, error=completion.error)
        elif completion.outcome is Outcome.CANCELLED and job.at_pause:
            step = domain.paused_itself(job, now)
        else:
            error = attempt.error or _STOPPED
            step = domain.failed(job, error, now, counts=True, policy=self._policy)
        await self._save_ended(unit, job, attempt, step)

    async def take_loss(self, unit: Unit, attempt: Attempt) -> None:
        """An attempt's lease ran out."""
        job = await unit.locked(parse_name(attempt.resource, "trainingJobs"))
        now, error = self._clock.now(), attempt.error or _STOPPED
        if job.state in domain.STOPPING:
            step = domain.stopped(job, now, error=error)
        else:
            counts = not attempt.never_started
            step = domain.failed(job, error, now, counts=counts, policy=self._policy)
        await self._save_ended(unit, job, attempt, step)

    async def _save_ended(self, unit: Unit, before: TrainingJob, attempt: Attempt, step: Step) -> None:
        error = classed(attempt.error) if attempt.error else None
        how = _STOPS.get(step.job.state, "") if attempt.outcome is Outcome.CANCELLED else ""
        how = how or (attempt.outcome or Outcome.LOST).lower()
        ended = Step(before).noted(Kind.ENDED, self._clock.now(), how, error)
        job = await unit.save(step.after(ended))
        reason = job.error.reason if job.error else ""
        log.info("attempt_ended", job=str(job.name), attempt=job.attempt, state=job.state, error=reason)


def _require_live(job: TrainingJob, verb: str) -> None:
    if job.terminal:
        raise PreconditionError(
            f"{job.name} has {job.state} already: there is nothing to {verb}",
            reason="TRAINING_JOB_ENDED",
            metadata={"training_job": str(job.name), "state": job.state},
        )


def _require_not(state: State, job: TrainingJob, why: str) -> None:
    if job.state is state:
        raise PreconditionError(
            f"{job.name} is {job.state}: {why}",
            reason="TRAINING_JOB_STOPPING",
            metadata={"training_job": str(job.name), "state": job.state},
        )


def _require_saved(job: TrainingJob, result: TrainingResult) -> None:
    saved = job.latest_checkpoint.step if job.latest_checkpoint else 0
    if saved != result.step:
        raise PreconditionError(
            f"{job.name} ended at step {result.step}, but its last committed checkpoint is of step {saved}:"
            " commit the last one first",
            reason="CHECKPOINT_NOT_COMMITTED",
        )
