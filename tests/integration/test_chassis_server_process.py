"""A service as a process: signals, exit codes, and TLS with certificates on both sides."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from finemesh.chassis.auth import SigningKey, TokenVerifier
from finemesh.chassis.client_channel import channel
from finemesh.chassis.grpc_server import GrpcServer, ServerConfig
from finemesh.chassis.tls import ClientTls, ServerTls
from finemesh.core.errors import InvalidError
from grpc_health.v1 import health_pb2, health_pb2_grpc

pytestmark = pytest.mark.integration

PROGRAM = """
import asyncio, os, sys
from finemesh.chassis.auth import SigningKey, TokenVerifier
from finemesh.chassis.config import from_environ
from finemesh.chassis.grpc_server import GrpcServer, ServerConfig, run_service

async def main(stop):
    config = from_environ(ServerConfig, os.environ, prefix="FINEMESH_SERVER_")
    server = GrpcServer(config, TokenVerifier.of(SigningKey.generate()), reflected_packages=())
    await server.start()
    if sys.argv[1] == "crash":
        raise RuntimeError("no good")
    if sys.argv[1] == "stuck":
        await asyncio.Event().wait()
    await stop.wait()
    await server.stop()

run_service("probe", main, "INFO")
"""


Start = Callable[..., Awaitable[asyncio.subprocess.Process]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts the program in a mode and an environment; what a failed test leaves running is killed."""
    processes: list[asyncio.subprocess.Process] = []

    async def start(mode: str, **environ: str) -> asyncio.subprocess.Process:
        processes.append(
            await asyncio.create_subprocess_exec(
                sys.executable, "-c", PROGRAM, mode, stderr=asyncio.subprocess.PIPE, env=environ
            )
        )
        return processes[-1]

    yield start
    for process in processes:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def line_of(process: asyncio.subprocess.Process, event: str) -> dict[str, Any]:
    """The next JSON log line of this event. Fails at the end of the log."""
    assert process.stderr
    async for line in process.stderr:
        parsed: dict[str, Any] = json.loads(line)
        if parsed["event"] == event:
            return parsed
    raise AssertionError(f"no {event} in the log")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_a_service_in_order(start: Start, number: signal.Signals) -> None:
    process = await start("serve")
    listening = await line_of(process, "listening")
    async with channel(listening["address"], None) as made:
        health: Any = health_pb2_grpc.HealthStub(made)
        answer = await health.Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    process.send_signal(number)
    assert (await line_of(process, "stopping"))["signal"] == number.name
    assert await process.wait() == 0


async def test_a_second_signal_ends_a_service_that_hangs(start: Start) -> None:
    process = await start("stuck")
    await line_of(process, "listening")
    process.send_signal(signal.SIGTERM)
    await line_of(process, "stopping")
    assert process.returncode is None
    process.send_signal(signal.SIGTERM)
    await line_of(process, "stopped_by_force")
    assert await process.wait() == 1


async def test_a_crash_is_logged_with_its_traceback(start: Start) -> None:
    process = await start("crash")
    assert "RuntimeError: no good" in (await line_of(process, "crashed"))["exception"]
    assert await process.wait() == 1


async def test_a_wrong_configuration_is_told_from_a_crash(start: Start) -> None:
    process = await start("serve", FINEMESH_SERVER_HOST="0.0.0.0", FINEMESH_SERVER_PORT="x")
    line = await line_of(process, "cannot_run")
    assert (line["reason"], line["service"]) == ("BAD_CONFIG", "probe")
    assert "FINEMESH_SERVER_PORT: is 'x': set it to a whole number" in line["message"]
    assert await process.wait() == 2


class Authority:
    """A certificate authority for one test."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        certificate = self._sign(self._name, self._key.public_key(), x509.BasicConstraints(True, None))
        self.file = self._write("ca.pem", certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str) -> tuple[Path, Path]:
        """Certificate and key files for `name` at 127.0.0.1."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        here = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
        certificate = self._sign(subject, key.public_key(), here)
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return (
            self._write(f"{name}.pem", certificate.public_bytes(serialization.Encoding.PEM)),
            self._write(f"{name}.key", pem),
        )

    def _sign(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, extension: x509.ExtensionType
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .issuer_name(self._name)
            .subject_name(subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(extension, critical=True)
            .sign(self._key, hashes.SHA256())
        )

    def _write(self, name: str, pem: bytes) -> Path:
        path = self._folder / name
        path.write_bytes(pem)
        return path


async def serves(address: str, tls: ClientTls | None) -> bool:
    async with channel(address, None, tls) as made:
        health: Any = health_pb2_grpc.HealthStub(made)
        try:
            await health.Check(health_pb2.HealthCheckRequest(), timeout=20)
        except grpc.aio.AioRpcError as error:
            return error.code() != grpc.StatusCode.UNAVAILABLE
        return True


async def test_mutual_tls_lets_in_only_who_shows_a_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("server")
    tls = ServerTls(certificate_file=certificate, key_file=key, client_ca_file=authority.file)
    ServerConfig(host="0.0.0.0", tls=tls)  # with TLS the mesh may listen anywhere
    server = GrpcServer(
        ServerConfig(tls=tls, grace_seconds=0), TokenVerifier.of(SigningKey.generate()), reflected_packages=()
    )
    await server.start()
    own_certificate, own_key = authority.issue("client")
    client = ClientTls(ca_file=authority.file, certificate_file=own_certificate, key_file=own_key)
    assert await serves(server.address, client)
    assert not await serves(server.address, ClientTls(ca_file=authority.file))
    assert not await serves(server.address, None)
    await server.stop()


async def test_a_missing_certificate_is_named(tmp_path: Path) -> None:
    tls = ServerTls(certificate_file=tmp_path / "no.pem", key_file=tmp_path / "no.key")
    server = GrpcServer(ServerConfig(tls=tls), TokenVerifier.of(SigningKey.generate()), reflected_packages=())
    with pytest.raises(InvalidError, match=r"no\.key") as caught:
        await server.start()
    assert caught.value.reason == "NO_TLS_FILE"
