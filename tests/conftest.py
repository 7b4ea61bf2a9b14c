"""Shared fixtures: free ports and real servers. The servers themselves are in tests/support/servers.py."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.servers import NatsServer, S3Server, free_ports

# How long an example takes is up to the machine; that none hangs is seen to by pytest's time-out. What a test
# tries follows from the test alone, so a change is judged by what it changed; `make soak` looks for more.
_PATIENT = settings(deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("finemesh", _PATIENT, derandomize=True)
settings.register_profile("search", _PATIENT)
settings.load_profile("finemesh")

# A shell has its background jobs ignore Ctrl-C, which the programs that our tests start would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def free_port() -> int:
    return free_ports(1)[0]


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """One nats-server with JetStream for the whole session. Tests use subjects and streams of their own."""
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    try:
        yield server.start()
    finally:
        server.kill()


@pytest.fixture
def start_nats(tmp_path: Path) -> Iterator[Callable[[], NatsServer]]:
    """Starts nats-servers that a test may kill."""
    servers: list[NatsServer] = []

    def start() -> NatsServer:
        servers.append(NatsServer(tmp_path / f"nats{len(servers)}"))
        return servers[-1].start()

    yield start
    for server in servers:
        server.kill()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One SeaweedFS for the whole session. Tests use key prefixes of their own in one bucket."""
    server = S3Server(tmp_path_factory.mktemp("s3"))
    try:
        yield server.start()
    finally:
        server.kill()


@pytest.fixture
def start_s3(tmp_path: Path) -> Iterator[Callable[[], S3Server]]:
    """Starts SeaweedFS servers that a test may kill."""
    servers: list[S3Server] = []

    def start() -> S3Server:
        servers.append(S3Server(tmp_path / f"s3-{len(servers)}"))
        return servers[-1].start()

    yield start
    for server in servers:
        server.kill()
