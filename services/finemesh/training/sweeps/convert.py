"""Sweeps as messages of the contract."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from finemesh.chassis.errors import record_to_status
from finemesh.core.states import TrainingJobState
from finemesh.training.sweeps.domain import Sweep, Trial
from finemesh.training.sweeps.drafts import asked_of
from finemesh.v1 import sweep_pb2 as pb


@dataclass(frozen=True, slots=True)
class Work:
    """How far the job of a trial is, and how long its attempts have held their resources."""

    state: TrainingJobState
    step: int = 0
    total_steps: int = 0
    held_seconds: float = 0.0
    revision: int = 0


def sweep_to_proto(sweep: Sweep, works: Mapping[int, Work] | None = None) -> pb.Sweep:
    """The resource as clients see it; with its trials if `works`, by trial number, are given."""
    message = asked_of(sweep)
    message.MergeFrom(
        pb.Sweep(
            name=str(sweep.name),
            display_name=sweep.display_name,
            labels=sweep.labels,
            objective=pb.SweepObjective(metric=sweep.target.metric, goal=f"GOAL_{sweep.target.goal}"),
            max_parallel=sweep.max_parallel,
            priority=sweep.priority,
            max_restarts=sweep.max_restarts,
            state=f"STATE_{sweep.state}",
            best_training_job=str(sweep.job_name(sweep.best)) if sweep.best else "",
        )
    )
    message.progress.fraction = sweep.fraction
    message.progress.message = sweep.message
    message.progress.update_time.FromDatetime(sweep.update_time)
    for index, rung in enumerate(sweep.rungs):
        arrived = sum(len(trial.measured) > index for trial in sweep.trials)
        message.rungs.add(steps=rung.steps, trials=rung.trials, arrived=arrived)
    if works is not None:
        message.trials.extend(_trial(sweep, trial, works.get(trial.number)) for trial in sweep.trials)
    if sweep.error is not None:
        message.error.CopyFrom(record_to_status(sweep.error))
    _set(message, "create_time", sweep.create_time)
    _set(message, "end_time", sweep.end_time)
    _set(message, "update_time", sweep.update_time)
    return message


def _trial(sweep: Sweep, trial: Trial, work: Work | None) -> pb.SweepTrial:
    message = pb.SweepTrial(
        number=trial.number,
        training_job=str(sweep.job_name(trial.number)),
        state=f"STATE_{trial.state}",
        rung=trial.rung,
        measured=trial.measured,
        objective=None if math.isnan(trial.objective) else trial.objective,
        message=trial.message,
        best=trial.number == sweep.best,
    )
    message.values.update(dict(trial.values))
    if work is not None:
        message.job_state = f"STATE_{work.state}"  # pyright: ignore[reportAttributeAccessIssue]
        message.step, message.total_steps = work.step, work.total_steps or sweep.max_steps
        message.held_seconds = work.held_seconds
    return message


def _set(message: pb.Sweep, field: str, value: datetime | None) -> None:
    if value is not None:
        getattr(message, field).FromDatetime(value)
