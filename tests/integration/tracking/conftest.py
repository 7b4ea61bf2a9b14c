"""A Tracking service for the module, one to kill, callers, and the bus."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator
from pathlib import Path

import pytest
from finemesh.chassis.auth import Role
from finemesh.chassis.bus import BusConfig, NatsEventBus
from finemesh.core.errors import UnavailableError

from tests.support.servers import PATIENCE_SECONDS, NatsServer
from tests.support.services import ServiceProcess
from tests.support.tracking import Client, tracking_process


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Generator[NatsServer]:
    """A broker of our own: every Tracking service reads under the same durable name."""
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    yield server.start()
    server.kill()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, nats: NatsServer) -> Generator[ServiceProcess]:
    process = tracking_process(tmp_path_factory.mktemp("tracking"), nats)
    yield process.start()
    process.stop()


@pytest.fixture
def own(tmp_path: Path, nats: NatsServer) -> Generator[ServiceProcess]:
    """A process that a test starts and may kill."""
    process = tracking_process(tmp_path, nats)
    yield process
    process.kill()


@pytest.fixture
async def bus(nats: NatsServer) -> AsyncGenerator[NatsEventBus]:
    bus = NatsEventBus(BusConfig(servers=(nats.url,), client_name="test"))
    await bus.start()
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                await bus.check_ready()
                break
            except UnavailableError:
                await asyncio.sleep(0.05)
    yield bus
    await bus.close()


@pytest.fixture
async def clients(service: ServiceProcess) -> AsyncGenerator[Callable[..., Client]]:
    """Makes callers: `clients(role, projects)`, or `clients(job=…, attempt=…, fence=…)` for an attempt."""
    opened: list[Client] = []

    def make(
        role: Role = Role.OPERATOR,
        projects: tuple[str, ...] = ("p",),
        *,
        job: str = "",
        attempt: int = 0,
        fence: int = 0,
        ttl_seconds: float = 600,
        of: ServiceProcess = service,
    ) -> Client:
        if job:
            token = of.key.mint_attempt(
                resource=job,
                attempt=attempt,
                fence=fence,
                project=job.split("/")[1],
                ttl_seconds=ttl_seconds,
            )
        else:
            token = of.key.mint("tester", role, projects, ttl_seconds)
        opened.append(Client(of, token))
        return opened[-1]

    yield make
    for client in opened:
        await client.channel.close()
