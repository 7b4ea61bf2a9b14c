"""Jobs and checkpoints between values and rows."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import RowMapping, Text, cast

from finemesh.core.attempts import Directive, ResumeCertificate, Worker
from finemesh.core.errors import ErrorRecord
from finemesh.core.names import Name
from finemesh.core.requests import RequestKey
from finemesh.core.spec.finetune import FineTuneSpec
from finemesh.core.states import TrainingJobState
from finemesh.training.checkpoints import Checkpoint
from finemesh.training.estimates.domain import from_json, to_json
from finemesh.training.job import TrainingJob
from finemesh.training.pace import Pace
from finemesh.training.tables import JOBS


@dataclass(frozen=True, slots=True)
class JobRows:
    """What a new job brings into the tables."""

    job: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Submission:
    """A job that is to be accepted."""

    job: TrainingJob
    rows: JobRows
    key: RequestKey | None


# The spec as text: it is read once, see `_spec_of`.
JOB_COLUMNS: Final = [
    cast(column, Text).label(column.name) if column is JOBS.c.spec else column for column in JOBS.c
]


def job_values(job: TrainingJob) -> dict[str, Any]:
    """The columns of a job's row; its latest checkpoint has a row of its own."""
    return {
        "project": job.name.project,
        "id": job.name.id,
        "name": str(job.name),
        "display_name": job.display_name,
        "labels": dict(job.labels),
        "spec": job.spec.to_dict(),
        "run": job.run,
        "output_uri": job.output_uri,
        "max_restarts": job.max_restarts,
        "kill_after_step": job.kill_after_step,
        "max_run_seconds": job.max_run_seconds,
        "estimate": to_json(job.estimate),
        "create_time": job.create_time,
        **changing_values(job),
    }


def changing_values(job: TrainingJob) -> dict[str, Any]:
    """The columns that change in the life of a job; the others are as they were submitted."""
    return {
        "dataset_uri": job.dataset_uri,
        "priority": job.priority,
        "pause_at_step": job.pause_at_step,
        "state": job.state,
        "fraction": job.fraction,
        "message": job.message,
        "report_time": job.report_time,
        "step": job.step,
        "total_steps": job.total_steps,
        "attempt": job.attempt,
        "restarts": job.restarts,
        "not_before": job.not_before,
        "worker": asdict(job.worker) if job.worker else None,
        "heartbeat_time": job.heartbeat_time,
        "lease_expire_time": job.lease_expire_time,
        "resume_certificates": [asdict(each) for each in job.resume_certificates],
        "row_usage": dict(job.row_usage),
        "peak_memory_bytes": job.peak_memory_bytes,
        "micro_batch_size": job.micro_batch_size,
        "error": asdict(job.error) if job.error else None,
        "start_time": job.start_time,
        "end_time": job.end_time,
        "update_time": job.update_time,
        "revision": job.revision,
        "history_size": job.history_size,
        "state_time": job.state_time,
        "run_seconds": job.run_seconds,
        "following": job.following,
        "pace": {**asdict(job.pace), "time": job.pace.time.isoformat()} if job.pace else None,
    }


def job_of(row: RowMapping, latest: Checkpoint | None) -> TrainingJob:
    """The job in a row of JOB_COLUMNS, with its latest checkpoint."""
    worker = row["worker"]
    return TrainingJob(
        name=Name(row["project"], "trainingJobs", row["id"]),
        spec=_spec_of(row["spec"]),
        state=TrainingJobState(row["state"]),
        worker=Worker(
            worker["cluster"],
            worker["node_id"],
            tuple(worker["pids"]),
            tuple(worker["gpu_ids"]),
            tuple(worker.get("gpu_uuids", ())),  # of rows from before there were any
        )
        if worker
        else None,
        latest_checkpoint=latest,
        estimate=from_json(row["estimate"]),
        resume_certificates=tuple(ResumeCertificate(**each) for each in row["resume_certificates"]),
        error=ErrorRecord(**row["error"]) if row["error"] else None,
        following=Directive(row["following"]),
        pace=_pace_of(row["pace"]),
        **{name: row[name] for name in _PLAIN},
    )


@functools.lru_cache(4096)
def _spec_of(text: str) -> FineTuneSpec:
    """Read once: a job is looked at with each of its reports, and the jobs of a sweep are much alike."""
    return FineTuneSpec.from_dict(json.loads(text))


# Columns that are fields of the same name and type.
_PLAIN: Final = (
    *(
        "display_name",
        "labels",
        "run",
        "output_uri",
        "dataset_uri",
        "priority",
        "max_restarts",
        "kill_after_step",
        "pause_at_step",
    ),
    *("fraction", "message", "report_time", "step", "total_steps", "attempt", "restarts", "not_before"),
    *("heartbeat_time", "lease_expire_time", "row_usage", "peak_memory_bytes", "micro_batch_size"),
    *("create_time", "start_time", "end_time", "update_time", "revision"),
    *("max_run_seconds", "history_size", "state_time", "run_seconds"),
)


def _pace_of(stored: Mapping[str, Any] | None) -> Pace | None:
    return replace(Pace(**stored), time=datetime.fromisoformat(stored["time"])) if stored else None


def checkpoint_values(name: Name, checkpoint: Checkpoint) -> dict[str, Any]:
    """The columns of a checkpoint's row."""
    return {
        **asdict(checkpoint),
        "project": name.project,
        "job_id": name.id,
        # JSON has no infinity and no NaN, and PostgreSQL insists on JSON.
        "metrics": {
            key: value if math.isfinite(value) else str(value) for key, value in checkpoint.metrics.items()
        },
    }


def checkpoint_of(row: RowMapping) -> Checkpoint:
    """The checkpoint in a row of `checkpoints`."""
    metrics: Mapping[str, float | str] = row["metrics"]
    return Checkpoint(
        step=row["step"],
        uri=row["uri"],
        manifest_sha256=row["manifest_sha256"],
        size_bytes=row["size_bytes"],
        attempt=row["attempt"],
        create_time=row["create_time"],
        metrics={key: float(value) for key, value in metrics.items()},
        sample_hash=row["sample_hash"],
        loss_digest=row["loss_digest"],
        weights_sha256=row["weights_sha256"],
        best=row["best"],
    )
