"""Everything but Ray's head is killed with SIGKILL while a job trains; nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from finemesh.client import Connection, Received, Settings, Subscriber, load_settings, upload_source, wait_for
from finemesh.embedded import Mesh, MeshConfig
from finemesh.v1 import (
    dataprep_service_pb2,
    dataset_pb2,
    fine_tune_spec_pb2,
    tracking_service_pb2,
    training_job_pb2,
    training_service_pb2,
)

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]

VICTIMS: tuple[str, ...] = ("dataprep", "training", "tracking", "export", "agent", "nats")
STEPS = 2000
Job = training_job_pb2.TrainingJob
ENDED = {Job.STATE_SUCCEEDED, Job.STATE_FAILED, Job.STATE_CANCELLED}
Dataset = dataset_pb2.Dataset


def run_module(module: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", module, *arguments], check=True, timeout=120, capture_output=True)


def make(connection: Connection, dataset_id: str, dataset: dataset_pb2.Dataset) -> dataset_pb2.Dataset:
    """Have a dataset made, over whatever is killed meanwhile."""
    request = dataprep_service_pb2.CreateDatasetRequest(
        parent=connection.parent, dataset=dataset, dataset_id=dataset_id, request_id=str(uuid.uuid4())
    )
    made = connection.dataprep.CreateDataset(request)
    watch = dataprep_service_pb2.WatchDatasetRequest(name=made.name)
    live = {Dataset.STATE_QUEUED, Dataset.STATE_RUNNING, Dataset.STATE_CANCELLING}
    ended = wait_for(
        lambda: connection.dataprep.WatchDataset(watch), lambda version: version.state not in live
    )
    assert ended.state == Dataset.STATE_SUCCEEDED, ended.error
    return ended


def prepare(connection: Connection, folder: Path) -> fine_tune_spec_pb2.FineTuneSpec:
    """A small dataset of conversations and a small base model; the spec of a job that takes a while."""
    run_module("finemesh.data.scenes", "--out", str(folder / "scenes.zip"), "--videos", "8", "--frames", "2")
    upload = upload_source(connection, folder / "scenes.zip")
    raw = make(connection, "raw", Dataset(imported_from=dataset_pb2.ImportOrigin(upload=upload)))
    split = make(connection, "split", Dataset(split_from=dataset_pb2.SplitOrigin(dataset=raw.name)))
    origin = dataset_pb2.ConvertOrigin(
        dataset=split.name,
        format=dataset_pb2.DATASET_FORMAT_CANONICAL,
        instruction=dataset_pb2.INSTRUCTION_TASK_CLASSIFY_REGION,
    )
    items = make(connection, "items", Dataset(converted_from=origin))
    (folder / "texts.jsonl").write_text(
        '"What is the object? tomato lemon lime orange plum blueberry"\n' * 50
    )
    arguments = ["--family", "llava", "--texts", str(folder / "texts.jsonl"), "--out", str(folder / "base")]
    run_module("finemesh.finetune.tiny", *arguments)
    return fine_tune_spec_pb2.FineTuneSpec(
        task=fine_tune_spec_pb2.FineTuneSpec.TASK_VISION_LANGUAGE,
        base_model=str(folder / "base"),
        dataset=items.name,
        lora=fine_tune_spec_pb2.LoraMethod(rank=4),
        optimization=fine_tune_spec_pb2.OptimizationSpec(max_steps=STEPS, micro_batch_size=2),
        checkpoint=fine_tune_spec_pb2.CheckpointSpec(every_steps=100),
    )


async def kill_everything(mesh: Mesh, order: list[str], job: Callable[[], Any]) -> None:
    """Kill one component after the other, each when the one before is back, while the job has not ended."""
    for victim in order:
        if (await asyncio.to_thread(job)).state in ENDED:
            pytest.fail(f"the job was over before {victim} could be killed: give it more steps")
        mesh.kill(victim)
        await mesh.wait_ready(victim, 60)


async def count_facts(
    settings: Settings, state: Path, facts: Counter[tuple[str, str]], succeeded: asyncio.Event
) -> None:
    """A durable subscriber with an idempotent handler, which comes back whenever the broker does."""

    async def handle(event: Received) -> None:
        facts[event.fact, event.id] += 1
        if event.fact == "training_job.succeeded":
            succeeded.set()

    while True:
        try:
            await Subscriber(settings, start=1, durable="chaos", state=state).run(handle)
        except Exception:
            await asyncio.sleep(0.5)


async def test_a_job_outlives_everything(seed: int, tmp_path: Path) -> None:
    order = random.Random(seed).sample(VICTIMS, len(VICTIMS))
    async with Mesh(MeshConfig(data_dir=tmp_path / "mesh")) as mesh:
        settings = load_settings(server=mesh.address, environ={"FINEMESH_DATA_DIR": str(mesh.site.data)})
        facts: Counter[tuple[str, str]] = Counter()
        succeeded = asyncio.Event()
        counting = asyncio.create_task(count_facts(settings, tmp_path / "handled.db", facts, succeeded))
        with Connection(settings) as connection:
            spec = await asyncio.to_thread(prepare, connection, tmp_path)
            request = training_service_pb2.CreateTrainingJobRequest(
                parent=connection.parent, training_job=Job(spec=spec), training_job_id="job", request_id="r"
            )
            name = (await asyncio.to_thread(connection.training.CreateTrainingJob, request)).name
            read = training_service_pb2.GetTrainingJobRequest(name=name)
            watch = training_service_pb2.WatchTrainingJobRequest(name=name)
            await asyncio.to_thread(
                wait_for,
                lambda: connection.training.WatchTrainingJob(watch),
                lambda version: version.state in ENDED or version.step > 0,
            )
            await kill_everything(mesh, order, lambda: connection.training.GetTrainingJob(read))
            ended = await asyncio.to_thread(
                wait_for,
                lambda: connection.training.WatchTrainingJob(watch),
                lambda version: version.state in ENDED,
            )
            assert ended.state == Job.STATE_SUCCEEDED, (order, ended.error)
            assert ended.step == STEPS
            curve = tracking_service_pb2.QueryMetricsRequest(
                parent=connection.parent, runs=[ended.run], keys=["train/loss"], max_points=20_000
            )
            (series,) = (await asyncio.to_thread(connection.tracking.QueryMetrics, curve)).series
            assert list(series.steps) == list(range(1, STEPS + 1)), "a gap or a duplicate in the curve"
            # A request made after all that finds a mesh as good as new.
            again = dataset_pb2.ConvertOrigin(dataset=spec.dataset, format=dataset_pb2.DATASET_FORMAT_LLAVA)
            await asyncio.to_thread(make, connection, "llava", Dataset(converted_from=again))
            # The relay of a killed service waits for its predecessor's lease.
            await asyncio.wait_for(succeeded.wait(), 30)
        counting.cancel()
        _, left = await asyncio.wait([counting], timeout=20)
        assert not left, "the subscriber does not end when it is cancelled"
    assert set(facts.values()) == {1}, "a fact took effect twice"
    by_kind = Counter(fact for fact, _ in facts)
    assert by_kind["training_job.queued"] == by_kind["training_job.succeeded"] == 1
    assert by_kind["dataset.imported"] == by_kind["dataset.split"] == 1
