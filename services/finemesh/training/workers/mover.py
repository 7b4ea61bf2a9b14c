"""Empties nodes that are taken out of use: trainings there are told to save and go on elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import timedelta
from typing import Final

import structlog
from sqlalchemy import select

from finemesh.chassis.sql import Tx
from finemesh.core.attempts import Cluster, Directive, NodeCapacity
from finemesh.core.clock import Clock
from finemesh.core.errors import FinemeshError
from finemesh.core.names import Name
from finemesh.core.states import TrainingJobState as State
from finemesh.training import domain
from finemesh.training.job import TrainingJob
from finemesh.training.rows import JOB_COLUMNS, job_of
from finemesh.training.store import SqlStore
from finemesh.training.tables import JOBS
from finemesh.training.workers.orders import orders_of, remove_drains

log: Final = structlog.get_logger(__name__)

_INTERVAL_SECONDS: Final = 1.0
_AT_WORK: Final = (State.STARTING, State.RUNNING)


async def jobs_in(tx: Tx, cluster: str) -> list[TrainingJob]:
    """The trainings that are worked on in a cluster, without their checkpoints."""
    worked_on = JOBS.c.state.in_([*_AT_WORK, *domain.STOPPING])  # of all jobs few, and found by an index
    here = JOBS.c.worker["cluster"].as_string() == cluster
    rows = await tx.rows(select(*JOB_COLUMNS).where(worked_on, JOBS.c.worker.is_not(None), here))
    return [job_of(row, None) for row in rows]


def is_on(job: TrainingJob, node: NodeCapacity) -> bool:
    """Whether the attempt at a training has something on a node. Until it is taken up, what is supervised
    there is left of the attempt before.
    """
    worker = job.worker
    if worker is None or not worker.node_id:
        return False
    return worker.node_id == node.node_id or str(job.name) in node.supervised


class Mover:
    """Looks on a timer, so that it goes on after whatever has ended it."""

    def __init__(self, store: SqlStore, clock: Clock, live_seconds: float) -> None:
        self._store = store
        self._clock = clock
        self._live_seconds = live_seconds

    async def run(self) -> None:
        """Empty nodes until cancelled."""
        while True:
            try:
                await self.move()
            except FinemeshError as error:
                log.warning("mover_failed", reason=error.reason, error=error.message)
            await asyncio.sleep(_INTERVAL_SECONDS)

    async def move(self) -> int:
        """Tell every training to go that is where it should not be. Returns how many were told."""
        oldest = self._clock.now() - timedelta(seconds=self._live_seconds)
        async with self._store.db.read() as tx:
            clusters = [c for c in await self._store.queue.clusters(tx) if c.last_seen_time >= oldest]
            orders = await orders_of(tx, (each.id for each in clusters))
            told: list[tuple[Name, NodeCapacity]] = []
            for cluster in clusters:
                emptied = [
                    node for node in cluster.capacity.node_capacities if orders[cluster.id].empties_node(node)
                ]
                jobs = await jobs_in(tx, cluster.id) if emptied else []
                told += [(job.name, node) for node in emptied for job in jobs if is_on(job, node)]
        for cluster in clusters:
            await self._forget(cluster, orders[cluster.id].drains)
        return sum([await self._tell(name, node) for name, node in told])

    async def _forget(self, cluster: Cluster, drained: Iterable[str]) -> None:
        there = {node.node_id for node in cluster.capacity.node_capacities}
        gone = set(drained) - there
        if there and gone:
            async with self._store.db.begin() as tx:
                await remove_drains(tx, cluster.id, gone)

    async def _tell(self, name: Name, node: NodeCapacity) -> bool:
        async with self._store.begin() as unit:
            job = await unit.locked(name)
            if job.state not in _AT_WORK or not is_on(job, node):
                return False
            at_work = await unit.request_stop(job.name, Directive.PREEMPT) is not None
            why = f"node {node.hostname} ({node.node_id[:12]}) is drained"
            await unit.save(domain.preempt_asked(job, why, self._clock.now(), at_work=at_work))
        log.info("job_moved", job=str(name), node=node.node_id)
        return True
