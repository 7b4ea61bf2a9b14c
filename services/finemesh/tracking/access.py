"""Who may log points to which run.

An attempt of a training job logs to the run of its job: its own batches, and those that an earlier attempt
left in its spool. Its fencing token decides: once a higher one was seen, or a later attempt is known from an
event, it has been superseded and can do no harm. A service drains old spools. People and programs log to runs
without a job.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from finemesh.chassis.auth import LEEWAY_SECONDS, Principal, Role
from finemesh.core.errors import (
    FencedError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
    UnavailableError,
)
from finemesh.core.names import Name
from finemesh.tracking.domain import Run


@dataclass(frozen=True, slots=True)
class Head:
    """What decides whether points are taken."""

    training_job: str
    attempt: int
    fence: int
    ended: bool

    @classmethod
    def of(cls, run: Run) -> Head:
        return cls(run.training_job, run.attempt, run.fence, run.state.ended)


def not_found(run: Name) -> NotFoundError:
    return NotFoundError(
        f"there is no run {run}: check the name, or list the runs of {run.parent}",
        reason="RUN_NOT_FOUND",
        metadata={"run": str(run)},
    )


def require_current(principal: Principal, now: datetime) -> None:
    """Raises UnauthenticatedError, reason TOKEN_EXPIRED: a stream may outlive the token that opened it."""
    if now.timestamp() > principal.expires_at + LEEWAY_SECONDS:
        raise UnauthenticatedError(
            "the token that opened this stream has expired: open a new one with a fresh token",
            reason="TOKEN_EXPIRED",
        )


def check_access(principal: Principal, run: Name, attempt: int, head: Head | None) -> None:
    """Whether `principal` may log batches of `attempt` to `run`; `head` is None while there is no such run.

    Raises:
        FencedError: a later attempt has taken over.
        PermissionDeniedError: the run or the attempt is not the caller's.
        PreconditionError: RUN_ENDED, RUN_WITHOUT_JOB.
        NotFoundError: no such run, and the caller is not the attempt that would start it.
        UnavailableError: RUN_UNKNOWN or ATTEMPT_UNKNOWN, the event about it has not arrived yet.
    """
    if principal.role is Role.ATTEMPT:
        _check_attempt(principal, run, attempt, head)
        return
    principal.require_role(Role.OPERATOR)
    if head is None and principal.role is Role.SERVICE:
        raise UnavailableError(
            f"{run} is not known yet, its job's events are on the way: send it again in a moment",
            reason="RUN_UNKNOWN",
        )
    if head is None:
        raise not_found(run)
    if not head.training_job:
        if head.ended:
            raise PreconditionError(f"{run} has ended: create a new run for new points", reason="RUN_ENDED")
        return
    principal.require_role(Role.SERVICE)
    if attempt > head.attempt:
        raise UnavailableError(
            f"attempt {attempt} of {run} is not known yet, only {head.attempt} is: send it again in a moment",
            reason="ATTEMPT_UNKNOWN",
        )


def _check_attempt(principal: Principal, run: Name, attempt: int, head: Head | None) -> None:
    job = job_of(run)
    if principal.resource != job:
        raise PermissionDeniedError(
            f"the token is for {principal.resource}, which does not make {run}", reason="RESOURCE_DENIED"
        )
    if attempt > principal.attempt:
        raise PermissionDeniedError(
            f"the token is for attempt {principal.attempt}, not for {attempt} of {run}",
            reason="ATTEMPT_DENIED",
        )
    if head is None:
        return
    if head.training_job != job:
        raise PreconditionError(
            f"{run} belongs to another program: finish and delete it, and the points of {job} will be taken",
            reason="RUN_WITHOUT_JOB",
        )
    if principal.fence < head.fence or principal.attempt < head.attempt:
        raise FencedError(
            f"attempt {principal.attempt} of {job} (fence {principal.fence}) has been superseded by attempt"
            f" {head.attempt} (fence {head.fence}): stop, and leave the spool to it",
            metadata={"run": str(run), "attempt": str(head.attempt), "fence": str(head.fence)},
        )


def must_register(principal: Principal, attempt: int, head: Head | None) -> bool:
    """Whether the run has to be created, or to learn of this attempt, before the batch is taken.

    Attempts of jobs fence each other. Those of other programs do not, and are noted with the summaries.
    """
    if head is None:
        return True
    is_later = max(attempt, principal.attempt) > head.attempt or principal.fence > head.fence
    return bool(head.training_job) and is_later


def registered(run: Run | None, principal: Principal, name: Name, attempt: int, now: datetime) -> Run:
    """The run once it knows of the attempt that logs to it; created if that attempt is the first to speak.

    Raises what `check_access` raises: between its first look and this one the run may have changed.
    """
    check_access(principal, name, attempt, Head.of(run) if run else None)
    if run is None:
        run = Run(name=name, training_job=principal.resource, create_time=now, update_time=now)
    return replace(
        run,
        attempt=max(run.attempt, attempt, principal.attempt),
        fence=max(run.fence, principal.fence),
        update_time=now,
    )


def job_of(run: Name) -> str:
    """The training job whose run this is, if it is a job's: the two have the same id."""
    return str(Name(run.project, "trainingJobs", run.id))
