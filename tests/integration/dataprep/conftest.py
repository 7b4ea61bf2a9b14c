"""The DataPrep service as a process, on real servers; the cluster is scripted."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, Generator

import pytest

from tests.support.dataprep_client import DataPrepClient
from tests.support.scripted_cluster import ScriptedCluster
from tests.support.servers import NatsServer, S3Server
from tests.support.services import ServiceProcess
from tests.support.training_client import FactLog, following


@pytest.fixture(scope="package")
def service(
    tmp_path_factory: pytest.TempPathFactory, nats_server: NatsServer, s3_server: S3Server
) -> Generator[ServiceProcess]:
    settings = {
        "FINEMESH_LEASE_SECONDS": "8",
        "FINEMESH_START_TIMEOUT_SECONDS": "60",
        "FINEMESH_CANCEL_GRACE_SECONDS": "5",
        "FINEMESH_CLUSTER_ID": "nobody",
        "FINEMESH_IMPORT_SOURCES": "lake/open, own-{project}, finemesh-test",
    }
    folder = tmp_path_factory.mktemp("dataprep")
    process = ServiceProcess("dataprep", folder, nats_server, s3_server, settings)
    try:
        yield process.start()
    finally:
        process.stop()


@pytest.fixture
async def client(service: ServiceProcess) -> AsyncGenerator[DataPrepClient]:
    """An operator of a project of the test's own."""
    made = DataPrepClient(service.address, service.key, f"p{uuid.uuid4().hex[:10]}")
    yield made
    await made.cancel_all()  # what waits would be given to the cluster of the next test
    await made.channel.close()


@pytest.fixture
async def cluster(service: ServiceProcess, client: DataPrepClient) -> AsyncGenerator[ScriptedCluster]:
    made = ScriptedCluster(f"c-{client.project}", service.nats.url, service.address, service.key)
    async with made.running():
        await made.report()  # known before the test asks for work
        yield made


@pytest.fixture
async def facts(nats_server: NatsServer, client: DataPrepClient) -> AsyncGenerator[FactLog]:
    async with following(nats_server.url, "dataset", client.project) as followed:
        yield followed
