"""What must hold of a job at any time, by its rows alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from finemesh.core.states import FIRST_ATTEMPT, LATER_ATTEMPT, TRAINING_JOB, TrainingJobState, facts_of
from finemesh.training.job import TrainingJob

from tests.support.training_model import MAX_RESTARTS, Model


def check_job(job: TrainingJob, model: Model) -> None:
    """The job is as the model has it."""
    assert (job.state, job.restarts, job.attempt) == (model.state, model.restarts, model.attempts)
    assert job.restarts <= MAX_RESTARTS
    assert job.saved_step == model.saved_step
    assert job.priority == model.priority
    assert job.terminal == model.terminal == (job.end_time is not None)
    assert abs(job.run_seconds - model.run_seconds) < 1e-6
    if job.state in {"PAUSED", "QUEUED", "VALIDATING"} or job.terminal:
        assert job.worker is None
        assert job.lease_expire_time is None


def check_history(job: TrainingJob, history: Sequence[Mapping[str, Any]], facts: Sequence[str]) -> None:
    """The history has no gap, leads by allowed steps to where the job is, and tells of every fact."""
    assert [row["sequence"] for row in history] == list(range(1, job.history_size + 1))
    assert history[0]["kind"] == "SUBMITTED"
    state, told, started = history[0]["state"], list[str](), False
    for row in history[1:]:
        if row["kind"] == "CHECKPOINT":
            told.append("checkpointed")
        if row["kind"] == "STATE":
            assert row["from_state"] == state
            source, target = TrainingJobState(state), TrainingJobState(row["state"])
            told += facts_of(TRAINING_JOB, source, target, LATER_ATTEMPT if started else FIRST_ATTEMPT)
            started = started or target is TrainingJobState.RUNNING
            state = row["state"]
        assert row["state"] == state
    assert (state, told) == (job.state, list(facts))
    assert sum(row["kind"] == "DISPATCHED" for row in history) == job.attempt
    assert sum(row["kind"] == "RESTART" for row in history) >= job.restarts
