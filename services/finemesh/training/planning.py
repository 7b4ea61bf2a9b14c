"""What a scheduling pass is asked and what it plans; reading, remembering and deciding for it.

The jobs that wait are kept in memory. They are read once; from then on each pass reads what has changed since
the one before, by whatever process. All of it can be read again, so it may be kept in a process of its own
(`planning_process`). What cannot is in the question.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, Protocol

from finemesh.core.attempts import Cluster
from finemesh.core.names import parse_name
from finemesh.training import fairness
from finemesh.training.claims import Claim
from finemesh.training.placement import Decisions, Placed, Snapshot, decide
from finemesh.training.ports import QueueView
from finemesh.training.quotas import Quota
from finemesh.training.reservations import Reservation
from finemesh.training.rooms import Room
from finemesh.training.waiting import Waiting

PLACE_BATCH: Final = 100
TELL_BATCH: Final = 100
# A transaction may end so much later than the times that it writes.
OVERLAP: Final = timedelta(seconds=3)
USAGE_MEMORY: Final = timedelta(seconds=8 * fairness.HALF_LIFE_SECONDS)  # of older usage 1/256 is left
HOURS_EVERY: Final = timedelta(seconds=10)
SETTLED_AT_ONCE: Final = 10_000  # jobs: to look through as many takes some 25 ms


@dataclass(frozen=True, slots=True)
class Question:
    """What a pass is asked.

    Attributes:
        now: the time to plan for, UTC.
        reservations: as the plan before left them.
        gone: names of jobs that were seen not to wait any more since then: of rows that were deleted
            nothing else tells.
    """

    now: datetime
    reservations: Sequence[Reservation] = ()
    gone: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What to carry out.

    Attributes:
        placed: jobs to start, PLACE_BATCH at most.
        preempted: jobs to stop, each with the job that it stops for.
        news: why jobs wait that say something else so far, TELL_BATCH at most.
        reservations: for the question after this one.
        waiting: how many jobs wait, those that are placed and those that back off included.
        read_ms, decide_ms: how long it took, in milliseconds.
    """

    placed: Sequence[Placed]
    preempted: dict[str, str]
    news: dict[str, str]
    reservations: Sequence[Reservation]
    waiting: int
    read_ms: float = field(default=0.0, compare=False)
    decide_ms: float = field(default=0.0, compare=False)


class Plans(Protocol):
    """Whoever plans passes."""

    async def plan(self, question: Question) -> Plan | None:
        """What to do now; None when nobody waits. Raises UnavailableError when the database is away."""
        ...


class Queue(Protocol):
    """Where passes read what waits and what is held."""

    def read(self) -> AbstractAsyncContextManager[QueueView]: ...


@dataclass(slots=True)
class _Memory:
    """What is kept from one pass to the next; all of it can be read again."""

    waiting: Waiting = field(default_factory=Waiting)
    read_until: datetime | None = None
    unsettled: int = 0
    at_work: int = 0
    usage: dict[str, Room] = field(default_factory=dict[str, Room])
    usage_until: datetime | None = None
    held: dict[str, Room] = field(default_factory=dict[str, Room])
    gpu_hours: dict[str, float] = field(default_factory=dict[str, float])
    hours_at: datetime | None = None


