"""Carries out what a pass plans: starts jobs, tells others why they wait, stops some to make room."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog

from finemesh.core.attempts import Directive
from finemesh.core.clock import Clock
from finemesh.core.errors import NotFoundError
from finemesh.core.names import parse_name
from finemesh.core.states import TrainingJobState as State
from finemesh.training import domain
from finemesh.training.domain import TrainingJob
from finemesh.training.placement import Placed
from finemesh.training.planning import Plan, Plans, Question
from finemesh.training.ports import Store, Unit
from finemesh.training.reservations import Reservation

log: Final = structlog.get_logger(__name__)


class Dispatcher:
    """One scheduling pass after the other.

    A plan is from a moment ago, whichever process made it: each job is looked at again in the transaction
    that changes it.
    """

    def __init__(self, store: Store, clock: Clock, plans: Plans) -> None:
        self._store = store
        self._clock = clock
        self._plans = plans
        self._reservations: Sequence[Reservation] = ()
        self._gone: list[str] = []

    async def place(self) -> int:
        """Start every waiting job that has its turn and its room, up to PLACE_BATCH. Returns how many had."""
        # Told once: who waits again by the next time must not be taken for gone.
        gone, self._gone = self._gone, []
        plan = await self._plans.plan(Question(self._clock.now(), self._reservations, gone))
        if plan is None:
            return 0
        self._reservations = plan.reservations
        log.debug(
            "scheduling_pass",
            read_ms=round(plan.read_ms, 1),
            decide_ms=round(plan.decide_ms, 1),
            waiting=plan.waiting,
            placed=len(plan.placed),
        )
        await self._carry_out(plan)
        return len(plan.placed)

    async def _carry_out(self, plan: Plan) -> None:
        for victim, job in plan.preempted.items():
            await self._change(victim, lambda unit, found, job=job: self._preempt(unit, found, job))
        for placed in plan.placed:
            if await self._change(
                placed.name, lambda unit, found, placed=placed: self._start(unit, found, placed)
            ):
                self._gone.append(placed.name)  # the next pass reads what has changed
        if plan.news:
            async with self._store.begin() as unit:
                await unit.tell(plan.news, self._clock.now())

    async def _change(self, name: str, act: Callable[[Unit, TrainingJob], Awaitable[None]]) -> bool:
        """Act on a job in a transaction of its own. Returns whether that was committed."""
        try:
            async with self._store.begin() as unit:
                await act(unit, await unit.locked(parse_name(name, "trainingJobs")))
        except NotFoundError:
            self._gone.append(name)
            return False
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
