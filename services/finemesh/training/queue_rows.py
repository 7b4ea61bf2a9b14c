"""What the scheduler reads of the tables: who waits, who holds what, who has held what, and the quotas."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import CursorResult, bindparam, case, func, insert, null, or_, select

from finemesh.chassis.filtering import Field
from finemesh.chassis.paging import Listing
from finemesh.chassis.sql import Tx
from finemesh.core.attempts import Attempt, AttemptState, Directive
from finemesh.core.names import Name
from finemesh.core.requests import PageRequest
from finemesh.core.spec.finetune import Resources
from finemesh.core.states import TrainingJobState as State
from finemesh.training.claims import Claim
from finemesh.training.domain import TrainingJob
from finemesh.training.quotas import Quota
from finemesh.training.rooms import Gang, Room
from finemesh.training.tables import ALLOCATIONS, CHASSIS, CHECKPOINTS, JOBS, QUOTAS
from finemesh.training.waiting import Demand

WAITS: Final = or_(JOBS.c.state == State.QUEUED, (JOBS.c.state == State.STARTING) & JOBS.c.worker.is_(None))
_TURN: Final = 100
_NAMES_AT_ONCE: Final = 1000  # databases take only so many values
_QUOTAS: Final = Listing({"project": Field(QUOTAS.c.project)}, key="project", default_order="project")
_LIVE: Final = CHASSIS.attempts.c.state != AttemptState.ENDED


async def _in_turns(rows: CursorResult[Any]) -> AsyncGenerator[Any]:
    """All rows; others have their turn in between, for thousands take long to make values of."""
    for part in rows.partitions(_TURN):
        for row in part:
            yield row
        await asyncio.sleep(0)


class QueueRows:
    """The scheduler's part of a transaction.

    Attributes:
        _seen_claims: what the last look has made of the rows, with the marks that they had.
    """

    _tx: Tx
    _seen_claims: dict[tuple[Any, ...], tuple[tuple[Any, ...], Claim]]

    async def demands(self, since: datetime | None) -> tuple[list[Demand], list[str]]:
        """The jobs that wait, and the names of those that do not: of all that changed at `since` or later.
        Without `since` all that wait.
        """
        resources = JOBS.c.spec["resources"]
        if since is None:
            waits, changed = null(), WAITS
        else:
            waits, changed = case((WAITS, 1), else_=0), JOBS.c.update_time >= since
            resources = case((WAITS, resources), else_=null())
        columns: list[Any] = [JOBS.c.name, JOBS.c.create_time, JOBS.c.priority, JOBS.c.message]
        columns += [JOBS.c.not_before, resources, waits]
        found: list[Demand] = []
        gone: list[str] = []
        async for row in _in_turns(await self._tx.execute(select(*columns).where(changed))):
            name, created, priority, message, not_before, needs, waiting = row
            if since is not None and not waiting:
                gone.append(name)
            else:
                found.append(Demand(name, Resources(**needs), created, priority, message, not_before))
        return found, gone

    async def busy_count(self) -> int:
        """How many jobs wait or are at work."""
        busy = JOBS.c.state.in_([State.QUEUED, State.STARTING, State.RUNNING])
        return int(await self._tx.scalar(select(func.count()).where(busy)))

    async def claims(self, since: Mapping[str, datetime]) -> list[Claim]:
        """What the attempts hold that are live, or ended after their cluster's time in `since`."""
        attempts, known = CHASSIS.attempts, self._seen_claims
        recent = [
            (attempts.c.cluster == cluster) & (attempts.c.end_time > seen) for cluster, seen in since.items()
        ]
        marks = await self._tx.execute(_MARKS.where(or_(_LIVE, *recent)))
        keys = {tuple(row[:2]): tuple(row[2:]) for row in marks}
        # Whatever changes here changes its mark as well; since the last look few have.
        changed = [key for key, mark in keys.items() if key not in known or known[key][0] != mark]
        names = sorted({resource for resource, _ in changed})
        for start in range(0, len(names), _NAMES_AT_ONCE):
            told = {"names": names[start : start + _NAMES_AT_ONCE]}
            async for row in _in_turns(await self._tx.execute(_NAMED_CLAIMS, told)):
                known[tuple(row[:2])] = tuple(row[2:5]), _claim_of(row)
        for key in known.keys() - keys.keys():
            del known[key]
        return [known[key][1] for key in keys]

    async def past_claims(self, since: datetime, project: str | None = None) -> list[Claim]:
        """What was held at `since` or later, by one project or by all."""
        attempts = CHASSIS.attempts
        query = _CLAIMS.where(or_(_LIVE, attempts.c.end_time > since))
        if project is not None:
            query = query.where(ALLOCATIONS.c.project == project)
        return [_claim_of(row) async for row in _in_turns(await self._tx.execute(query))]

    async def saved_times(self, names: Sequence[Name]) -> dict[str, datetime]:
        """When the latest checkpoint of each job was committed."""
        table = CHECKPOINTS
        projects = {name.project for name in names}
        query = (
            select(table.c.project, table.c.job_id, func.max(table.c.create_time))
            .where(table.c.project.in_(projects), table.c.job_id.in_([name.id for name in names]))
            .group_by(table.c.project, table.c.job_id)
        )
        rows: list[Any] = list(await self._tx.execute(query))
        return {str(Name(project, "trainingJobs", job)): saved for project, job, saved in rows}

    async def quotas(self) -> dict[str, Quota]:
        """Those that were set, by project."""
        rows = await self._tx.rows(select(QUOTAS).order_by(QUOTAS.c.project))
        return {row["project"]: Quota(**row) for row in rows}

    async def quota_page(self, query: PageRequest) -> tuple[list[Quota], str]:
        """One page of those that were set, and the token of the next."""
        page = _QUOTAS.page(query)
        rows, token = page.split(await self._tx.rows(page.apply(select(QUOTAS))))
        return [Quota(**row) for row in rows], token

    async def set_quota(self, quota: Quota) -> None:
        """Store it in place of what was there."""
        values = asdict(quota)
        if not await self._tx.insert_new(QUOTAS, **values):
            await self._tx.execute(QUOTAS.update().where(QUOTAS.c.project == quota.project).values(values))

    async def allocate(self, attempt: Attempt, job: TrainingJob, nodes: Sequence[str]) -> None:
        """Note what an attempt is given."""
        needs = job.spec.resources
        await self._tx.execute(
            insert(ALLOCATIONS).values(
                resource=attempt.resource,
                attempt=attempt.number,
                project=job.name.project,
                workers=needs.ranks,
                cpus=needs.cpus,
                gpus=needs.gpus,
                memory_bytes=needs.memory_bytes,
                nodes=dict(Counter(nodes)),
                from_step=job.step,
            )
        )


