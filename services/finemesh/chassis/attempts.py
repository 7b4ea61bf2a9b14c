"""The queue of heavy work: attempts in SQL, each with a lease and a fence, carried out by clusters.

A service binds itself as the owner of its attempts. Whatever happens to an attempt, the row here, the owner's
own rows, and the events and commands in the outbox change in one transaction. At any time a resource has at
most one live attempt, and the database refuses a second one.

Every method takes the resource's lock first (`Tx.lock`); so must the use cases of the owner.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final, Generic, Protocol, TypeVar

import structlog

from finemesh.chassis.attempt_rows import AttemptRows
from finemesh.chassis.events import command_message
from finemesh.chassis.gathering import Gathering
from finemesh.chassis.outbox import Outbox
from finemesh.chassis.sql import Database, Tx
from finemesh.core.attempts import (
    Attempt,
    AttemptRef,
    AttemptState,
    Cluster,
    ClusterCapacity,
    Completion,
    Directive,
    Lease,
    Outcome,
    SyncAnswer,
    WorkReport,
)
from finemesh.core.errors import ErrorRecord, FencedError, FinemeshError, PreconditionError

COMMAND_SCHEMA: Final = "finemesh.v1.Command"
RENEWALS_REST: Final = 4.0  # they take a fifth of the time at most, and nobody waits for one

log: Final = structlog.get_logger(__name__)

R = TypeVar("R")
R_contra = TypeVar("R_contra", contravariant=True)


class AttemptOwner(Protocol[R_contra]):
    """What a service does about its attempts, in the transaction of the attempt's own change."""

    async def command(self, tx: Tx, attempt: Attempt) -> bytes:
        """The serialised `finemesh.v1.Command` for an attempt that is being dispatched now.

        Its `start_deadline` is `attempt.lease_expire_time`; its first token has to last as long.
        """
        ...

    async def on_reports(self, tx: Tx, reports: Sequence[tuple[Attempt, WorkReport]]) -> None:
        """Attempts have renewed their leases; for the first time when `start_time` is the update's time."""
        ...

    async def on_completed(self, tx: Tx, attempt: Attempt, completion: Completion[R_contra]) -> None:
        """The attempt has ended and says how. May dispatch the next one."""
        ...

    async def on_lost(self, tx: Tx, attempt: Attempt) -> None:
        """The lease ran out. `attempt.never_started` tells whether anybody ever took it up."""
        ...


@dataclass(frozen=True, slots=True)
class AttemptSettings:
    """Times of the queue, in seconds.

    Attributes:
        lease_seconds: how long an attempt may go without a renewal before it counts as lost.
        start_timeout_seconds: the same before its first renewal.
        cancel_grace_seconds: how long a cancelled attempt may go on renewing before it is cut off.
        pause_grace_seconds: the same of one that is paused or preempted.
        resend_after_seconds: age from which a command that the cluster does not know is sent again by `sync`.
        tick_seconds: how often lost and due attempts are looked for.
    """

    lease_seconds: float = 20.0
    start_timeout_seconds: float = 120.0
    cancel_grace_seconds: float = 60.0
    pause_grace_seconds: float = 120.0
    resend_after_seconds: float = 5.0
    tick_seconds: float = 0.5

    def grace_seconds(self, directive: Directive) -> float:
        """How long an attempt may take to stop."""
        return self.cancel_grace_seconds if directive is Directive.CANCEL else self.pause_grace_seconds


