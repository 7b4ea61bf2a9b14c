"""Whether the process beside it serves: `python -m finemesh.chassis.probe`, the health check of containers.

Reads the same environment as the service: `FINEMESH_SERVICE_PORT` on loopback, and `FINEMESH_CLIENT_TLS_…`
where the service speaks TLS. The exit code is 0 if it is SERVING.
"""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from finemesh.chassis.client_channel import channel
from finemesh.chassis.config import from_environ
from finemesh.chassis.tls import ClientTls
from finemesh.core.errors import FinemeshError

_TIMEOUT_SECONDS = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeConfig:
    """What the probe reads from the environment of its service."""

    service_port: int
    client_tls: ClientTls | None = None


async def probe(config: ProbeConfig) -> str:
    """The health of the whole process; how it failed if it does not answer."""
    async with channel(f"localhost:{config.service_port}", None, config.client_tls) as to_service:
        stub: Any = health_pb2_grpc.HealthStub(to_service)
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=_TIMEOUT_SECONDS)
        except grpc.RpcError as error:
            return str(error.code().name)  # pyright: ignore[reportAttributeAccessIssue]  every AioRpcError has it
    return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


def main() -> int:
    """Print what was found; the exit code."""
    try:
        found = asyncio.run(probe(from_environ(ProbeConfig, os.environ)))
    except FinemeshError as error:
        found = str(error)
    sys.stdout.write(found + "\n")
    return 0 if found == "SERVING" else 1


if __name__ == "__main__":
    sys.exit(main())
