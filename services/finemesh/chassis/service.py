"""The frame that all services share: configuration, adapters, and a process that serves.

    async def main(stop: asyncio.Event) -> None:
        config = from_environ(TrainingConfig, os.environ)
        async with foundation("training", config, CHASSIS) as base:
            server = base.server()
            server.add(add_TrainingServiceServicer_to_server, servicer)
            await serve(server, stop, base.relay.run(), scheduler.run())

A service starts and stays up while NATS or S3 are away: health then says so, and what it has to say waits in
the outbox.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio

from finemesh.chassis.auth import SigningKey, TokenVerifier
from finemesh.chassis.bus import BusConfig, NatsEventBus
from finemesh.chassis.client_channel import channel
from finemesh.chassis.config import Secret
from finemesh.chassis.grpc_server import GrpcServer, ServerConfig
from finemesh.chassis.migrations import migrate
from finemesh.chassis.outbox import Outbox, Relay
from finemesh.chassis.s3 import S3Config, S3ObjectStore
from finemesh.chassis.sql import Database
from finemesh.chassis.tables import ChassisTables
from finemesh.chassis.tls import ClientTls
from finemesh.core.errors import FinemeshError


@dataclass(frozen=True, slots=True, kw_only=True)
class NatsSettings:
    """The broker, as `BusConfig` says.

    Attributes:
        servers: addresses such as `nats://127.0.0.1:4222` or `tls://…`.
        nkey_seed_path: file with this process's nkey seed; empty for a broker without accounts.
        ca_path: certificates to trust for `tls://`; empty for the system's.
        replicas: copies of each stream in a NATS cluster.
    """

    servers: tuple[str, ...] = ("nats://127.0.0.1:4222",)
    nkey_seed_path: str = ""
    ca_path: str = ""
    replicas: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Settings:
    """The object store, as `S3Config` says.

    Attributes:
        endpoint: `http(s)://host:port`.
        bucket: made if it is not there.
        region: that URLs are signed for.
        access_key: of a user who may do everything in the bucket.
        secret_key: of the same user.
    """

    endpoint: str = "http://127.0.0.1:8333"
    bucket: str = "finemesh"
    region: str = "us-east-1"
    access_key: Secret
    secret_key: Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceConfig:
    """What every service reads from its environment; a service adds its own fields.

    Attributes:
        service: where it listens.
        database_url: SQLAlchemy URL of its own database; it may hold a password.
        nats: the broker.
        s3: the object store.
        public_endpoint: URL of the gateway, for which presigned URLs are signed.
        jwt_key_file: the key that signs and verifies bearer tokens.
        client_tls: certificates for calls to other services; None for plain text on loopback.
        lease_seconds: how long an attempt may go without a renewal.
        log_level: DEBUG, INFO, WARNING or ERROR.
    """

    service: ServerConfig = field(default_factory=ServerConfig)
    database_url: Secret
    nats: NatsSettings = field(default_factory=NatsSettings)
    s3: S3Settings
    public_endpoint: str = ""
    jwt_key_file: Path
    client_tls: ClientTls | None = None
    lease_seconds: float = 20.0
    log_level: str = "INFO"


class Foundation:
    """The adapters of one service. Made by `foundation`, which also starts and closes them."""

    def __init__(self, name: str, config: ServiceConfig, tables: ChassisTables) -> None:
        self.name = name
        self.config = config
        self.key = SigningKey.load(config.jwt_key_file)
        self.db = Database(config.database_url.reveal())
        nats = config.nats
        self.bus = NatsEventBus(
            BusConfig(
                servers=nats.servers,
                client_name=f"finemesh-{name}",
                nkey_seed_path=nats.nkey_seed_path,
                ca_path=nats.ca_path,
                replicas=nats.replicas,
            )
        )
        self.outbox = Outbox(tables)
        self.relay = Relay(self.outbox, self.db, self.bus)
        self.objects = S3ObjectStore(
            S3Config(
                endpoint=config.s3.endpoint,
                access_key=config.s3.access_key.reveal(),
                secret_key=config.s3.secret_key,
                bucket=config.s3.bucket,
                region=config.s3.region,
                public_endpoint=config.public_endpoint or None,
            )
        )

    def server(self) -> GrpcServer:
        """A server that is ready when SQL, NATS and S3 are."""
        checks = {
            "sql": self.db.check_ready,
            "nats": self.bus.check_ready,
            "s3": self.objects.ensure_bucket,
        }
        return GrpcServer(self.config.service, TokenVerifier.of(self.key), checks=checks)

    def channel(self, address: str) -> grpc.aio.Channel:
        """A channel to another service, under this service's own identity. Close it when done."""
        return channel(address, self.key.token_source(f"finemesh-{self.name}"), self.config.client_tls)


@contextlib.asynccontextmanager
async def foundation(name: str, config: ServiceConfig, tables: ChassisTables) -> AsyncGenerator[Foundation]:
    """The adapters of service `name`, its database at the newest schema and NATS being connected to.

    Raises:
        FinemeshError: a key that cannot be read, a database that is away or newer than this release.
    """
    base = Foundation(name, config, tables)
    try:
        await migrate(base.db, f"finemesh.{name}")
        await base.bus.start()
        yield base
    finally:
        await base.bus.close()
        base.objects.close()
        await base.db.close()


async def serve(server: GrpcServer, stop: asyncio.Event, *background: Coroutine[Any, Any, None]) -> None:
    """Serve, with the loops of the service beside, until `stop` is set.

    Raises what ends a loop before that: a service without its loops would look alive and do nothing.
    """
    loops = [asyncio.create_task(loop, name=loop.__qualname__) for loop in background]
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        await server.start()
        ended, _ = await asyncio.wait([stopping, *loops], return_when=asyncio.FIRST_COMPLETED)
        for task in ended - {stopping}:
            task.result()
            raise FinemeshError(f"the loop {task.get_name()} has ended by itself", reason="LOOP_ENDED")
        await server.stop()
    finally:
        for task in (stopping, *loops):
            task.cancel()
        await asyncio.gather(stopping, *loops, return_exceptions=True)