def _of_claims(*columns: Any) -> Any:
    """Columns of allocations, their attempts and jobs. One whose job was deleted still counts."""
    table, attempts = ALLOCATIONS, CHASSIS.attempts
    of_attempt = (attempts.c.resource == table.c.resource) & (attempts.c.attempt == table.c.attempt)
    joined = table.join(attempts, of_attempt).outerjoin(JOBS, JOBS.c.name == table.c.resource)
    return select(*columns).select_from(joined)


_MARK: Final = (
    *(ALLOCATIONS.c.resource, ALLOCATIONS.c.attempt),
    *(JOBS.c.revision, CHASSIS.attempts.c.state, CHASSIS.attempts.c.directive),
)
_MARKS: Final = _of_claims(*_MARK)
_CLAIMS: Final = _of_claims(
    *_MARK,
    *(ALLOCATIONS.c.project, CHASSIS.attempts.c.cluster, ALLOCATIONS.c.workers, ALLOCATIONS.c.cpus),
    *(ALLOCATIONS.c.gpus, ALLOCATIONS.c.memory_bytes, ALLOCATIONS.c.nodes, CHASSIS.attempts.c.create_time),
    *(CHASSIS.attempts.c.start_time, CHASSIS.attempts.c.end_time),
    *(JOBS.c.priority, JOBS.c.step, JOBS.c.total_steps, JOBS.c.report_time, ALLOCATIONS.c.from_step),
)
_NAMED_CLAIMS: Final = _CLAIMS.where(ALLOCATIONS.c.resource.in_(bindparam("names", expanding=True)))


def _claim_of(row: Any) -> Claim:
    """A claim of a row of `_CLAIMS`."""
    job, _attempt, _revision, _state, directive, project, cluster, workers, cpus, gpus, memory, nodes = row[
        :12
    ]
    created, started, ended, priority, step, total_steps, reported, from_step = row[12:]
    return Claim(
        job=job,
        project=project,
        cluster=cluster,
        gang=Gang(workers, Room(cpus / workers, gpus / workers, memory / workers)),
        create_time=created,
        nodes=tuple(node for node, count in nodes.items() for _ in range(count)),
        start_time=started,
        end_time=ended,
        expected_end_time=_expected_end(started, reported, step, total_steps, from_step),
        priority=priority or 0,
        stopping=directive != Directive.CONTINUE,
    )


def _expected_end(
    started: datetime | None, reported: datetime | None, step: int, total_steps: int, from_step: int
) -> datetime | None:
    """When the last step is taken at the pace of this attempt so far, its start included."""
    if started is None or reported is None or reported <= started or not from_step < step < total_steps:
        return None
    pace_seconds = (reported - started).total_seconds() / (step - from_step)
    return reported + timedelta(seconds=pace_seconds * (total_steps - step))
