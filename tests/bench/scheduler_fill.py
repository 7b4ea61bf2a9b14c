"""A mesh that is full from the start: what the service would have dispatched, written before it starts.

Its own dispatcher decides and its own queue writes, in this process; the commands wait in the outbox, and the
agents take them up as soon as there is a service that publishes them.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from finemesh.chassis.attempts import AttemptQueue, AttemptSettings
from finemesh.chassis.auth import SigningKey
from finemesh.chassis.outbox import Outbox
from finemesh.chassis.sql import Database
from finemesh.chassis.watch import Notifier
from finemesh.core.attempts import ClusterCapacity, NodeCapacity, RestartPolicy
from finemesh.training.attempts import JobAttempts
from finemesh.training.dispatcher import Dispatcher
from finemesh.training.domain import TrainingResult
from finemesh.training.planning import Planner
from finemesh.training.ports import Files
from finemesh.training.service import Layout, TrainingService
from finemesh.training.store import SqlStore
from finemesh.training.tables import CHASSIS

from tests.bench.scheduler_mesh import NODE_CPUS, NODE_GPUS

LIVE_SECONDS: Final = 3600.0  # one report of each cluster is enough here
START_SECONDS: Final = 300.0


async def fill_mesh(
    database: Path, key: SigningKey, files: Files, clusters: Iterable[str], nodes: int
) -> int:
    """Give the jobs that wait to empty clusters of `nodes` nodes until no more fit. Returns how many."""
    db = Database(f"sqlite:///{database}")
    outbox = Outbox(CHASSIS)
    settings = AttemptSettings(start_timeout_seconds=START_SECONDS)
    queue: AttemptQueue[TrainingResult] = AttemptQueue(db, outbox, settings)
    store = SqlStore(db, outbox, queue, Notifier(), on_change=lambda: None)
    service = TrainingService(store, files, Layout("bucket"), RestartPolicy(), outbox.clock)
    queue.bind(JobAttempts(store, service, key, outbox.clock))
    try:
        for cluster in clusters:
            await queue.sync(cluster, _empty(cluster, nodes), [])
        dispatcher, started = Dispatcher(store, outbox.clock, Planner(store, LIVE_SECONDS)), 0
        while placed := await dispatcher.place():
            started += placed
        return started
    finally:
        await db.close()


def _empty(cluster: str, nodes: int) -> ClusterCapacity:
    cpus, gpus = float(NODE_CPUS), float(NODE_GPUS)
    each = (NodeCapacity(f"{cluster}-n{i}", "", cpus, cpus, gpus, gpus) for i in range(nodes))
    return ClusterCapacity(
        nodes * cpus, nodes * cpus, nodes * gpus, nodes * gpus, nodes=nodes, node_capacities=tuple(each)
    )
