"""The Export service as a process, on real servers; Training, DataPrep and the cluster are scripted."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, Generator

import pytest
from finemesh.chassis.s3 import S3ObjectStore

from tests.support.export_client import ExportClient
from tests.support.export_gateway import HttpDoor, gateway_before
from tests.support.scripted_cluster import ScriptedCluster
from tests.support.scripted_dataprep import ScriptedDataPrep
from tests.support.scripted_training import ScriptedTraining
from tests.support.servers import NatsServer, S3Server, free_ports
from tests.support.services import ServiceProcess
from tests.support.training_client import FactLog, following

# Short enough for tests, long enough for a busy machine.
SETTINGS = {
    "FINEMESH_LEASE_SECONDS": "8",
    "FINEMESH_START_TIMEOUT_SECONDS": "60",
    "FINEMESH_CANCEL_GRACE_SECONDS": "5",
    "FINEMESH_RESTART_DELAY_SECONDS": "0.1",
    "FINEMESH_CLUSTER_LIVE_SECONDS": "10",
    "FINEMESH_CLUSTER_ID": "nobody",
    "FINEMESH_SWEEP_SECONDS": "0.2",
}


@pytest.fixture(scope="package")
def training() -> Generator[ScriptedTraining]:
    server = ScriptedTraining(free_ports(1)[0])
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="package")
def dataprep() -> Generator[ScriptedDataPrep]:
    server = ScriptedDataPrep(free_ports(1)[0])
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="package")
def service(
    tmp_path_factory: pytest.TempPathFactory,
    nats_server: NatsServer,
    s3_server: S3Server,
    training: ScriptedTraining,
    dataprep: ScriptedDataPrep,
) -> Generator[ServiceProcess]:
    settings = {
        **SETTINGS,
        "FINEMESH_TRAINING_ADDRESS": training.address,
        "FINEMESH_DATAPREP_ADDRESS": dataprep.address,
    }
    process = ServiceProcess("export", tmp_path_factory.mktemp("export"), nats_server, s3_server, settings)
    training.key = dataprep.key = process.key
    try:
        yield process.start()
    finally:
        process.stop()


@pytest.fixture(scope="package")
def door(
    service: ServiceProcess, s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> Generator[HttpDoor]:
    """The gateway before the service."""
    folder = tmp_path_factory.mktemp("gateway")
    with gateway_before("export", service.address, service.key, s3_server, folder) as made:
        yield made


@pytest.fixture
async def objects(service: ServiceProcess) -> AsyncGenerator[S3ObjectStore]:
    store = service.object_store()
    yield store
    store.close()


@pytest.fixture
async def client(service: ServiceProcess) -> AsyncGenerator[ExportClient]:
    """An operator of a project of the test's own."""
    made = ExportClient(service.address, service.key, f"p{uuid.uuid4().hex[:10]}")
    yield made
    await made.cancel_all()  # what waits would be given to the cluster of the next test
    await made.channel.close()


@pytest.fixture
def job(training: ScriptedTraining, dataprep: ScriptedDataPrep, client: ExportClient) -> str:
    """Name of a job that can be exported."""
    return training.add(client.project, "tj", dataprep.add_trainable(client.project))


@pytest.fixture
async def cluster(service: ServiceProcess, client: ExportClient) -> AsyncGenerator[ScriptedCluster]:
    made = ScriptedCluster(f"c-{client.project}", service.nats.url, service.address, service.key)
    async with made.running():
        await made.report()  # known before the test asks for work
        yield made


@pytest.fixture
async def facts(nats_server: NatsServer, client: ExportClient) -> AsyncGenerator[FactLog]:
    async with following(nats_server.url, "export", client.project) as followed:
        yield followed
