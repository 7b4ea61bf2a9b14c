"""Which checkpoint of a job is exported."""

from __future__ import annotations

from typing import Final

from finemesh.core.errors import PreconditionError
from finemesh.core.spec.export import CheckpointSelection
from finemesh.export.domain import SourceCheckpoint
from finemesh.export.ports import JobFacts

# A job that is still alive may replace its checkpoints at any moment; one that has ended keeps them.
ENDED: Final = frozenset({"SUCCEEDED", "FAILED", "CANCELLED"})


def choose(job: JobFacts, choice: CheckpointSelection, step: int) -> SourceCheckpoint:
    """The checkpoint to export; `step` is only read with CheckpointSelection.STEP.

    Raises PreconditionError: TRAINING_JOB_NOT_READY, or NO_CHECKPOINT.
    """
    if job.state not in ENDED:
        raise PreconditionError(
            f"export.training_job: {job.name} is {job.state}: export it once it has SUCCEEDED, or cancel it "
            "to export the checkpoints that it has",
            reason="TRAINING_JOB_NOT_READY",
            metadata={"training_job": job.name, "state": job.state},
        )
    if not job.checkpoints:
        raise PreconditionError(
            f"export.training_job: {job.name} has no checkpoint left",
            reason="NO_CHECKPOINT",
            metadata={"training_job": job.name},
        )
    if choice is CheckpointSelection.STEP:
        return _at(job, step)
    best = next((each for each in job.checkpoints if each.best), None)
    return best if best and choice is CheckpointSelection.BEST else job.checkpoints[0]


def _at(job: JobFacts, step: int) -> SourceCheckpoint:
    found = next((each for each in job.checkpoints if each.step == step), None)
    if found is None:
        steps = ", ".join(str(each.step) for each in job.checkpoints)
        raise PreconditionError(
            f"export.step: {job.name} has no checkpoint of step {step}; it has kept those of {steps}",
            reason="NO_CHECKPOINT",
            metadata={"training_job": job.name, "step": str(step)},
        )
    return found
