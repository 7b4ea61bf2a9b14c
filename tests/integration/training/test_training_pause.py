"""Pausing, resuming and other priorities: what a user tells a job while it goes on."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from finemesh.core.errors import FencedError, PreconditionError
from finemesh.v1 import fine_tune_spec_pb2
from finemesh.v1.training_job_history_pb2 import TrainingJobHistoryEntry as HistoryEntry

from tests.integration.training.conftest import Type
from tests.support.scripted_cluster import ScriptedCluster
from tests.support.scripted_dataprep import ScriptedDataPrep
from tests.support.training_client import FactLog, State, TrainingClient

pytestmark = pytest.mark.integration


async def test_a_paused_job_holds_nothing_and_goes_on_from_its_checkpoint(
    client: TrainingClient, cluster: ScriptedCluster, trainable: str, facts: FactLog
) -> None:
    job = await client.create(trainable)
    first = await cluster.next_attempt()
    await first.renew(step=3)
    assert (await client.pause(job.name)).state == State.STATE_PAUSING
    assert (await client.pause(job.name)).state == State.STATE_PAUSING
    with pytest.raises(PreconditionError, match="resume it when it is PAUSED") as early:
        await client.resume(job.name)
    assert early.value.reason == "TRAINING_JOB_STOPPING"

    assert await first.renew(step=4) == "PAUSE"
    await first.commit(5)
    assert await first.renew(step=5, following="PAUSE") == "PAUSE"
    await first.stop(step=5)
    cluster.forget(first)
    paused = await client.until(job.name, "PAUSED")
    assert not paused.HasField("worker")
    assert paused.step == 5
    with pytest.raises(FencedError):
        await first.renew()

    assert (await client.resume(job.name)).state == State.STATE_QUEUED
    second = await cluster.next_attempt()
    assert second.command.attempt == 2
    assert second.command.train_work.resume_from.step == 5
    await second.renew()
    assert (await client.resume(job.name)).state == State.STATE_RUNNING  # it goes on already
    await second.commit(9)
    await second.finish_training(9)
    await client.until(job.name, "SUCCEEDED")
    assert await facts.names_until("succeeded") == [
        *("queued", "started", "checkpointed", "paused"),
        *("queued", "resumed", "checkpointed", "succeeded"),
    ]
    told = await client.history(job.name)
    assert [entry.sequence for entry in told] == list(range(1, len(told) + 1))
    kinds = [HistoryEntry.Kind.Name(entry.kind).removeprefix("KIND_") for entry in told]
    assert kinds == [
        *("SUBMITTED", "STATE", "STATE", "DISPATCHED", "TAKEN_UP", "STATE"),
        *("COMMAND", "STATE", "DIRECTIVE", "CHECKPOINT", "ACKNOWLEDGED", "ENDED", "STATE"),
        *("COMMAND", "STATE", "STATE", "DISPATCHED", "TAKEN_UP", "STATE", "CHECKPOINT", "ENDED", "STATE"),
    ]
    moves = [(entry.from_state, entry.state) for entry in told if entry.from_state]
    assert all(left == entered for (_, left), (entered, _) in itertools.pairwise(moves))
    assert [(entry.actor, entry.message) for entry in told if entry.kind == HistoryEntry.KIND_COMMAND] == [
        ("tester", "pause"),
        ("tester", "resume"),
    ]
    by_attempts = (HistoryEntry.KIND_TAKEN_UP, HistoryEntry.KIND_ACKNOWLEDGED, HistoryEntry.KIND_ENDED)
    assert [entry.actor for entry in told if entry.kind in by_attempts] == [
        f"{job.name}/attempts/{attempt}" for attempt in (1, 1, 1, 2, 2)
    ]
    for refused in (client.pause(job.name), client.resume(job.name), client.set_priority(job.name, 3)):
        with pytest.raises(PreconditionError) as ended:
            await refused
        assert ended.value.reason == "TRAINING_JOB_ENDED"


async def test_a_job_that_nobody_works_on_pauses_at_once(
    client: TrainingClient, cluster: ScriptedCluster, trainable: str, dataprep: ScriptedDataPrep
) -> None:
    needs_gpu = fine_tune_spec_pb2.ResourceSpec(gpus=1)
    queued = await client.create(trainable, spec={"resources": needs_gpu})
    await client.until(queued.name, "QUEUED")
    assert (await client.pause(queued.name)).state == State.STATE_PAUSED
    assert (await client.resume(queued.name)).state == State.STATE_QUEUED
    assert (await client.set_priority(queued.name, -4)).priority == -4
    assert (await client.cancel(queued.name)).state == State.STATE_CANCELLED

    starting = await client.create(trainable)
    attempt = await cluster.next_attempt()
    assert (await client.pause(starting.name)).state == State.STATE_PAUSED
    with pytest.raises(FencedError):
        await attempt.renew()
    assert (await client.cancel(starting.name)).state == State.STATE_CANCELLED
    with pytest.raises(PreconditionError):
        await client.pause(starting.name)


async def test_a_success_that_comes_while_pausing_is_a_success(
    client: TrainingClient, cluster: ScriptedCluster, trainable: str
) -> None:
    job = await client.create(trainable)
    attempt = await cluster.next_attempt()
    await attempt.renew()
    await client.pause(job.name)
    await attempt.commit(5)
    await attempt.finish_training(5)
    await client.until(job.name, "SUCCEEDED")


async def test_an_attempt_that_does_not_pause_in_time_is_cut_off_and_the_job_is_paused(
    client: TrainingClient, cluster: ScriptedCluster, trainable: str
) -> None:
    job = await client.create(trainable)
    attempt = await cluster.next_attempt()
    await attempt.renew()
    await attempt.commit(5)
    await client.pause(job.name)
    async with attempt.kept_alive():
        await client.until(job.name, "PAUSED")
    with pytest.raises(FencedError):
        await attempt.renew()
    paused = await client.get(job.name)
    assert (paused.state, paused.latest_checkpoint.step) == (State.STATE_PAUSED, 5)
    await client.resume(job.name)
    assert (await cluster.next_attempt()).command.train_work.resume_from.step == 5


def test_a_user_sees_what_was_asked_for_and_how_long_it_took(type_in: Type, trainable: str) -> None:
    Path("llama").mkdir()
    Path("llama/config.json").write_text(json.dumps({"model_type": "llama", "max_position_embeddings": 1024}))
    type_in("train", "submit", "--preset", "quick", "--model", "./llama", "--dataset", trainable,
            "--gpus", "1", "--max-hours", "2", "--id", "asked")  # fmt: skip
    assert "PAUSED" in type_in("train", "pause", "asked").stdout
    assert "nothing to pause" not in type_in("train", "pause", "asked").stdout
    type_in("train", "priority", "asked", "7")
    type_in("train", "resume", "asked")
    job = json.loads(type_in("train", "cancel", "asked", "--json").stdout)
    assert (job["priority"], job["maxRunSeconds"], job["state"]) == (7, 7200, "STATE_CANCELLED")
    assert "nothing to resume" in str(type_in("train", "resume", "asked", code=1).exception)
    assert "no attempt has got so far" in type_in("train", "logs", "asked").stderr

    entries = json.loads(type_in("train", "history", "asked", "--json").stdout)
    assert [int(entry["sequence"]) for entry in entries] == list(range(1, len(entries) + 1))
    asked = [entry["message"] for entry in entries if entry["kind"] == "KIND_COMMAND"]
    assert asked == ["pause", "priority 7, 0 before", "resume", "cancel"]
    shown = type_in("train", "history", "asked")
    assert "PAUSING → PAUSED" in shown.stdout
    assert "tester" in shown.stdout
    assert f"{len(entries)} entries, 0 attempts; VALIDATING" in shown.stderr