class AttemptQueue(Generic[R]):
    """The attempts at the resources of one service. `R` is what a finished attempt brings back."""

    def __init__(self, db: Database, outbox: Outbox, settings: AttemptSettings | None = None) -> None:
        self.settings = settings or AttemptSettings()
        self._db = db
        self._outbox = outbox
        self._clock = outbox.clock
        self._rows = AttemptRows(outbox.tables)
        self._owner: AttemptOwner[R] | None = None
        self._renewals = Gathering(db, self._renew_all, rest=RENEWALS_REST)

    def bind(self, owner: AttemptOwner[R]) -> None:
        """Name the service that owns the attempts; once, before anything else."""
        self._owner = owner

    @property
    def owner(self) -> AttemptOwner[R]:
        assert self._owner is not None, "bind() the service to its queue first"
        return self._owner

    # Within a transaction of the owner

    async def dispatch(
        self,
        tx: Tx,
        resource: str,
        cluster: str,
        *,
        nodes: Sequence[str] = (),
        delay_seconds: float = 0.0,
    ) -> Attempt:
        """Start the next attempt at `resource`: at once on `nodes`, or when `delay_seconds` have passed.

        Raises PreconditionError, reason ATTEMPT_LIVE, while another attempt has not ended.
        """
        await tx.lock(resource)
        latest = await self._rows.latest(tx, resource)
        if latest is not None and latest.state is not AttemptState.ENDED:
            raise PreconditionError(
                f"attempt {latest.number} at {resource} has not ended: wait for it or cancel it",
                reason="ATTEMPT_LIVE",
                metadata={"resource": resource},
            )
        now = self._clock.now()
        last = latest.ref if latest else AttemptRef(resource, 0, 0)
        attempt = Attempt(
            ref=AttemptRef(resource, last.attempt + 1, last.fence + 1),
            cluster=cluster,
            state=AttemptState.WAITING,
            directive=Directive.CONTINUE,
            command=b"",
            create_time=now,
            lease_expire_time=now + timedelta(seconds=delay_seconds),
            nodes=tuple(nodes),
        )
        if delay_seconds <= 0:
            attempt = await self._ordered(tx, attempt)
        await self._rows.insert(tx, attempt)
        return attempt

    async def request_stop(
        self, tx: Tx, resource: str, directive: Directive = Directive.CANCEL, error: ErrorRecord | None = None
    ) -> Attempt | None:
        """Ask the live attempt to stop, or to stop for a stronger reason; `error` is kept as the cause.

        Returns:
            The attempt, which will complete or be lost; or None when nobody works on the resource, so that
            the caller finishes the stop now. An attempt that never started is ended here.
        """
        await tx.lock(resource)
        latest = await self._rows.latest(tx, resource)
        if latest is None or latest.state is AttemptState.ENDED:
            return None
        if latest.never_started:
            await self._end(tx, latest, Outcome.CANCELLED, error)
            return None
        if not directive.outranks(latest.directive):
            return latest
        # A stronger reason gives no more time: the attempt is stopping already.
        told = latest.directive is not Directive.CONTINUE
        now = None if told else self._clock.now()
        return await self._rows.change(
            tx, latest, directive=directive, directive_time=now, error=error or latest.error
        )

    async def held(self, tx: Tx, ref: AttemptRef) -> Attempt:
        """The attempt, if it is live under this fence and its lease has not run out.

        For every write that an attempt makes beside `renew` and `complete`, e.g. committing a checkpoint.
        Raises FencedError.
        """
        [attempt] = await self._all_held(tx, [ref])
        return attempt

    async def _all_held(self, tx: Tx, refs: Sequence[AttemptRef]) -> list[Attempt]:
        await tx.lock(*(ref.resource for ref in refs))
        found = await self._rows.find_all(tx, refs)
        return [self._held(ref, found.get(ref)) for ref in refs]

    def _held(self, ref: AttemptRef, attempt: Attempt | None) -> Attempt:
        if attempt is None:
            raise _fenced(ref, "is not known here")
        if attempt.state is AttemptState.ENDED:
            raise _fenced(ref, f"has ended: {attempt.outcome}")
        if attempt.state is AttemptState.WAITING or attempt.lease_expire_time <= self._clock.now():
            raise _fenced(ref, "has no lease")
        return attempt

    async def latest(self, tx: Tx, resource: str) -> Attempt | None:
        """The newest attempt at a resource, live or ended."""
        return await self._rows.latest(tx, resource)

    async def started_count(self, tx: Tx, resource: str) -> int:
        """How many attempts at a resource were taken up, or failed to be: what a restart budget counts."""
        return await self._rows.started_count(tx, resource)

    async def clusters(self, tx: Tx) -> list[Cluster]:
        """Every cluster that ever reported itself, the latest report first."""
        return await self._rows.clusters(tx)

    # From clusters

    async def renew(self, ref: AttemptRef, report: WorkReport) -> Lease:
        """Extend the lease and take the report. Raises FencedError: the attempt has to stop."""
        return await self._renewals.write(ref.resource, (ref, report))

    async def _renew_all(self, tx: Tx, asked: Sequence[tuple[AttemptRef, WorkReport]]) -> list[Lease]:
        attempts = await self._all_held(tx, [ref for ref, _ in asked])
        now, seconds = self._clock.now(), self.settings.lease_seconds
        stop_seconds = [await self._stop_seconds(tx, attempt) for attempt in attempts]
        renewed = [
            replace(
                attempt,
                state=AttemptState.RUNNING,
                start_time=attempt.start_time or now,
                lease_expire_time=now + timedelta(seconds=seconds),
            )
            for attempt in attempts
        ]
        await self._rows.change_all(tx, renewed, "state", "start_time", "lease_expire_time")
        reports = (report for _, report in asked)
        await self.owner.on_reports(tx, list(zip(renewed, reports, strict=True)))
        return [
            Lease(attempt.lease_expire_time, seconds, attempt.directive, left)
            for attempt, left in zip(renewed, stop_seconds, strict=True)
        ]

    async def _stop_seconds(self, tx: Tx, attempt: Attempt) -> float:
        """What is left to stop in; 0 if nobody told it to. Raises FencedError: no more."""
        if attempt.directive is Directive.CONTINUE:
            return 0.0
        told = await self._rows.directive_time(tx, attempt.ref)
        limit = told + timedelta(seconds=self.settings.grace_seconds(attempt.directive))
        left = (limit - self._clock.now()).total_seconds()
        if left <= 0:
            raise _fenced(attempt.ref, f"was told to {attempt.directive} and did not stop in time")
        return left

    async def complete(self, ref: AttemptRef, completion: Completion[R]) -> None:
        """Take the attempt's own word for its end. Repeating it changes nothing.

        Raises:
            FencedError: the attempt has ended otherwise, or its lease ran out; or this counts only if it has
                not started, and it has.
            PreconditionError: ATTEMPT_NOT_STARTED, success without a single renewal.
        """
        async with self._db.begin(brief=True) as tx:
            await tx.lock(ref.resource)
            known = await self._rows.find(tx, ref)
            if known is not None and known.outcome is completion.outcome:
                return
            attempt = await self.held(tx, ref)
            if completion.if_not_started and not attempt.never_started:
                raise _fenced(ref, "has renewed its lease, and counts until that runs out")
            if attempt.never_started and completion.outcome is Outcome.SUCCEEDED:
                raise PreconditionError(
                    f"attempt {ref.attempt} at {ref.resource} never renewed its lease: renew, then complete",
                    reason="ATTEMPT_NOT_STARTED",
                )
            # What it was stopped for comes before what the stop has broken.
            error = (attempt.error or completion.error) if completion.result is None else None
            ended = await self._end(tx, attempt, completion.outcome, error)
            await self.owner.on_completed(tx, ended, completion)

    async def sync(
        self, cluster: str, capacity: ClusterCapacity, attempts: Collection[AttemptRef]
    ) -> SyncAnswer:
        """Compare what a cluster does with what it should do, and note that it was seen."""
        now = self._clock.now()
        async with self._db.begin(brief=True) as tx:
            await self._rows.note_cluster(tx, Cluster(cluster, capacity, now))
            # A younger command is still on its way over the bus.
            resend_after_seconds = self.settings.resend_after_seconds
            due = now + timedelta(seconds=self.settings.start_timeout_seconds - resend_after_seconds)
            should = await self._rows.sent_to(tx, cluster, due)
            has = set(attempts)
            lacking = [ref for ref, resent in should.items() if resent and ref not in has]
            missing = await self._rows.find_all(tx, lacking) if lacking else {}
        commands = tuple(attempt.command for attempt in missing.values())
        return SyncAnswer(commands, tuple(sorted(has - should.keys())))

    # On a timer

    async def run(self) -> None:
        """Look after lost and due attempts until cancelled."""
        while True:
            try:
                await self.expire_overdue()
            except FinemeshError as error:
                log.warning("attempts.tick_failed", reason=error.reason, error=error.message)
            await asyncio.sleep(self.settings.tick_seconds)

    async def expire_overdue(self) -> int:
        """Send the commands that are due and give up the attempts whose lease ran out. Returns how many."""
        async with self._db.read() as tx:
            found = await self._rows.overdue(tx, self._clock.now())
        for attempt in found:
            try:
                await self._settle(attempt.ref)
            except Exception:  # one resource in trouble must not keep the others waiting
                log.exception("attempts.settle_failed", resource=attempt.resource, attempt=attempt.number)
        return len(found)

    async def _settle(self, ref: AttemptRef) -> None:
        async with self._db.begin(brief=True) as tx:
            await tx.lock(ref.resource)
            attempt = await self._rows.find(tx, ref)
            if attempt is None or attempt.state is AttemptState.ENDED:
                return
            if attempt.lease_expire_time > self._clock.now():
                return  # renewed since it was found
            if attempt.state is AttemptState.WAITING:
                await self._send(tx, attempt)
                return
            lost = await self._end(tx, attempt, Outcome.LOST, attempt.error or _lost_error(attempt))
            log.warning("attempts.lost", resource=ref.resource, attempt=ref.attempt, cluster=attempt.cluster)
            await self.owner.on_lost(tx, lost)

    async def _send(self, tx: Tx, attempt: Attempt) -> Attempt:
        sent = await self._ordered(tx, attempt)
        return await self._rows.change(
            tx, attempt, state=sent.state, lease_expire_time=sent.lease_expire_time, command=sent.command
        )

    async def _ordered(self, tx: Tx, attempt: Attempt) -> Attempt:
        """The attempt with its command, which goes out with `tx`; its row is left to the caller to write."""
        deadline = self._clock.now() + timedelta(seconds=self.settings.start_timeout_seconds)
        sent = replace(attempt, state=AttemptState.DISPATCHED, lease_expire_time=deadline)
        command = await self.owner.command(tx, sent)
        message = command_message(attempt.cluster, attempt.resource, command, COMMAND_SCHEMA)
        await self._outbox.append(tx, message)
        return replace(sent, command=command)

    async def _end(
        self, tx: Tx, attempt: Attempt, outcome: Outcome, error: ErrorRecord | None = None
    ) -> Attempt:
        now = self._clock.now()
        return await self._rows.change(
            tx, attempt, state=AttemptState.ENDED, outcome=outcome, error=error, end_time=now
        )


def _fenced(ref: AttemptRef, why: str) -> FencedError:
    return FencedError(
        f"attempt {ref.attempt} (fence {ref.fence}) at {ref.resource} {why}: stop and write nothing more",
        metadata={"resource": ref.resource, "attempt": str(ref.attempt), "fence": str(ref.fence)},
    )


def _lost_error(attempt: Attempt) -> ErrorRecord:
    what = "was not taken up" if attempt.never_started else "stopped renewing its lease"
    return ErrorRecord(
        code="UNAVAILABLE",
        reason="ATTEMPT_LOST",
        message=f"attempt {attempt.number} on cluster {attempt.cluster} {what} in time",
        metadata={"resource": attempt.resource, "cluster": attempt.cluster},
    )
