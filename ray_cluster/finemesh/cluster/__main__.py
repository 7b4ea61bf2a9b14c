"""The process of the cluster agent: `python -m finemesh.cluster`, configured by FINEMESH_… variables."""

from __future__ import annotations

import asyncio
import os

from finemesh.chassis.auth import SigningKey, TokenVerifier
from finemesh.chassis.bus import BusConfig, NatsEventBus
from finemesh.chassis.config import from_environ
from finemesh.chassis.grpc_server import GrpcServer, run_service, serve
from finemesh.cluster.agent import Agent
from finemesh.cluster.config import AgentConfig
from finemesh.cluster.head import RayHead


async def run(stop: asyncio.Event, config: AgentConfig) -> None:
    """Serve the cluster until `stop` is set."""
    key = SigningKey.load(config.jwt_key_file)
    nats = config.nats
    bus = NatsEventBus(
        BusConfig(
            servers=nats.servers,
            client_name=f"finemesh-agent-{config.cluster_id}",
            nkey_seed_path=nats.nkey_seed_path,
            ca_path=nats.ca_path,
            replicas=nats.replicas,
        )
    )
    agent = Agent(config, key, bus, RayHead.of_environment(config.ray_address))
    checks = {"ray": agent.check_ray, "nats": bus.check_ready}
    server = GrpcServer(config.service, TokenVerifier.of(key), checks=checks)
    try:
        await bus.start()
        await serve(server, stop, agent.consume(), agent.work(), agent.synchronise())
    finally:
        await agent.close()
        await bus.close()


def main() -> None:
    run_service("agent", _run_from_environment, os.environ.get("FINEMESH_LOG_LEVEL", "INFO"))


async def _run_from_environment(stop: asyncio.Event) -> None:
    await run(stop, from_environ(AgentConfig, os.environ))


if __name__ == "__main__":
    main()
