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

import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path

import grpc.aio

from finemesh.chassis.auth import SigningKey, TokenVerifier
from finemesh.chassis.bus import BusConfig, NatsEventBus
from finemesh.chassis.client_channel import channel
from finemesh.chassis.config import Secret
from finemesh.chassis.grpc_server import GrpcServer, ServerConfig
from finemesh.chassis.migrations import migrate
from finemesh.chassis.outbox import Outbox, Relay
from finemesh.chassis.s3 import S3Config, S3ObjectStore
from finemesh.chassis.settings import NatsSettings, S3Settings
from finemesh.chassis.sql import Database
from finemesh.chassis.tables import ChassisTables
from finemesh.chassis.tls import ClientTls


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