class Planner:
    """Implements `Plans` in this process, one question after the other.

    Args:
        live_seconds: how long after its last report a cluster gets work.
    """

    def __init__(self, queue: Queue, live_seconds: float) -> None:
        self._queue = queue
        self._live_seconds = live_seconds
        self._memory = _Memory()

    async def jobs(self) -> int:
        """How many jobs wait or are at work: as the last pass has seen it, or as the table says while none
        has. Raises UnavailableError.
        """
        memory = self._memory
        if memory.read_until is not None:
            return len(memory.waiting) + memory.at_work
        async with self._queue.read() as view:
            return await view.busy_count()

    def forget(self) -> None:
        """Free the memory of all that was read; the next question reads it again."""
        self._memory = _Memory()

    async def plan(self, question: Question) -> Plan | None:
        """See `Plans`."""
        began = time.perf_counter()
        snapshot = await self._read(question)
        if snapshot is None:
            return None
        read = time.perf_counter()
        # In a thread: it computes for tens of milliseconds, and requests are not to wait for it.
        decided = await asyncio.to_thread(decide, snapshot, PLACE_BATCH)
        if decided.preempted:  # who stops depends on what each has saved: look, and decide again
            snapshot = await self._with_saved_times(snapshot)
            decided = await asyncio.to_thread(decide, snapshot, PLACE_BATCH)
        return Plan(
            placed=decided.placed,
            preempted=decided.preempted,
            news=self._news(decided),
            reservations=decided.reservations,
            waiting=len(self._memory.waiting),
            read_ms=(read - began) * 1e3,
            decide_ms=(time.perf_counter() - read) * 1e3,
        )

    def _news(self, decided: Decisions) -> dict[str, str]:
        entries = self._memory.waiting.entries
        started = {placed.name for placed in decided.placed}
        news = [
            (name, why)
            for name, why in decided.blocked.items()
            if name not in started and entries[name].demand.message != why
        ]
        return dict(news[:TELL_BATCH])

    async def _read(self, question: Question) -> Snapshot | None:
        now, memory = question.now, self._memory
        for name in question.gone:  # before reading, which tells of those that wait again
            memory.waiting.discard(name)
        async with self._queue.read() as view:
            await self._feed(view, now)
            memory.waiting.wake(now)
            if not memory.waiting.entries and memory.usage_until is not None:
                return None
            oldest = now - timedelta(seconds=self._live_seconds)
            live = [c for c in await view.clusters() if c.last_seen_time >= oldest and c.capacity.nodes > 0]
            claims = await view.claims({cluster.id: cluster.last_seen_time for cluster in live})
            quotas = await view.quotas()
            await self._count(view, claims, quotas, now)
        return self._snapshot(question, live, claims, quotas)

    def _snapshot(
        self, question: Question, live: Sequence[Cluster], claims: Sequence[Claim], quotas: dict[str, Quota]
    ) -> Snapshot:
        memory = self._memory
        return Snapshot(
            now=question.now,
            waiting=memory.waiting,
            live=live,
            claims=claims,
            usage=memory.usage,
            quotas=quotas,
            gpu_hours=memory.gpu_hours,
            reservations=question.reservations,
        )

    async def _feed(self, view: QueueView, now: datetime) -> None:
        memory = self._memory
        since = memory.read_until
        if since is not None and now < since:  # the clock was set back
            since, memory.waiting = None, Waiting()
        found, gone = await view.demands(None if since is None else since - OVERLAP)
        for name in gone:
            memory.waiting.discard(name)
        memory.unsettled += sum(memory.waiting.put(demand) for demand in found)
        if memory.unsettled >= SETTLED_AT_ONCE:
            memory.unsettled = 0
            _settle()
        memory.read_until = now

    async def _count(
        self, view: QueueView, claims: Sequence[Claim], quotas: dict[str, Quota], now: datetime
    ) -> None:
        """Bring what projects have used up to `now`."""
        memory = self._memory
        if memory.usage_until is None:
            for claim in await view.past_claims(now - USAGE_MEMORY):
                used = fairness.used_until(claim, now.timestamp())
                memory.usage[claim.project] = memory.usage.get(claim.project, Room(0, 0, 0)).plus(used)
        else:
            seconds = max((now - memory.usage_until).total_seconds(), 0.0)
            memory.usage = fairness.aged(memory.usage, memory.held, seconds)
        memory.usage_until, memory.held = now, fairness.held_by_project(claims)
        memory.at_work = sum(claim.end_time is None for claim in claims)
        if memory.hours_at is None or not timedelta(0) <= now - memory.hours_at < HOURS_EVERY:
            limited = [quota for quota in quotas.values() if quota.max_gpu_hours is not None]
            memory.gpu_hours = {quota.project: await _gpu_hours(view, quota, now) for quota in limited}
            memory.hours_at = now

    async def _with_saved_times(self, snapshot: Snapshot) -> Snapshot:
        names = [parse_name(claim.job, "trainingJobs") for claim in snapshot.claims]
        async with self._queue.read() as view:
            saved = await view.saved_times(names)
        claims = [replace(claim, saved_time=saved.get(claim.job)) for claim in snapshot.claims]
        return replace(snapshot, claims=claims)


async def _gpu_hours(view: QueueView, quota: Quota, now: datetime) -> float:
    return quota.hours_used(await view.past_claims(quota.window_begin(now), quota.project), now)


def _settle() -> None:
    """Let the collector of cyclic garbage pass over what is kept now: with 100,000 jobs that wait it would
    stop the whole process for a quarter of a second whenever it looks at everything.
    """
    gc.collect()
    gc.freeze()
