"""When memory ran out, and the user lets the job go on with smaller micro batches."""

from __future__ import annotations

from typing import Final

from finemesh.core.errors import ErrorRecord
from finemesh.core.spec.finetune import OutOfMemory
from finemesh.training.job import TrainingJob

OUT_OF_MEMORY: Final = "OUT_OF_MEMORY"


def smaller_micro_batch(job: TrainingJob, error: ErrorRecord | None) -> int:
    """Half the rows of a forward pass of the attempt that `error` ended; 0 where the job ends with it."""
    if error is None or error.reason != OUT_OF_MEMORY:
        return 0
    if job.spec.on_out_of_memory is not OutOfMemory.HALVE_MICRO_BATCH:
        return 0
    return (job.micro_batch_size or job.spec.optimization.micro_batch_size) // 2
