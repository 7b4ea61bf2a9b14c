"""What finished jobs took, beside what they were estimated to take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

from sqlalchemy import select

from finemesh.chassis.sql import Tx
from finemesh.training.domain import TrainingResult
from finemesh.training.estimates.domain import RECORDS, Estimate, Figure, Key, Record
from finemesh.training.job import TrainingJob
from finemesh.training.tables import MEASURED_JOBS

_MEMORY: Final = "memory"
_STEP: Final = "step"


async def record(tx: Tx, job: TrainingJob, result: TrainingResult, now: datetime) -> None:
    """Keep what a job took that has succeeded, if it was estimated before and trained in one piece as the
    spec says.
    """
    estimate = job.estimate
    if estimate is None or job.micro_batch_size:
        return
    on_gpu = result.peak_device_memory_bytes if estimate.gpus else job.peak_memory_bytes
    for figure, told, measured in (
        (_MEMORY, estimate.memory, float(on_gpu)),
        (_STEP, estimate.step, result.step_seconds),
    ):
        if measured > 0:
            await tx.insert_new(MEASURED_JOBS, **_values(job, estimate, figure, told, measured, now))


def _values(
    job: TrainingJob, estimate: Estimate, figure: str, told: Figure, measured: float, now: datetime
) -> dict[str, Any]:
    return {
        **asdict(estimate.key),
        "project": job.name.project,
        "job_id": job.name.id,
        "figure": figure,
        "forecast": told.forecast,
        **asdict(told.told),
        "measured": measured,
        "end_time": now,
    }


async def records_of(tx: Tx, project: str, key: Key) -> tuple[Sequence[Record], Sequence[Record]]:
    """The last records of a project: of memory, in bytes, and of the seconds of a step."""
    return await _last(tx, project, key, _MEMORY), await _last(tx, project, key, _STEP)


async def _last(tx: Tx, project: str, key: Key, figure: str) -> list[Record]:
    columns = MEASURED_JOBS.c
    query = select(MEASURED_JOBS).where(
        columns.project == project,
        columns.family == key.family,
        columns.method == key.method,
        columns.hardware == key.hardware,
        columns.figure == figure,
    )
    rows = await tx.rows(query.order_by(columns.end_time.desc()).limit(RECORDS))
    return [
        Record(
            Figure.of({"forecast": row["forecast"], "told": {each: row[each] for each in _ENDS}}),
            row["measured"],
        )
        for row in rows
    ]


_ENDS: Final = ("low", "likely", "high")
