"""Services of ours as processes, for tests that talk to them over gRPC and kill them."""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from finemesh.chassis.auth import SigningKey
from finemesh.chassis.config import Secret
from finemesh.chassis.s3 import S3Config, S3ObjectStore
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.support.servers import NatsServer, S3Server, ServerProcess, free_ports, wait_until


@dataclass
class ServiceProcess:
    """`python -m finemesh.<name>` on a free port, with its database in `folder`.

    `kill` and `start` again keep the port and the database.
    """

    name: str
    folder: Path
    nats: NatsServer
    s3: S3Server
    settings: dict[str, str] = field(default_factory=dict[str, str])
    port: int = field(default_factory=lambda: free_ports(1)[0])
    database_url: str = ""
    _process: ServerProcess | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Of the process, which has been started."""
        assert self._process
        assert self._process.process
        return self._process.process.pid

    @property
    def key(self) -> SigningKey:
        """The key that signs the tokens of this mesh."""
        return SigningKey.load_or_create(self.folder / "jwt.key")

    @property
    def log_path(self) -> Path:
        return self.folder / f"{self.name}.log"

    def start(self, *, ready: bool = True) -> ServiceProcess:
        """Start, and wait until it listens; with `ready` also until its dependencies answer."""
        self.folder.mkdir(parents=True, exist_ok=True)
        variables = [f"{name}={value}" for name, value in self.environment().items()]
        command = ["/usr/bin/env", *variables, sys.executable, "-m", f"finemesh.{self.name}"]
        server = self._process = ServerProcess(command, self.folder, self.log_path)
        server.start()
        self.wait_ready({"SERVING"} if ready else {"SERVING", "NOT_SERVING"})
        return self

    def wait_ready(self, wanted: Collection[str] = ("SERVING",)) -> None:
        """Wait until its health is one of `wanted`."""

        def answers() -> bool:
            if self._process:
                self._process.require_running()
            return self.health() in wanted

        wait_until(answers, f"finemesh.{self.name}")

    def health(self) -> str:
        """The health of the whole process, or empty when it does not listen."""
        with grpc.insecure_channel(self.address) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            try:
                response = stub.Check(health_pb2.HealthCheckRequest(service=""), timeout=10)
            except grpc.RpcError:
                return ""
        return health_pb2.HealthCheckResponse.ServingStatus.Name(response.status)

    def object_store(self) -> S3ObjectStore:
        """The service's bucket. Close it when done."""
        return S3ObjectStore(
            S3Config(
                endpoint=f"http://{self.s3.endpoint}",
                access_key=self.s3.access_key,
                secret_key=Secret(self.s3.secret_key),
                bucket=self.s3.bucket,
            )
        )

    def kill(self) -> None:
        if self._process:
            self._process.kill()

    def stop(self) -> None:
        if self._process:
            self._process.stop()

    def environment(self) -> dict[str, str]:
        assert self.key
        return {
            "FINEMESH_SERVICE_HOST": "127.0.0.1",
            "FINEMESH_SERVICE_PORT": str(self.port),
            "FINEMESH_SERVICE_GRACE_SECONDS": "0.2",
            "FINEMESH_SERVICE_HEALTH_INTERVAL_SECONDS": "0.2",
            "FINEMESH_DATABASE_URL": self.database_url or f"sqlite:///{self.folder / 'service.db'}",
            "FINEMESH_NATS_SERVERS": self.nats.url,
            "FINEMESH_S3_ENDPOINT": f"http://{self.s3.endpoint}",
            "FINEMESH_S3_BUCKET": self.s3.bucket,
            "FINEMESH_S3_ACCESS_KEY": self.s3.access_key,
            "FINEMESH_S3_SECRET_KEY": self.s3.secret_key,
            "FINEMESH_JWT_KEY_FILE": str(self.folder / "jwt.key"),
            **self.settings,
        }
