"""Configuration: what the agent reads from its environment, and what of it travels to the actors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

from finemesh.chassis.grpc_server import ServerConfig
from finemesh.chassis.s3 import S3Config
from finemesh.chassis.settings import NatsSettings, S3Settings
from finemesh.chassis.tls import ClientTls
from finemesh.core.errors import InvalidError
from finemesh.package.signing import load_key

# Which service a resource belongs to, by its collection.
SERVICE_OF: Final[Mapping[str, str]] = MappingProxyType(
    {"datasets": "dataprep", "trainingJobs": "training", "exports": "export"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentConfig:
    """The agent's environment, `FINEMESH_` and the field's name in capitals.

    Attributes:
        service: where the agent answers health checks.
        nats: the broker.
        s3: the object store.
        jwt_key_file: signs the agent's own tokens. It never leaves the agent.
        client_tls: certificates for calls to the services; None for plain text on loopback.
        cluster_id: the name under which services give work to this cluster.
        ray_address: host:port of Ray's head.
        dataprep_address, training_address, tracking_address, export_address: host:port of each service.
        data_dir: ledger, spools and scratch. With several Ray nodes: the same path on each, spools and
            scratch local to the node.
        prepared_dir: where encoded datasets are kept for the next attempt or job, local to the node; within
            `data_dir` if it is relative.
        prepared_gb: how much of them is kept, in GB of 10^9 bytes; the least recently used go first, and with
            0 none is kept.
        spool_gb: how much of the metrics of an attempt waits on disk while Tracking is away, in GB of 10^9
            bytes; as it fills up they become coarser. 0: no limit.
        warm_workers: how many workers wait on each node of Ray with everything imported that a training
            needs; each takes some hundred MB, which the cluster reports.
        warm_refill_seconds: how long after one of them was given away the next one is made: its imports keep
            a core busy, which the training that has just begun needs more.
        local_pool: start and stop further nodes of Ray on this machine, as operators ask for.
        lease_seconds: how long an attempt may go without a renewal, until the service says otherwise.
        worker_timeout_seconds: how long a worker may leave unanswered whether it is there; then it counts as
            hung, is killed, and another attempt begins. Loading a model or compiling does not keep it from
            answering.
        sync_seconds: how often the inventory is compared with each service.
        allow_open_ray: work also on a Ray cluster that takes clients without a token.
        signing_key_file: an Ed25519 key (PEM) that every package is signed with; the same path on each node.
            Packages are not signed without one.
        apart_python: the interpreter of models that are trained in a process of their own, as those of YOLO;
            the same path on each node. By default the one that the workers run in.
        log_level: DEBUG, INFO, WARNING or ERROR.
    """

    service: ServerConfig = field(default_factory=ServerConfig)
    nats: NatsSettings = field(default_factory=NatsSettings)
    s3: S3Settings
    jwt_key_file: Path
    client_tls: ClientTls | None = None
    cluster_id: str
    ray_address: str
    dataprep_address: str
    training_address: str
    tracking_address: str
    export_address: str
    data_dir: Path
    prepared_dir: Path = Path("prepared")
    prepared_gb: float = 20.0
    spool_gb: float = 1.0
    warm_workers: int = 0
    warm_refill_seconds: float = 20.0
    local_pool: bool = False
    lease_seconds: float = 20.0
    worker_timeout_seconds: float = 600.0
    sync_seconds: float = 3.0
    allow_open_ray: bool = False
    signing_key_file: Path | None = None
    apart_python: Path | None = None
    log_level: str = "INFO"

    def __post_init__(self) -> None:
        if not self.cluster_id:
            raise InvalidError.of("cluster_id", "name the cluster, as the services know it")
        if not self.prepared_gb >= 0:
            raise InvalidError.of("prepared_gb", "must not be negative; 0 keeps nothing")
        if not self.spool_gb >= 0:
            raise InvalidError.of("spool_gb", "must not be negative; 0 sets no limit")
        if self.warm_workers < 0:
            raise InvalidError.of("warm_workers", "must not be negative; 0 keeps none ready")
        if not self.worker_timeout_seconds > 0:
            raise InvalidError.of("worker_timeout_seconds", "must be positive: every worker would be late")
        if self.signing_key_file:  # else the first package would find out, once it is made
            load_key(self.signing_key_file)

    def site(self) -> Site:
        """The part that actors need."""
        return Site(
            cluster=self.cluster_id,
            data_dir=self.data_dir.resolve(),
            prepared_dir=(self.data_dir / self.prepared_dir).resolve(),
            prepared_bytes=int(self.prepared_gb * 1e9),
            spool_bytes=int(self.spool_gb * 1e9),
            addresses={
                "dataprep": self.dataprep_address,
                "training": self.training_address,
                "tracking": self.tracking_address,
                "export": self.export_address,
            },
            s3=S3Config(
                endpoint=self.s3.endpoint,
                access_key=self.s3.access_key.reveal(),
                secret_key=self.s3.secret_key,
                bucket=self.s3.bucket,
                region=self.s3.region,
            ),
            client_tls=self.client_tls,
            signing_key_file=self.signing_key_file,
            apart_python=self.apart_python,
            lease_seconds=self.lease_seconds,
            worker_timeout_seconds=self.worker_timeout_seconds,
            log_level=self.log_level,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What supervisors and workers know of their surroundings. `addresses` maps a service to host:port.

    Travels to them as an argument, through a Ray that takes no client without its token.
    """

    cluster: str
    data_dir: Path
    addresses: Mapping[str, str]
    s3: S3Config
    client_tls: ClientTls | None = None
    signing_key_file: Path | None = None
    apart_python: Path | None = None
    prepared_dir: Path = Path("prepared")
    prepared_bytes: int = 0
    spool_bytes: int = 0
    lease_seconds: float = 20.0
    worker_timeout_seconds: float = 600.0
    log_level: str = "INFO"

    @property
    def spool_dir(self) -> Path:
        """One folder per training job, one file per attempt."""
        return self.data_dir / "spool"

    @property
    def log_dir(self) -> Path:
        """One folder per training job, one file per attempt."""
        return self.data_dir / "logs"

    @property
    def shared_dir(self) -> Path:
        """What the exports of a checkpoint on this node share, see `finemesh.package.shared`."""
        return self.data_dir / "shared"

    @property
    def scratch_dir(self) -> Path:
        """One folder per attempt, removed with it."""
        return self.data_dir / "scratch"
