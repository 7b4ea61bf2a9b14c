"""Which GPUs attempts hold, from their first report to the proof of their cluster that they are free: the
facts gpu leased and gpu released.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import Column, Integer, String, Table, bindparam, delete, insert, select

from finemesh.chassis.events import Event
from finemesh.chassis.outbox import Outbox
from finemesh.chassis.sql import Tx, UtcDateTime
from finemesh.core.attempts import Attempt, AttemptRef, Worker
from finemesh.events.v1 import gpu_events_pb2
from finemesh.training.events import SOURCE
from finemesh.training.tables import METADATA

# A row for each GPU that is held. It goes when the GPU is proven free, and a repeated proof finds none.
GPU_LEASES: Final = Table(
    "gpu_leases",
    METADATA,
    Column("resource", String(512), primary_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("gpu", String(128), primary_key=True),
    Column("cluster", String(63), nullable=False),
    Column("node_id", String(128), nullable=False),
    Column("lease_time", UtcDateTime, nullable=False),
)
_AMONG: Final = (
    select(GPU_LEASES.c.resource, GPU_LEASES.c.attempt)
    .where(GPU_LEASES.c.resource.in_(bindparam("names", expanding=True)))
    .distinct()
)


async def lease(tx: Tx, workers: Sequence[tuple[Attempt, Worker]], now: datetime) -> list[Event]:
    """Attempts say which GPUs they were given; again changes nothing. Returns what there is to publish."""
    named = [(attempt, worker) for attempt, worker in workers if worker.gpu_ids]
    rows = await tx.rows(_AMONG, {"names": [attempt.resource for attempt, _ in named]}) if named else []
    known = {(row["resource"], row["attempt"]) for row in rows}
    new = [each for each in named if (each[0].resource, each[0].number) not in known]
    return [await _lease(tx, attempt, worker, now) for attempt, worker in new]


async def _lease(tx: Tx, attempt: Attempt, worker: Worker, now: datetime) -> Event:
    gpus = worker.gpu_uuids if len(worker.gpu_uuids) == len(worker.gpu_ids) else worker.gpu_ids
    gpus = list(dict.fromkeys(gpus))  # ranks that share one each name it
    row = {
        "resource": attempt.resource,
        "attempt": attempt.number,
        "cluster": attempt.cluster,
        "node_id": worker.node_id,
    }
    await tx.execute(insert(GPU_LEASES), [row | {"gpu": gpu, "lease_time": now} for gpu in gpus])
    fact = gpu_events_pb2.GpuLeased(
        training_job=attempt.resource,
        attempt=attempt.number,
        cluster=attempt.cluster,
        node_id=worker.node_id,
        gpus=gpus,
    )
    return _event("leased", attempt.resource, fact, now)


async def release(
    tx: Tx, outbox: Outbox, cluster: str, ref: AttemptRef, gpus: Sequence[str], evidence: str, now: datetime
) -> None:
    """A cluster has proven GPUs of an attempt free; again changes nothing."""
    rows = await tx.rows(_held(ref).where(GPU_LEASES.c.cluster == cluster, GPU_LEASES.c.gpu.in_(gpus)))
    if not rows:
        return
    freed = [row["gpu"] for row in rows]
    table = GPU_LEASES.c
    await tx.execute(
        delete(GPU_LEASES).where(
            table.resource == ref.resource, table.attempt == ref.attempt, table.gpu.in_(freed)
        )
    )
    fact = gpu_events_pb2.GpuReleased(
        training_job=ref.resource,
        attempt=ref.attempt,
        cluster=cluster,
        node_id=rows[0]["node_id"],
        gpus=freed,
        evidence=evidence,
    )
    await outbox.append(tx, _event("released", ref.resource, fact, now))


def _held(ref: AttemptRef):  # noqa: ANN202  SQLAlchemy's types of rows are not ours to spell
    return (
        select(GPU_LEASES)
        .where(GPU_LEASES.c.resource == ref.resource, GPU_LEASES.c.attempt == ref.attempt)
        .order_by(GPU_LEASES.c.gpu)
    )


def _event(
    fact: str,
    resource: str,
    payload: gpu_events_pb2.GpuLeased | gpu_events_pb2.GpuReleased,
    now: datetime,
) -> Event:
    return Event.of("gpu", fact, resource, payload, source=SOURCE, time=now)
