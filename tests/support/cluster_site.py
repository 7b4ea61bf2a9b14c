"""A cluster agent with everything around it: Ray, NATS, S3, and services that are scripted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from finemesh.chassis.auth import SigningKey
from finemesh.chassis.bus import BusConfig, NatsEventBus
from finemesh.chassis.config import Secret
from finemesh.chassis.events import command_message
from finemesh.chassis.s3 import S3Config, S3ObjectStore

from tests.support.ray_head import RayHeadProcess, agent_command
from tests.support.scripted_mesh import CLUSTER, HeldAttempt, ScriptedMesh, until
from tests.support.servers import NatsServer, S3Server, ServerProcess

LEASE_SECONDS = 10.0


class Site:
    """The agent, with everything around it."""

    def __init__(
        self,
        folder: Path,
        mesh: ScriptedMesh,
        nats: NatsServer,
        s3: S3Server,
        ray: RayHeadProcess,
        *,
        program: Sequence[str] = ("-m", "finemesh.cluster"),
        **settings: str,
    ) -> None:
        """`program` is what Python is told, `settings` further ones of the agent by their variables."""
        self.mesh, self.ray = mesh, ray
        self.data_dir = folder / "data"
        self.log_path = folder / "agent.log"
        self.objects = S3ObjectStore(
            S3Config(
                endpoint=f"http://{s3.endpoint}",
                access_key=s3.access_key,
                secret_key=Secret(s3.secret_key),
                bucket=s3.bucket,
            )
        )
        self.bucket = s3.bucket
        self.bus = NatsEventBus(BusConfig(servers=(nats.url,), client_name="test"))
        key_file = folder / "jwt.key"
        SigningKey.load_or_create(key_file)
        service = mesh.address("service")
        self._agent = ServerProcess(
            agent_command(
                {
                    **ray.environment,
                    "FINEMESH_SERVICE_HEALTH_INTERVAL_SECONDS": "0.2",
                    "FINEMESH_NATS_SERVERS": nats.url,
                    "FINEMESH_S3_ENDPOINT": f"http://{s3.endpoint}",
                    "FINEMESH_S3_BUCKET": s3.bucket,
                    "FINEMESH_S3_ACCESS_KEY": s3.access_key,
                    "FINEMESH_S3_SECRET_KEY": s3.secret_key,
                    "FINEMESH_JWT_KEY_FILE": str(key_file),
                    "FINEMESH_CLUSTER_ID": CLUSTER,
                    "FINEMESH_RAY_ADDRESS": ray.address,
                    **{f"FINEMESH_{name}_ADDRESS": service for name in ("DATAPREP", "TRAINING", "EXPORT")},
                    "FINEMESH_TRACKING_ADDRESS": mesh.address("tracking"),
                    "FINEMESH_DATA_DIR": str(self.data_dir),
                    "FINEMESH_LEASE_SECONDS": str(LEASE_SECONDS),
                    "FINEMESH_SYNC_SECONDS": "0.2",
                    **settings,
                },
                program,
            ),
            folder,
            self.log_path,
        )

    async def start_agent(self) -> None:
        """Start, and wait until it says that it has Ray."""
        seen = len(self.mesh.syncs)
        self._agent.start()
        await until(lambda: any(sync.capacity.nodes for sync in self.mesh.syncs[seen:]), "the agent's Ray")

    def kill_agent(self) -> None:
        self._agent.kill()

    async def send(self, held: HeldAttempt) -> None:
        """Publish the command of an attempt; every call is a message of its own."""
        payload = held.command.SerializeToString()
        await self.bus.publish(command_message(CLUSTER, held.ref.resource, payload, "finemesh.v1.Command"))

    def named(self) -> set[tuple[str, int]]:
        """The attempts that the agent's last two rounds of reports name; it reports to three services."""
        return {(each.resource, each.attempt) for sync in self.mesh.syncs[-6:] for each in sync.attempts}

    @property
    def cpus_free(self) -> float:
        return self.mesh.syncs[-1].capacity.cpus_free

    def log_lines(self, event: str) -> int:
        return self.log_path.read_text().count(f'"event": "{event}"')

    async def close(self) -> None:
        self._agent.kill()
        await self.bus.close()
        self.objects.close()
