"""The Training service as a process, on real NATS, S3 and SQLite; DataPrep and the cluster are scripted."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, Callable, Generator
from pathlib import Path

import pytest
from finemesh.chassis.auth import Role
from finemesh.client.cli import context
from finemesh.client.cli.app import app
from typer.testing import CliRunner, Result

from tests.support.scripted_cluster import ScriptedCluster
from tests.support.scripted_dataprep import ScriptedDataPrep
from tests.support.servers import NatsServer, S3Server, free_ports
from tests.support.services import ServiceProcess
from tests.support.training_client import FactLog, TrainingClient, following

Type = Callable[..., Result]

# Short enough for tests, long enough for a busy machine.
SETTINGS = {
    "FINEMESH_LEASE_SECONDS": "8",
    "FINEMESH_START_TIMEOUT_SECONDS": "60",
    "FINEMESH_CANCEL_GRACE_SECONDS": "5",
    "FINEMESH_PAUSE_GRACE_SECONDS": "5",
    "FINEMESH_RESTART_DELAY_SECONDS": "0.1",
    "FINEMESH_CLUSTER_LIVE_SECONDS": "10",
}


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
    dataprep: ScriptedDataPrep,
) -> Generator[ServiceProcess]:
    settings = {**SETTINGS, "FINEMESH_DATAPREP_ADDRESS": dataprep.address}
    folder = tmp_path_factory.mktemp("training")
    process = ServiceProcess("training", folder, nats_server, s3_server, settings)
    dataprep.key = process.key
    try:
        yield process.start()
    finally:
        process.stop()


@pytest.fixture
async def client(service: ServiceProcess) -> AsyncGenerator[TrainingClient]:
    """An operator of a project of the test's own."""
    made = TrainingClient(service.address, service.key, f"p{uuid.uuid4().hex[:10]}")
    yield made
    await made.cancel_all()  # what waits would be given to the cluster of the next test
    await made.channel.close()


@pytest.fixture
def trainable(dataprep: ScriptedDataPrep, client: TrainingClient) -> str:
    """Name of a dataset that can be trained on."""
    return dataprep.add_trainable(client.project)


@pytest.fixture
async def cluster(service: ServiceProcess, client: TrainingClient) -> AsyncGenerator[ScriptedCluster]:
    made = ScriptedCluster(f"c-{client.project}", service.nats.url, service.address, service.key)
    async with made.running():
        yield made


@pytest.fixture
async def facts(nats_server: NatsServer, client: TrainingClient) -> AsyncGenerator[FactLog]:
    async with following(nats_server.url, "training_job", client.project) as followed:
        yield followed


@pytest.fixture
def type_in(
    service: ServiceProcess, client: TrainingClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Type:
    """Types a command of `finemesh`, which talks to the service; returns how it ended."""
    token = tmp_path / "token"
    token.write_text(service.key.mint("tester", Role.OPERATOR, [client.project], 600))
    token.chmod(0o600)
    said = ["--server", service.address, "--project", client.project, "--token-file", str(token)]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(context.out, "_width", 200)  # it asked for its width when it was imported

    def run(*words: str, code: int = 0) -> Result:
        context.options.__init__()  # as in a process of its own
        monkeypatch.setattr(context.options, "_connection", None)
        done = CliRunner().invoke(app, [*words, *said])
        assert done.exit_code == code, f"{done.output} {done.exception!r}"
        return done

    return run
