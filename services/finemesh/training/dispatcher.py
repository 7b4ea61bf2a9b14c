"""Carries out what `placement` decides: starts jobs, tells others why they wait, stops some to make room.

The jobs that wait are kept in memory. They are read once; from then on each pass reads what has changed since
the one before, by whatever process.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

import structlog

from finemesh.core.attempts import Cluster, Directive
from finemesh.core.clock import Clock
from finemesh.core.errors import NotFoundError
from finemesh.core.names import parse_name
from finemesh.core.states import TrainingJobState as State
from finemesh.training import domain, fairness
from finemesh.training.claims import Claim
from finemesh.training.domain import TrainingJob
from finemesh.training.placement import Decisions, Placed, Snapshot, decide
from finemesh.training.ports import Store, Unit, View
from finemesh.training.quotas import Quota
from finemesh.training.reservations import Reservation
from finemesh.training.rooms import Room
from finemesh.training.waiting import Waiting

log: Final = structlog.get_logger(__name__)

PLACE_BATCH: Final = 100
TELL_BATCH: Final = 100
# A transaction may end so much later than the times that it writes.
OVERLAP: Final = timedelta(seconds=3)
USAGE_MEMORY: Final = timedelta(seconds=8 * fairness.HALF_LIFE_SECONDS)  # of older usage 1/256 is left
HOURS_EVERY: Final = timedelta(seconds=10)
SETTLED_AT_ONCE: Final = 10_000  # jobs: to look through as many takes some 25 ms


@dataclass(slots=True)
class _Memory:
    """What is kept from one pass to the next; all of it can be read again."""

    waiting: Waiting = field(default_factory=Waiting)
    read_until: datetime | None = None
    unsettled: int = 0
    usage: dict[str, Room] = field(default_factory=dict[str, Room])
    usage_until: datetime | None = None
    held: dict[str, Room] = field(default_factory=dict[str, Room])
    gpu_hours: dict[str, float] = field(default_factory=dict[str, float])
    hours_at: datetime | None = None
    reservations: Sequence[Reservation] = ()


class Dispatcher:
    """One scheduling pass after the other."""

    def __init__(self, store: Store, clock: Clock, live_seconds: float) -> None:
        self._store = store
        self._clock = clock
        self._live_seconds = live_seconds
        self._memory = _Memory()

    @property
    def waiting(self) -> int:
        """How many jobs wait, as far as the last pass has seen."""
        return len(self._memory.waiting)

    async def place(self) -> int:
        """Start every waiting job that has its turn and its room, up to PLACE_BATCH. Returns how many had."""
        began = time.perf_counter()
        snapshot = await self.read()
        if snapshot is None:
            return 0
        read = time.perf_counter()
        # In a thread: it computes for tens of milliseconds, and requests are not to wait for it.
        decided = await asyncio.to_thread(decide, snapshot, PLACE_BATCH)
        if decided.preempted:  # who stops depends on what each has saved: look, and decide again
            snapshot = await self._with_saved_times(snapshot)
            decided = await asyncio.to_thread(decide, snapshot, PLACE_BATCH)
        self._memory.reservations = decided.reservations
        log.debug(
            "scheduling_pass",
            read_ms=round((read - began) * 1e3, 1),
            decide_ms=round((time.perf_counter() - read) * 1e3, 1),
            waiting=self.waiting,
            placed=len(decided.placed),
        )
        await self._carry_out(decided)
        return len(decided.placed)

    # Reading

    async def read(self) -> Snapshot | None:
        """What to decide on now; None when nobody waits."""
        now, memory = self._clock.now(), self._memory
        async with self._store.read() as view:
            await self._feed(view, now)
            memory.waiting.wake(now)
            if not memory.waiting.entries and memory.usage_until is not None:
                return None
            oldest = now - timedelta(seconds=self._live_seconds)
            live = [c for c in await view.clusters() if c.last_seen_time >= oldest and c.capacity.nodes > 0]
            claims = await view.claims({cluster.id: cluster.last_seen_time for cluster in live})
            quotas = await view.quotas()
            await self._count(view, claims, quotas, now)
        return self._snapshot(live, claims, quotas, now)

    def _snapshot(
        self, live: Sequence[Cluster], claims: Sequence[Claim], quotas: dict[str, Quota], now: datetime
    ) -> Snapshot:
        memory = self._memory
        return Snapshot(
            now=now,
            waiting=memory.waiting,
            live=live,
            claims=claims,
            usage=memory.usage,
            quotas=quotas,
            gpu_hours=memory.gpu_hours,
            reservations=memory.reservations,
        )

    async def _feed(self, view: View, now: datetime) -> None:
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
        self, view: View, claims: Sequence[Claim], quotas: dict[str, Quota], now: datetime
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
        if memory.hours_at is None or not timedelta(0) <= now - memory.hours_at < HOURS_EVERY:
            limited = [quota for quota in quotas.values() if quota.max_gpu_hours is not None]
            memory.gpu_hours = {quota.project: await _gpu_hours(view, quota, now) for quota in limited}
            memory.hours_at = now

    async def _with_saved_times(self, snapshot: Snapshot) -> Snapshot:
        names = [parse_name(claim.job, "trainingJobs") for claim in snapshot.claims]
        async with self._store.read() as view:
            saved = await view.saved_times(names)
        claims = [replace(claim, saved_time=saved.get(claim.job)) for claim in snapshot.claims]
        return replace(snapshot, claims=claims)

    # Carrying out

    async def _carry_out(self, decided: Decisions) -> None:
        for victim, job in decided.preempted.items():
            await self._change(victim, lambda unit, found, job=job: self._preempt(unit, found, job))
        for placed in decided.placed:
            if await self._change(
                placed.name, lambda unit, found, placed=placed: self._start(unit, found, placed)
            ):
                self._memory.waiting.discard(placed.name)  # the next pass reads what has changed
        entries = self._memory.waiting.entries
        news = [
            (name, why)
            for name, why in decided.blocked.items()
            if name in entries and entries[name].demand.message != why
        ]
        if news:
            async with self._store.begin() as unit:
                await unit.tell(dict(news[:TELL_BATCH]), self._clock.now())

    async def _change(self, name: str, act: Callable[[Unit, TrainingJob], Awaitable[None]]) -> bool:
        """Act on a job in a transaction of its own. Returns whether that was committed."""
        try:
            async with self._store.begin() as unit:
                await act(unit, await unit.locked(parse_name(name, "trainingJobs")))
        except NotFoundError:
            self._memory.waiting.discard(name)
        except Exception:  # one job in trouble must not keep the others waiting
            log.exception("placement_failed", job=name)
            return False
        return True

    async def _start(self, unit: Unit, job: TrainingJob, placed: Placed) -> None:
        if job.state not in {State.QUEUED, State.STARTING}:
            return  # cancelled or paused since it was read
        attempt = await unit.dispatch(job, placed.cluster, placed.nodes)
        await unit.save(domain.dispatched(job, attempt, self._clock.now()))
        log.info("job_dispatched", job=placed.name, attempt=attempt.number, cluster=placed.cluster)

    async def _preempt(self, unit: Unit, job: TrainingJob, other: str) -> None:
        if job.state not in {State.STARTING, State.RUNNING} or job.worker is None:
            return  # it has ended, or stops for another reason
        at_work = await unit.request_stop(job.name, Directive.PREEMPT) is not None
        why = f"{other} has a higher priority"
        await unit.save(domain.preempt_asked(job, why, self._clock.now(), at_work=at_work))
        log.info("job_preempted", job=str(job.name), priority=job.priority, by=other)


async def _gpu_hours(view: View, quota: Quota, now: datetime) -> float:
    return quota.hours_used(await view.past_claims(quota.window_begin(now), quota.project), now)


def _settle() -> None:
    """Let the collector of cyclic garbage pass over what is kept now: with 100,000 jobs that wait it would
    stop the whole process for a quarter of a second whenever it looks at everything.
    """
    gc.collect()
    gc.freeze()
