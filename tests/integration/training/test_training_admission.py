"""What happens before a job may run: its dataset is looked at, whenever DataPrep can be asked."""

from __future__ import annotations

import pytest
from finemesh.core.errors import PreconditionError, UnavailableError

from tests.support.scripted_dataprep import ScriptedDataPrep, make_dataset
from tests.support.training_client import State, TrainingClient

pytestmark = pytest.mark.integration


async def test_a_dataset_that_is_not_fit_fails_the_job(
    client: TrainingClient, dataprep: ScriptedDataPrep
) -> None:
    parent = f"{client.parent}/datasets"
    lossy = dataprep.add_trainable(client.project, quarantined=20)
    cases = {
        lossy: "LOSS_BUDGET_EXCEEDED",
        f"{parent}/nobody": "DATASET_NOT_FOUND",
        dataprep.add(make_dataset(f"{parent}/young", state="STATE_RUNNING")): "DATASET_NOT_READY",
        dataprep.add(make_dataset(f"{parent}/hf", format="DATASET_FORMAT_LLAVA")): "DATASET_NOT_CANONICAL",
        f"{parent}/raw": "NO_CONVERSATIONS",
    }
    for name, reason in cases.items():
        budget = 1.0 if reason == "NO_CONVERSATIONS" else 0.0
        job = await client.create(name, spec={"max_quarantined_fraction": budget})
        failed = await client.until(job.name, "FAILED")
        assert reason in str(failed.error.details[0].value), failed.error
        with pytest.raises(PreconditionError) as refused:
            await client.create(name, spec={"max_quarantined_fraction": budget}, validate_only=True)
        assert refused.value.reason == reason
    accepted = await client.create(lossy, spec={"max_quarantined_fraction": 0.25})
    await client.until(accepted.name, "QUEUED")
    await client.cancel(accepted.name)


async def test_dataprep_away_delays_the_job_and_loses_nothing(
    client: TrainingClient, dataprep: ScriptedDataPrep, trainable: str
) -> None:
    dataprep.stop()
    try:
        job = await client.create(trainable)
        waiting = await client.until(job.name, lambda job: "DataPrep" in job.progress.message)
        assert waiting.state == State.STATE_VALIDATING
        with pytest.raises(UnavailableError):
            await client.create(trainable, validate_only=True)
    finally:
        dataprep.start()
    await client.until(job.name, "QUEUED")
    await client.cancel(job.name)
