"""What is acknowledged stays, whichever process dies or is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from pathlib import Path

import pytest
from finemesh.core.errors import UnavailableError

from tests.integration.training.conftest import SETTINGS
from tests.support.scripted_cluster import ScriptedCluster
from tests.support.scripted_dataprep import ScriptedDataPrep
from tests.support.servers import PATIENCE_SECONDS, NatsServer, S3Server, free_ports
from tests.support.services import ServiceProcess
from tests.support.training_client import State, TrainingClient, following

pytestmark = pytest.mark.integration

PROJECT = "faults"


@pytest.fixture
def own_nats(start_nats: Callable[[], NatsServer]) -> NatsServer:
    """A broker that the test may kill."""
    return start_nats()


@pytest.fixture
def own_dataprep() -> Generator[ScriptedDataPrep]:
    server = ScriptedDataPrep(free_ports(1)[0])
    server.start()
    yield server
    server.stop()


@pytest.fixture
def own_service(
    tmp_path: Path, own_nats: NatsServer, s3_server: S3Server, own_dataprep: ScriptedDataPrep
) -> Generator[ServiceProcess]:
    """A service that the test may kill; not started yet."""
    settings = {**SETTINGS, "FINEMESH_DATAPREP_ADDRESS": own_dataprep.address}
    process = ServiceProcess("training", tmp_path / "training", own_nats, s3_server, settings)
    yield process
    process.stop()


@pytest.fixture
async def own_client(own_service: ServiceProcess) -> AsyncGenerator[TrainingClient]:
    made = TrainingClient(own_service.address, own_service.key, PROJECT)
    yield made
    await made.channel.close()


def cluster_of(service: ServiceProcess, name: str = "c1") -> ScriptedCluster:
    return ScriptedCluster(name, service.nats.url, service.address, service.key)


async def test_a_kill_between_accept_and_dispatch_loses_nothing(
    own_service: ServiceProcess,
    own_client: TrainingClient,
    own_dataprep: ScriptedDataPrep,
    own_nats: NatsServer,
) -> None:
    dataset = own_dataprep.add_trainable(PROJECT)
    own_service.start()
    jobs = [await own_client.create(dataset, request_id=f"r{i}") for i in range(3)]
    own_service.kill()  # at once: whatever it was about to do

    own_service.start()
    again = await own_client.create(dataset, request_id="r0")
    assert again.name == jobs[0].name
    async with cluster_of(own_service).running() as cluster:
        for _ in jobs:
            attempt = await cluster.next_attempt()
            await attempt.renew()
            await attempt.commit(1)
            await attempt.finish_training(1)
            cluster.forget(attempt)
    for job in jobs:
        assert (await own_client.get(job.name)).state == State.STATE_SUCCEEDED
    async with following(own_nats.url, "training_job", PROJECT) as facts:
        told: list[str] = []
        for _ in jobs:
            told += await facts.names_until("succeeded")
    for fact in ("queued", "started", "checkpointed", "succeeded"):
        assert told.count(fact) == len(jobs)


async def test_a_restarted_service_goes_on_with_the_leases_it_finds(
    own_service: ServiceProcess, own_client: TrainingClient, own_dataprep: ScriptedDataPrep
) -> None:
    dataset = own_dataprep.add_trainable(PROJECT)
    own_service.settings["FINEMESH_LEASE_SECONDS"] = "60"
    own_service.start()
    job = await own_client.create(dataset)
    async with cluster_of(own_service).running() as cluster:
        attempt = await cluster.next_attempt()
        await attempt.renew(step=5)
        await attempt.commit(5)
        own_service.kill()
        with pytest.raises(UnavailableError):
            await attempt.renew(step=6)
        own_service.start()
        assert await renewed(lambda: attempt.renew(step=7)) == "CONTINUE"
        running = await own_client.get(job.name)
        assert (running.state, running.attempt, running.step) == (State.STATE_RUNNING, 1, 7)
        await attempt.commit(7)
        await attempt.finish_training(7)
    assert (await own_client.get(job.name)).state == State.STATE_SUCCEEDED


async def renewed(call: Callable[[], Awaitable[str]]) -> str:
    """Repeat `call` while the service is away."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                return await call()
            except UnavailableError:
                await asyncio.sleep(0.1)


async def test_the_service_starts_and_accepts_without_anything_it_depends_on(
    own_service: ServiceProcess,
    own_client: TrainingClient,
    own_dataprep: ScriptedDataPrep,
    own_nats: NatsServer,
    start_s3: Callable[[], S3Server],
) -> None:
    dataset = own_dataprep.add_trainable(PROJECT)
    own_s3 = start_s3()
    own_service.s3 = own_s3
    for server in (own_nats, own_s3):
        server.kill()
    own_dataprep.stop()

    own_service.start(ready=False)
    assert own_service.health() == "NOT_SERVING"
    job = await own_client.create(dataset)
    await own_client.until(job.name, lambda seen: "DataPrep" in seen.progress.message)
    own_dataprep.start()
    await own_client.until(job.name, "QUEUED")

    own_nats.start()
    async with cluster_of(own_service).running() as cluster:  # the outbox still holds what was to be said
        attempt = await cluster.next_attempt()
        await attempt.renew()
        await attempt.commit(1)
        await attempt.finish_training(1)
    async with following(own_nats.url, "training_job", PROJECT) as facts:
        assert await facts.names_until("succeeded") == ["queued", "started", "checkpointed", "succeeded"]
    with pytest.raises(UnavailableError):  # S3 is still away: the job stays, to be deleted again
        await own_client.delete(job.name)
    own_s3.start()
    await asyncio.to_thread(own_service.wait_ready)
    await own_client.delete(job.name)


async def test_nats_away_delays_the_command_and_the_sync_brings_it(
    own_service: ServiceProcess,
    own_client: TrainingClient,
    own_dataprep: ScriptedDataPrep,
    own_nats: NatsServer,
) -> None:
    dataset = own_dataprep.add_trainable(PROJECT)
    own_service.start()
    async with cluster_of(own_service).running() as cluster:
        await cluster.report()
        own_nats.kill()
        job = await own_client.create(dataset)
        attempt = await cluster.next_attempt()  # in the answer to a report, without the broker
        await attempt.renew()
        await attempt.commit(1)
        await attempt.finish_training(1)
        assert (await own_client.get(job.name)).state == State.STATE_SUCCEEDED
        own_nats.start()
    async with following(own_nats.url, "training_job", PROJECT) as facts:
        assert await facts.names_until("succeeded") == ["queued", "started", "checkpointed", "succeeded"]


async def test_a_dead_cluster_gets_no_work_and_another_takes_over(
    own_service: ServiceProcess, own_client: TrainingClient, own_dataprep: ScriptedDataPrep
) -> None:
    dataset = own_dataprep.add_trainable(PROJECT)
    own_service.start()
    async with cluster_of(own_service, "c1").running() as first:
        job = await own_client.create(dataset)
        attempt = await first.next_attempt()
        await attempt.renew()
        await attempt.commit(5)
    async with cluster_of(own_service, "c2").running() as second:
        resumed = await second.next_attempt()
        assert resumed.command.cluster == "c2"
        assert resumed.command.train_work.resume_from.step == 5
        await resumed.renew()
        await resumed.commit(9)
        await resumed.finish_training(9)
    assert (await own_client.get(job.name)).state == State.STATE_SUCCEEDED
