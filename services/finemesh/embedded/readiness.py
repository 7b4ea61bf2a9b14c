"""Readiness checks: each returns "" when its component can be used, or else says why not yet."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

ReadyCheck = Callable[[], Awaitable[str]]

_TIMEOUT_SECONDS: Final = 2.0


def nats_ready(port: int) -> ReadyCheck:
    """nats-server greets with its INFO once it serves clients."""

    async def check() -> str:
        greeting = await _exchange("127.0.0.1", port, b"")
        return "" if greeting.startswith(b"INFO") else f"no greeting on port {port}"

    return check


def http_ready(host: str, port: int, path: str, status: int, *, tls: bool = False) -> ReadyCheck:
    """An HTTP server that answers GET `path` with `status`. Its certificate is not checked: it is ours."""
    request = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode()
    context = ssl.create_default_context() if tls else None
    if context:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE

    async def check() -> str:
        line = (await _exchange(host, port, request, context)).split(b"\r\n", 1)[0].decode(errors="replace")
        return "" if f" {status} " in f"{line} " else f"GET {path} on port {port}: {line or 'no answer'}"

    return check


def file_ready(path: Path, content: str) -> ReadyCheck:
    """A program that writes `content` to `path` once it is ready."""

    async def check() -> str:
        return "" if _read(path) == content else f"has not written {path} yet"

    return check


def grpc_ready(address: str, service: str = "") -> ReadyCheck:
    """A gRPC server on host:port whose health (grpc.health.v1) for `service` is SERVING."""

    async def check() -> str:
        async with grpc.aio.insecure_channel(address) as channel:
            try:
                request = health_pb2.HealthCheckRequest(service=service)
                stub: Any = health_pb2_grpc.HealthStub(channel)
                answer = await stub.Check(request, timeout=_TIMEOUT_SECONDS)
            except grpc.aio.AioRpcError as error:
                return f"{error.code().name}: {error.details()}"
        name = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        return "" if answer.status == health_pb2.HealthCheckResponse.SERVING else f"health is {name}"

    return check


async def _exchange(host: str, port: int, request: bytes, tls: ssl.SSLContext | None = None) -> bytes:
    """Send `request`, return the first bytes that come back; empty if nobody listens or answers in time."""
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            reader, writer = await asyncio.open_connection(host, port, ssl=tls)
            try:
                writer.write(request)
                await writer.drain()
                return await reader.read(1024)
            finally:
                writer.close()
                await writer.wait_closed()
    except (OSError, TimeoutError):
        return b""


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
