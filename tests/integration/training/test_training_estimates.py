"""Estimates through the service: what they say, refuse and learn; and what happens when memory runs out."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from finemesh.core.errors import InvalidError, PreconditionError, ResourceExhaustedError
from finemesh.v1 import attempt_pb2, estimate_pb2, fine_tune_spec_pb2, training_job_pb2
from finemesh.v1 import training_service_pb2 as pb
from google.rpc import error_details_pb2
from safetensors.numpy import save_file

from tests.integration.training.conftest import Type
from tests.support.scripted_cluster import ScriptedAttempt, ScriptedCluster
from tests.support.services import ServiceProcess
from tests.support.training_client import State, TrainingClient, make_spec

pytestmark = pytest.mark.integration

Estimate = estimate_pb2.TrainingEstimate
LLAMA = {
    "model_type": "llama",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "vocab_size": 128256,
    "tie_word_embeddings": True,
}
FILES = estimate_pb2.BaseModelFiles(config_json=json.dumps(LLAMA))


def spec_of(dataset: str, rows: int = 8, **fields: Any) -> fine_tune_spec_pb2.FineTuneSpec:
    optimization = fine_tune_spec_pb2.OptimizationSpec(micro_batch_size=rows, max_steps=40)
    return make_spec(dataset, task="TASK_LANGUAGE", optimization=optimization, **fields)


async def submit(client: TrainingClient, spec: Any, **fields: Any) -> training_job_pb2.TrainingJob:
    job = training_job_pb2.TrainingJob(spec=spec, **fields)
    request = pb.CreateTrainingJobRequest(parent=client.parent, training_job=job, base_model=FILES)
    return await client.call("CreateTrainingJob", request)


async def estimate(client: TrainingClient, spec: Any, **fields: Any) -> Estimate:
    request = pb.EstimateTrainingJobRequest(parent=client.parent, spec=spec, base_model=FILES, **fields)
    return await client.call("EstimateTrainingJob", request)


async def test_what_fits_nowhere_is_refused_with_what_does(
    client: TrainingClient, cluster: ScriptedCluster, trainable: str
) -> None:
    cluster.memory_bytes = 14_000_000_000
    modest = spec_of(trainable, precision="PRECISION_BF16")
    while not (told := await estimate(client, modest, mean_row_tokens=200)).room_bytes:
        await cluster.report()
    assert told.room_bytes == 14_000_000_000
    assert told.family == "llama"
    assert told.memory_parts["weights"].likely == pytest.approx(2 * 1.24e9, rel=0.02)
    assert told.steps == 40
    assert told.seconds.likely == pytest.approx(40 * told.step_seconds.likely)
    assert not told.HasField("gpu_hours")
    assert told.past_memory_error.jobs == 0
    everything = spec_of(trainable, full=fine_tune_spec_pb2.FullMethod(), lora=None)
    with pytest.raises(PreconditionError) as caught:
        await submit(client, everything)
    assert caught.value.reason == "DOES_NOT_FIT"
    assert caught.value.metadata["room_bytes"] == "14000000000"
    changes = {
        path.removeprefix("nearest."): value
        for path, value in caught.value.metadata.items()
        if path.startswith("nearest.")
    }
    assert changes
    nearest = (await estimate(client, everything)).nearest
    assert dict(nearest.changes) == changes
    assert nearest.peak_memory_bytes.high <= 14_000_000_000
    again = await submit(client, nearest.spec)
    assert again.estimate.fit == Estimate.FIT_FITS
    waived = await submit(client, everything, admit_oversized=True)
    assert waived.estimate.fit == Estimate.FIT_TOO_LARGE


async def test_a_model_in_the_bucket_is_read_by_the_service_itself(
    client: TrainingClient, service: ServiceProcess, trainable: str, tmp_path: Path
) -> None:
    """As much of it as tells its sizes, and for its own project alone."""
    save_file({"lm_head.weight": np.zeros((8, 8), np.float32)}, tmp_path / "w.safetensors")
    with contextlib.closing(service.object_store()) as bucket:
        for project in (client.project, "another"):
            prefix = f"projects/{project}/models/llama"
            await bucket.put_bytes(f"{prefix}/config.json", json.dumps(LLAMA).encode())
            await bucket.put_file(f"{prefix}/model.safetensors", tmp_path / "w.safetensors")
        root = f"s3://{service.s3.bucket}/projects"
    stored = spec_of(trainable, base_model=f"{root}/{client.project}/models/llama")
    request = pb.EstimateTrainingJobRequest(parent=client.parent, spec=stored)
    found = await client.call("EstimateTrainingJob", request)
    assert found.family == "llama"
    assert found.memory_parts["weights"].likely > 0
    job = training_job_pb2.TrainingJob(spec=stored)
    made = await client.call(
        "CreateTrainingJob", pb.CreateTrainingJobRequest(parent=client.parent, training_job=job)
    )
    assert made.estimate.steps == found.steps
    for elsewhere in ("another/models/llama", f"{client.project}/models/none"):
        request.spec.base_model = f"{root}/{elsewhere}"
        with pytest.raises(InvalidError) as caught:
            await client.call("EstimateTrainingJob", request)
        assert caught.value.reason == "BASE_MODEL_UNKNOWN"


async def test_estimates_learn_from_finished_jobs_and_tell_their_error(
    client: TrainingClient, cluster: ScriptedCluster, trainable: str
) -> None:
    spec = spec_of(trainable)
    before = await estimate(client, spec)
    for share in (1.2, 1.3, 1.4):
        assert (await estimate(client, spec)).corrected_by_jobs == 0  # fewer than three tell too little
        job = await submit(client, spec)
        attempt = await cluster.next_attempt()
        await attempt.renew("RUNNING", step=40, total_steps=40)
        await attempt.commit(40)
        measured = int(share * before.peak_memory_bytes.likely)
        result = attempt_pb2.TrainingResult(step=40, peak_memory_bytes=measured, step_seconds=2.0)
        await attempt.complete(attempt_pb2.AttemptResult(training=result))
        await client.until(job.name, "SUCCEEDED")
    after = await estimate(client, spec)
    assert after.corrected_by_jobs == 3
    assert after.peak_memory_bytes.likely == pytest.approx(1.3 * before.peak_memory_bytes.likely, rel=1e-6)
    assert after.peak_memory_bytes.high < before.peak_memory_bytes.high * 2
    # The three were told before anything was known: their errors are those of the closed form.
    assert after.past_memory_error.jobs == 3
    assert after.past_memory_error.median_error == pytest.approx(0.3 / 1.3, rel=1e-3)
    assert after.step_seconds.likely == pytest.approx(2.0)
    adapters = await estimate(client, spec_of(trainable, full=fine_tune_spec_pb2.FullMethod(), lora=None))
    assert adapters.past_memory_error.jobs == 0  # another method


async def test_memory_that_runs_out_halves_micro_batches_where_the_user_lets_it(
    client: TrainingClient, cluster: ScriptedCluster, trainable: str
) -> None:
    allowed = spec_of(trainable, rows=4, on_out_of_memory="OUT_OF_MEMORY_HALVE_MICRO_BATCH")
    job = await submit(client, allowed)
    for rows in (4, 2):
        attempt = await cluster.next_attempt()
        assert attempt.command.train_work.micro_batch_size == (0 if rows == 4 else rows)
        await attempt.renew("RUNNING", step=3, total_steps=40)
        if rows == 4:
            await attempt.commit(3)
        await run_out(attempt)
    attempt = await cluster.next_attempt()
    assert attempt.command.train_work.resume_from.step == 3
    assert attempt.command.train_work.micro_batch_size == 1
    now = await client.get(job.name)
    assert (now.micro_batch_size, now.spec.optimization.micro_batch_size) == (1, 4)
    told = [entry.message for entry in await client.history(job.name)]
    assert [each.rpartition(", ")[2] for each in told if "from now on" in each] == [
        "micro batches of 2 rows from now on",
        "micro batches of 1 rows from now on",
    ]
    await run_out(attempt)  # a row alone does not fit
    ended = await client.until(job.name, "FAILED")
    assert reason_of(ended) == "OUT_OF_MEMORY"

    refused = await submit(client, spec_of(trainable, rows=4))
    attempt = await cluster.next_attempt()
    await attempt.renew("RUNNING", step=3, total_steps=40)
    await run_out(attempt)
    ended = await client.until(refused.name, "FAILED")
    assert (ended.state, ended.attempt, reason_of(ended)) == (State.STATE_FAILED, 1, "OUT_OF_MEMORY")


async def run_out(attempt: ScriptedAttempt) -> None:
    """End as the loop does when memory runs out."""
    text = "memory ran out in step 4: make micro batches smaller"
    await attempt.fail_by(ResourceExhaustedError(text, reason="OUT_OF_MEMORY"))


def reason_of(job: training_job_pb2.TrainingJob) -> str:
    info = error_details_pb2.ErrorInfo()
    job.error.details[0].Unpack(info)
    return info.reason


async def test_it_is_asked_for_by_a_command_about_a_folder(
    type_in: Type, client: TrainingClient, cluster: ScriptedCluster, trainable: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    (tmp_path / "spec.yaml").write_text(
        f"task: LANGUAGE\nbase_model: {tmp_path}\ndataset: {trainable}\nlora: {{rank: 8}}\n"
        "optimization: {max_steps: 10}\n"
    )
    told = json.loads(type_in("train", "estimate", "-f", "spec.yaml", "--json").stdout)
    assert told["family"] == "llama"
    asked = await estimate(client, spec_of(trainable, lora=fine_tune_spec_pb2.LoraMethod(rank=8)))
    assert told["peakMemoryBytes"]["likely"] == pytest.approx(asked.peak_memory_bytes.likely)
    shown = type_in("train", "estimate", "-f", "spec.yaml").stdout
    assert "by the closed form of llama" in " ".join(shown.split())

    checked = json.loads(type_in("train", "submit", "-f", "spec.yaml", "--check", "--json").stdout)
    assert checked["estimate"]["peakMemoryBytes"] == told["peakMemoryBytes"]
    huge = ("-f", "spec.yaml", "-o", "optimization.micro_batch_size=4096", "--check")
    cluster.memory_bytes = 100_000_000_000
    await cluster.report()
    said = " ".join(type_in("train", "submit", *huge).stderr.split())
    assert "it may not fit: the largest place has" in said
    assert "it fits with optimization.gradient_accumulation_steps = " in said


@pytest.mark.parametrize(
    "odd", [{"num_hidden_layers": 10**12}, {"hidden_size": "wide"}, {"num_attention_heads": [1]}]
)
async def test_a_config_that_makes_no_sense_is_refused(
    client: TrainingClient, trainable: str, odd: dict[str, Any]
) -> None:
    files = estimate_pb2.BaseModelFiles(config_json=json.dumps(LLAMA | odd))
    request = pb.EstimateTrainingJobRequest(parent=client.parent, spec=spec_of(trainable), base_model=files)
    with pytest.raises(InvalidError) as caught:
        await client.call("EstimateTrainingJob", request)
    assert caught.value.reason == "BASE_MODEL_UNKNOWN"
