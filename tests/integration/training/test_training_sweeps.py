"""Sweeps on the service as a process, whose trials are done by hand, and which is killed between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from finemesh.core.errors import AlreadyExistsError, InvalidError, NotFoundError, PreconditionError
from finemesh.v1 import sweep_pb2
from finemesh.v1 import sweep_service_pb2 as pb
from finemesh.v1.sweep_service_pb2_grpc import SweepServiceStub

from tests.integration.training.conftest import SETTINGS
from tests.support.scripted_cluster import ScriptedAttempt, ScriptedCluster, translated
from tests.support.scripted_dataprep import ScriptedDataPrep
from tests.support.servers import PATIENCE_SECONDS, NatsServer, S3Server
from tests.support.services import ServiceProcess
from tests.support.training_client import State, TrainingClient, following, make_spec

pytestmark = pytest.mark.integration

Sweep = sweep_pb2.Sweep
Trial = sweep_pb2.SweepTrial
STEPS = 8
RATES = [0.4, 0.1, 0.3, 0.2]  # the loss of a trial is its rate


class SweepClient:
    """A caller of one project."""

    def __init__(self, client: TrainingClient) -> None:
        self.parent, self.stub = client.parent, SweepServiceStub(client.channel)

    async def call(self, method: str, request: Any) -> Any:
        with translated():
            return await getattr(self.stub, method)(request, timeout=PATIENCE_SECONDS)

    async def create(self, dataset: str, sweep_id: str, **fields: Any) -> Sweep:
        asked = {key: fields.pop(key) for key in ("request_id", "validate_only") if key in fields}
        fields.setdefault("parameters", [choices("optimization.learning_rate", *RATES)])
        spec = fields.pop("spec", {"optimization": {"max_steps": STEPS}})
        sweep = Sweep(spec=make_spec(dataset, **spec), **fields)
        return await self.call(
            "CreateSweep",
            pb.CreateSweepRequest(parent=self.parent, sweep=sweep, sweep_id=sweep_id, **asked),
        )

    async def get(self, name: str) -> Sweep:
        return await self.call("GetSweep", pb.GetSweepRequest(name=name))

    async def until(self, name: str, state: Sweep.State) -> Sweep:
        async with asyncio.timeout(PATIENCE_SECONDS):
            with translated():
                async for sweep in self.stub.WatchSweep(pb.WatchSweepRequest(name=name)):
                    if sweep.state == state:
                        return sweep
        raise AssertionError(f"{name} never was {state}")

    async def cancel_all(self) -> None:
        """Cancel what has not ended."""
        listed = await self.call("ListSweeps", pb.ListSweepsRequest(parent=self.parent))
        for sweep in listed.sweeps:
            if not sweep.HasField("end_time"):
                await self.call("CancelSweep", pb.CancelSweepRequest(name=sweep.name))


def choices(field: str, *values: Any) -> sweep_pb2.SweepParameter:
    parameter = sweep_pb2.SweepParameter(field=field)
    parameter.choices.extend(values)
    return parameter


async def train(cluster: ScriptedCluster, attempt: ScriptedAttempt) -> int:
    """Do what the command says: to the pause, or to the end. Returns the step it came to."""
    work = attempt.command.train_work
    step = work.pause_at_step or STEPS
    await attempt.renew(step=work.resume_from.step, total_steps=STEPS)
    await attempt.commit(step, loss=work.spec.optimization.learning_rate)
    if work.pause_at_step:
        await attempt.stop(step)
    else:
        await attempt.finish_training(step)
    cluster.forget(attempt)
    return step


@pytest.fixture
async def sweeps(client: TrainingClient) -> AsyncGenerator[SweepClient]:
    made = SweepClient(client)
    yield made
    await made.cancel_all()  # one that goes on would give its jobs to the cluster of the next test


@pytest.fixture
async def own(
    tmp_path: Path, nats_server: NatsServer, s3_server: S3Server, dataprep: ScriptedDataPrep
) -> AsyncGenerator[ServiceProcess]:
    """A service that the test may kill."""
    settings = {**SETTINGS, "FINEMESH_DATAPREP_ADDRESS": dataprep.address}
    settings["FINEMESH_LEASE_SECONDS"] = "60"  # nobody is lost here but the service itself
    process = ServiceProcess("training", tmp_path, nats_server, s3_server, settings)
    yield process.start()
    process.stop()


async def test_successive_halving_outlives_kills_within_a_rung_and_at_its_end(
    own: ServiceProcess, dataprep: ScriptedDataPrep
) -> None:
    client = TrainingClient(own.address, own.key, "halving")
    sweeps, key = SweepClient(client), dataprep.key
    dataprep.key = own.key
    halving = sweep_pb2.SuccessiveHalving(reduction=2)
    trained: list[tuple[str, int, int]] = []
    try:
        dataset = dataprep.add_trainable("halving")
        asked: dict[str, Any] = {"successive_halving": halving, "max_parallel": 2, "request_id": "once"}
        sweep = await sweeps.create(dataset, "s", **asked)
        assert [(rung.steps, rung.trials) for rung in sweep.rungs] == [(2, 4), (4, 2), (0, 1)]
        async with ScriptedCluster("c-halving", own.nats.url, own.address, own.key).running() as cluster:
            for index in range(7):
                attempt = await cluster.next_attempt()
                begun = attempt.command.train_work.resume_from.step
                step = await train(cluster, attempt)
                trained.append((attempt.command.resource.rpartition("/")[2], begun, step))
                if index in {1, 3}:  # in the middle of a rung, and at its end
                    own.kill()
                    own.start()
        done = await sweeps.until(sweep.name, Sweep.STATE_SUCCEEDED)
        assert (await sweeps.create(dataset, "s", **asked)).name == sweep.name
        jobs = {trial.number: await client.get(trial.training_job) for trial in done.trials}
    finally:
        dataprep.key = key
        await client.channel.close()
    assert sorted(trained[:4]) == [(f"s-{n}", 0, 2) for n in (1, 2, 3, 4)]
    assert sorted(trained[4:6]) == [("s-2", 2, 4), ("s-4", 2, 4)]
    assert trained[6] == ("s-2", 4, 8)
    assert done.best_training_job.endswith("s-2")
    states = {trial.number: (trial.state, list(trial.measured)) for trial in done.trials}
    assert states == {
        1: (Trial.STATE_ELIMINATED, [0.4]),
        2: (Trial.STATE_SUCCEEDED, [0.1, 0.1, 0.1]),
        3: (Trial.STATE_ELIMINATED, [0.3]),
        4: (Trial.STATE_ELIMINATED, [0.2, 0.2]),
    }
    assert jobs[2].state == State.STATE_SUCCEEDED
    assert all(jobs[n].state == State.STATE_CANCELLED for n in (1, 3, 4))
    assert all(jobs[n].labels == {"sweep": "s"} for n in jobs)
    assert jobs[4].latest_checkpoint.step == 4
    async with following(own.nats.url, "sweep", "halving") as facts:
        events = await facts.until("succeeded")
    assert [event.fact for event in events] == ["started", "rung_completed", "rung_completed", "succeeded"]


async def test_a_grid_keeps_to_its_parallelism_and_to_what_is_left_of_it(
    client: TrainingClient, sweeps: SweepClient, cluster: ScriptedCluster, trainable: str
) -> None:
    sweep = await sweeps.create(trainable, "grid", max_parallel=2)
    first, second = await cluster.next_attempt(), await cluster.next_attempt()
    with pytest.raises(TimeoutError):
        await cluster.next_attempt(timeout_seconds=2)
    await train(cluster, first)
    await second.renew()
    await second.fail(code=3, message="no such rate")  # INVALID_ARGUMENT: final
    cluster.forget(second)
    for _ in range(2):
        await train(cluster, await cluster.next_attempt())
    done = await sweeps.until(sweep.name, Sweep.STATE_SUCCEEDED)
    failed = next(trial for trial in done.trials if trial.state == Trial.STATE_FAILED)
    assert "no such rate" in failed.message
    best = min((t for t in done.trials if t is not failed), key=lambda trial: trial.objective or 1.0)
    assert best.best
    assert best.held_seconds > 0


async def test_a_cancelled_sweep_stops_its_jobs_and_may_be_deleted_with_them(
    client: TrainingClient, sweeps: SweepClient, cluster: ScriptedCluster, trainable: str
) -> None:
    sweep = await sweeps.create(trainable, "gone", max_parallel=1)
    attempt = await cluster.next_attempt()
    await attempt.renew()
    delete = pb.DeleteSweepRequest(name=sweep.name, force=True)
    with pytest.raises(PreconditionError) as live:
        await sweeps.call("DeleteSweep", delete)
    assert live.value.reason == "SWEEP_LIVE"
    await sweeps.call("CancelSweep", pb.CancelSweepRequest(name=sweep.name))
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            if await attempt.renew() == "CANCEL":
                break
            await asyncio.sleep(0.1)
    await attempt.stop(1)
    cluster.forget(attempt)
    done = await sweeps.until(sweep.name, Sweep.STATE_CANCELLED)
    assert {trial.state for trial in done.trials} == {Trial.STATE_CANCELLED}
    assert (await client.get(done.trials[0].training_job)).state == State.STATE_CANCELLED
    with pytest.raises(PreconditionError) as ended:
        await sweeps.call(
            "CancelSweep", pb.CancelSweepRequest(name=(await ended_sweep(sweeps, trainable)).name)
        )
    assert ended.value.reason == "SWEEP_ENDED"
    await sweeps.call("DeleteSweep", delete)
    for missing in (sweeps.get(sweep.name), client.get(done.trials[0].training_job)):
        with pytest.raises(NotFoundError):
            await missing


async def ended_sweep(sweeps: SweepClient, dataset: str) -> Sweep:
    """A sweep whose jobs are all refused."""
    spec = {"optimization": {"max_steps": STEPS}, "train_split": "none"}
    sweep = await sweeps.create(dataset, "refused", spec=spec)
    done = await sweeps.until(sweep.name, Sweep.STATE_FAILED)
    assert "SWEEP_WITHOUT_RESULT" in str(done.error)
    assert "split" in done.error.message
    return done


async def test_nothing_starts_if_a_combination_is_wrong(
    client: TrainingClient, sweeps: SweepClient, trainable: str
) -> None:
    with pytest.raises(InvalidError) as refused:
        await sweeps.create(
            trainable, "bad", parameters=[choices("lora.rank", 8, -1), choices("lora.rnk", 1)]
        )
    assert refused.value.reason == "INVALID_SWEEP"
    said = {violation.field: violation.description for violation in refused.value.violations}
    assert "did you mean rank" in said["sweep.spec.lora.rnk"]
    assert "in 1 of 2 trials, first in number 2: lora.rank=-1" in said["sweep.spec.lora.rank"]
    with pytest.raises(NotFoundError) as missing:
        await sweeps.get(f"{client.parent}/sweeps/bad")
    assert missing.value.reason == "SWEEP_NOT_FOUND"
    spec = {"optimization": {"max_steps": STEPS}, "train_split": "none"}
    with pytest.raises(PreconditionError) as unfit:
        await sweeps.create(trainable, "unfit", spec=spec, validate_only=True)
    assert unfit.value.reason == "SPLIT_EMPTY"
    assert len((await sweeps.create(trainable, "fit", validate_only=True)).trials) == len(RATES)
    assert not (await sweeps.call("ListSweeps", pb.ListSweepsRequest(parent=client.parent))).sweeps
    await sweeps.create(trainable, "good", parameters=[choices("optimization.learning_rate", 0.1)])
    with pytest.raises(AlreadyExistsError) as taken:
        await sweeps.create(trainable, "good", parameters=[choices("lora.rank", 4)])
    assert taken.value.reason in {"SWEEP_EXISTS", "TRAINING_JOB_EXISTS"}
