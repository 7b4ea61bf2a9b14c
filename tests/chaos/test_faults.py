"""One job outlives every fault in turn, others are cancelled at every moment: nothing is lost, nothing held.

All on one mesh, one node of which has a clock that is wrong. docs/reference/faults.md tells users the same.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import psutil
import pytest
import pytest_asyncio
from finemesh.core.spec.finetune import OutOfMemory, Resources
from finemesh.embedded import Mesh, MeshConfig
from finemesh.embedded.processes import signal_all
from finemesh.v1 import training_service_pb2 as training_pb
from google.rpc import error_details_pb2

from tests.support.conversations import tiny_model
from tests.support.fault_mesh import PATIENCE_SECONDS, Entry, FaultMesh, Job, State
from tests.support.soundness import assert_sound

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(3000), pytest.mark.asyncio(loop_scope="module")]

CHECKPOINT_STEPS: Final = 10
LEASE_SECONDS: Final = 12.0
SERVICES: Final = ("dataprep", "training", "tracking", "export", "agent", "nats", "s3", "gateway")
Fault = Callable[[FaultMesh, str, random.Random, float], Awaitable[None]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FaultMesh]:
    folder = tmp_path_factory.mktemp("faults")
    config = MeshConfig(
        data_dir=folder / "mesh",
        ready_timeout_seconds=PATIENCE_SECONDS,
        cpus=1,
        gpus=0,
        lease_seconds=LEASE_SECONDS,
        environment={
            # Each restart doubles it; the last comes while a cluster that is cut off still counts as live.
            "FINEMESH_RESTART_DELAY_SECONDS": "0.01",
            "FINEMESH_SYNC_SECONDS": "0.5",
            "FINEMESH_WORKER_TIMEOUT_SECONDS": "20",
        },
    )
    async with Mesh(config) as mesh:
        site = await FaultMesh.prepared(mesh, folder)
        try:
            yield site
        finally:
            site.close()


# ---- faults, each of which is over when its function returns


async def kill_worker(site: FaultMesh, name: str, chance: random.Random, away_seconds: float) -> None:
    (pid,) = (await site.job(name)).worker.pids
    os.kill(pid, signal.SIGKILL)


async def stop_worker(site: FaultMesh, name: str, chance: random.Random, away_seconds: float) -> None:
    """It stands still for good, while its supervisor renews the lease."""
    (pid,) = (await site.job(name)).worker.pids
    worker = psutil.Process(pid)
    worker.suspend()
    # Long before Ray gives up the connection to it, which takes 7 minutes.
    await site.until(lambda: not is_alive(worker), "the end of a worker that stands still", seconds=240)


async def kill_supervisor(site: FaultMesh, name: str, chance: random.Random, away_seconds: float) -> None:
    await site.until(lambda: len(site.actors("Supervisor")) == 1, "the end of earlier supervisors")
    signal_all(site.actors("Supervisor"), psutil.Process.kill)


async def kill_node(site: FaultMesh, name: str, chance: random.Random, away_seconds: float) -> None:
    """The machine of the worker goes down, and comes up with another clock."""
    site.node.kill()
    site.node.wrong_seconds = chance.choice([-3600, 3600])
    site.node.start()


async def kill_head(site: FaultMesh, name: str, chance: random.Random, away_seconds: float) -> None:
    site.mesh.kill("ray")
    await site.mesh.wait_ready("ray", PATIENCE_SECONDS)
    site.node.kill()
    site.node.start()


def kill_components(*components: str) -> Fault:
    async def kill(site: FaultMesh, name: str, chance: random.Random, away_seconds: float) -> None:
        for component in components:
            site.mesh.kill(component)
        for component in components:
            await site.mesh.wait_ready(component, PATIENCE_SECONDS)

    return kill


async def kill_everything(site: FaultMesh, name: str, chance: random.Random, away_seconds: float) -> None:
    """In any order; what a component needs comes back before it, or after."""
    for component in chance.sample([*SERVICES, "ray"], len(SERVICES) + 1):
        site.mesh.kill(component)
        await asyncio.sleep(chance.random() / 2)
    site.node.kill()
    for component in site.mesh.pids():
        await site.mesh.wait_ready(component, PATIENCE_SECONDS)
    site.node.start()


async def object_store_away(site: FaultMesh, name: str, chance: random.Random, away_seconds: float) -> None:
    """Checkpoints are made meanwhile, and cannot be uploaded."""
    pid = site.mesh.pids()["s3"]
    os.kill(pid, signal.SIGSTOP)
    try:
        seen = await site.job(name)
        await asyncio.sleep(away_seconds)
        # What is told of a job is a second old: from a later report on, all that S3 took is known.
        begun = await site.reached(name, lambda job: job.step > seen.step, "a report of later")
        due = begun.step + CHECKPOINT_STEPS
        job = await site.reached(name, lambda job: job.step >= due, "steps while S3 is away")
        assert job.latest_checkpoint.step <= begun.step
    finally:
        os.kill(pid, signal.SIGCONT)


async def cut_off(site: FaultMesh, name: str, chance: random.Random, away_seconds: float) -> None:
    """An attempt stands still until its job has moved, and then goes on. The agent is late to notice."""
    begun = await site.job(name)
    still = [*site.actors("Supervisor"), *site.actors("Worker"), psutil.Process(site.mesh.pids()["agent"])]
    for process in still:
        process.suspend()
    try:
        await site.reached(name, lambda job: job.attempt > begun.attempt, "the next attempt")
        for process in still[:-1]:
            process.resume()
        await site.until(lambda: not any(is_alive(each) for each in still[:-1]), "the old attempt's end")
    finally:
        for process in still:
            if is_alive(process):
                process.resume()


def is_alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


# Each, and whether the attempt goes on. Training may be away for longer than a lease, or not.
FAULTS: Final[dict[str, tuple[Fault, bool | None]]] = {
    "worker": (kill_worker, False),
    "worker stopped": (stop_worker, False),
    "supervisor": (kill_supervisor, False),
    "node": (kill_node, False),
    "head": (kill_head, False),
    "cut off": (cut_off, False),
    "everything": (kill_everything, False),
    "training": (kill_components("training"), None),
    "agent, tracking, nats": (kill_components("agent", "tracking", "nats"), True),
    "agent": (kill_components("agent"), True),
    "tracking": (kill_components("tracking"), True),
    "nats": (kill_components("nats"), True),
    "s3": (object_store_away, True),
}
# Left to `make soak`: one round has them together with others, and the demo is killed by each alone.
ALONE: Final = {"head", "training", "agent", "tracking", "nats"}


async def test_a_job_outlives_every_fault(site: FaultMesh, seed: int, rounds: int, alone: bool) -> None:
    chance = random.Random(seed)
    faults = [fault for fault in FAULTS if rounds > 1 or fault not in ALONE]
    order = [list(FAULTS)[seed % len(FAULTS)]] if alone else chance.sample(faults, len(faults))
    away_seconds = 1.0 if rounds == 1 else 30.0
    # Some for each fault, and as many as are made while the object store is away.
    steps = 20 * len(order) + (400 if "s3" in order and rounds > 1 else 100)
    chosen = site.spec(steps, CHECKPOINT_STEPS)
    undisturbed = asyncio.create_task(site.undisturbed(chosen))
    name = await site.submit(chosen)
    for number, fault in enumerate(order):
        # A fault strikes once the last one is over: some steps beyond, with a checkpoint to go back to.
        strike = CHECKPOINT_STEPS * (number + 1) + chance.randrange(CHECKPOINT_STEPS)
        job = await site.reached(
            name, lambda job, at=strike: is_at_work(job, at), f"step {strike}, for {fault}"
        )
        print(f"seed {seed}: {fault} at step {job.step} of attempt {job.attempt}")
        strike_with, goes_on = FAULTS[fault]
        await strike_with(site, name, chance, away_seconds)
        before = job.attempt
        if goes_on is False:
            await site.reached(name, lambda job, last=before: job.attempt > last, "the next attempt")
        job = await site.reached(name, lambda job: is_at_work(job, 1), f"work after {fault}")
        assert not goes_on or job.attempt == before, f"{fault} cost an attempt"
    job = await assert_sound(site, name, State.STATE_SUCCEEDED, await undisturbed)
    assert job.resume_certificates or job.attempt == 1


def is_at_work(job: Job, step: int) -> bool:
    return job.state == State.STATE_RUNNING and job.step >= step and len(job.worker.pids) == 1


# ---- cancelled at every moment


async def in_validation(site: FaultMesh, name: str) -> None:
    """DataPrep, which is asked about the dataset, does not answer."""
    await site.reached(name, lambda job: job.state == State.STATE_VALIDATING, "validation")


async def in_model_load(site: FaultMesh, name: str) -> None:
    await site.reached(name, lambda job: job.state == State.STATE_STARTING and job.worker.pids, "a worker")


async def in_step(site: FaultMesh, name: str) -> None:
    """Its spool was on a full disk for a while: what was measured then is not lost either."""
    job = await site.reached(name, lambda job: is_at_work(job, 2), "a step")
    worker = psutil.Process(job.worker.pids[0])
    (spool,) = (each for each in site.leftovers(name) if each.suffix == ".spool")
    unlimited = psutil.RLIM_INFINITY
    worker.rlimit(psutil.RLIMIT_FSIZE, (spool.stat().st_size, unlimited))
    size = spool.stat().st_size
    await site.reached(name, lambda later: later.step > job.step + 3, "steps while the disk is full")
    assert spool.stat().st_size == size
    worker.rlimit(psutil.RLIMIT_FSIZE, (unlimited, unlimited))


async def in_checkpoint(site: FaultMesh, name: str) -> None:
    """One is being uploaded, to an object store that does not answer until cancel was asked for."""
    await site.reached(name, lambda job: is_at_work(job, 1), "a step")
    os.kill(site.mesh.pids()["s3"], signal.SIGSTOP)
    await site.reached(name, lambda job: job.step >= CHECKPOINT_STEPS + 1, "a checkpoint")


async def in_pause(site: FaultMesh, name: str) -> None:
    await site.reached(name, lambda job: is_at_work(job, 2), "a step")
    request = training_pb.PauseTrainingJobRequest(name=name)
    await site.call(site.connection.training.PauseTrainingJob, request)
    await site.reached(name, lambda job: job.state == State.STATE_PAUSED, "its pause")


MOMENTS: Final = {
    "validation": (in_validation, "dataprep"),
    "model load": (in_model_load, ""),
    "step": (in_step, ""),
    "checkpoint": (in_checkpoint, "s3"),
    "pause": (in_pause, ""),
}


@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_job_is_cancelled_at_any_moment(site: FaultMesh, moment: str, seed: int) -> None:
    reach, silent = MOMENTS[moment]
    chosen = site.spec(10_000, CHECKPOINT_STEPS if moment == "checkpoint" else 10_000)
    try:
        if moment == "validation":
            os.kill(site.mesh.pids()[silent], signal.SIGSTOP)
        name = await site.submit(chosen)
        await reach(site, name)
        cancel = training_pb.CancelTrainingJobRequest(name=name)
        await site.call(site.connection.training.CancelTrainingJob, cancel)
        if moment == "validation":
            assert (await site.ended(name)).state == State.STATE_CANCELLED
    finally:
        if silent:
            os.kill(site.mesh.pids()[silent], signal.SIGCONT)
    job = await assert_sound(site, name, State.STATE_CANCELLED)
    assert bool(job.step) == (moment in {"step", "checkpoint", "pause"})


async def test_two_jobs_race_for_one_gpu(site: FaultMesh) -> None:
    """Ray hands out a GPU that this machine does not have: each job ends as soon as it looks for its own."""
    chosen = replace(site.spec(10, 10), resources=Resources(cpus=1, gpus=1))
    names = await asyncio.gather(site.submit(chosen), site.submit(chosen))
    held: list[tuple[int, int]] = []
    for name in names:
        job = await assert_sound(site, name, State.STATE_FAILED)
        assert "this machine shows none" in job.error.message
        times = {entry.kind: entry.time.ToNanoseconds() for entry in await site.history(name)}
        held.append((times[Entry.KIND_TAKEN_UP], times[Entry.KIND_ENDED]))
    first, second = sorted(held)
    assert first[1] <= second[0], "both held it"


# ---- memory that runs out


@pytest.mark.parametrize("answer", [OutOfMemory.HALVE_MICRO_BATCH, OutOfMemory.FAIL])
async def test_memory_runs_out_in_a_step(site: FaultMesh, answer: OutOfMemory) -> None:
    chosen = replace(
        site.spec(24, 2),
        base_model=str(await asyncio.to_thread(model_of_many_words, site.folder / "wide")),
        on_out_of_memory=answer,
    )
    optimization = replace(chosen.optimization, gradient_accumulation_steps=2)
    chosen = replace(chosen, optimization=optimization)
    name = await site.submit(chosen)
    job = await site.reached(
        name, lambda job: is_at_work(job, 1) and job.latest_checkpoint.step, "a checkpoint"
    )
    await take_memory(site, name, psutil.Process(job.worker.pids[0]))
    if answer is OutOfMemory.FAIL:
        job = await assert_failed(site, name)
        assert "let on_out_of_memory: HALVE_MICRO_BATCH do so" in job.error.message
        return
    job = await assert_sound(site, name, State.STATE_SUCCEEDED)
    rows = chosen.optimization.micro_batch_size // 2
    assert (job.attempt, job.micro_batch_size, job.step) == (2, rows, 24)
    told = [entry.message for entry in await site.history(name) if entry.kind == Entry.KIND_RESTART]
    kept = f"no restart is used up, micro batches of {rows} rows from now on"
    assert [each.partition(", ")[2] for each in told] == [kept]
    # The same rows in the same order, so many of them in each step.
    assert job.latest_checkpoint.sample_hash == (await site.undisturbed(chosen))["sample_hash"]


async def assert_failed(site: FaultMesh, name: str) -> Job:
    """With what was asked for, in the first attempt."""
    job = await site.ended(name)
    info = error_details_pb2.ErrorInfo()
    assert (job.state, job.attempt) == (State.STATE_FAILED, 1)
    assert any(each.Unpack(info) for each in job.error.details)
    assert info.reason == "OUT_OF_MEMORY"
    assert "set optimization.micro_batch_size to 4 and" in job.error.message
    await site.until(site.is_free, "all that Ray gives away back")
    return job


def model_of_many_words(folder: Path) -> Path:
    """Tiny, but the logits of a token take two megabytes."""
    from transformers import AutoConfig, AutoModelForCausalLM

    if not folder.is_dir():
        tiny_model(folder, "llama")
        config = AutoConfig.from_pretrained(folder)
        config.vocab_size = 1 << 19
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


async def take_memory(site: FaultMesh, name: str, worker: psutil.Process) -> None:
    """Leave a process three quarters of what its steps take at most, above what they leave."""
    sizes: list[int] = []
    begun = await site.job(name)

    def is_seen(job: Job) -> bool:
        sizes.append(worker.memory_info().vms)
        return job.step >= begun.step + 2

    await site.reached(name, is_seen, "two steps")
    limit = min(sizes) + (max(sizes) - min(sizes)) * 3 // 4
    worker.rlimit(psutil.RLIMIT_AS, (limit, psutil.RLIM_INFINITY))
