"""What the gateway has to know: one frozen dataclass, units in names."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final

from finemesh.core.errors import PreconditionError

PUBLIC_SERVICES: Final = {
    "dataprep": "finemesh.v1.DataPrepService",
    "training": "finemesh.v1.TrainingService",
    "tracking": "finemesh.v1.TrackingService",
    "export": "finemesh.v1.ExportService",
}
"""The gRPC service of each upstream. What is not here, such as AttemptService, is closed to the outside."""

BESIDE: Final = {
    "finemesh.v1.TrackingService": ("finemesh.v1.EvaluationService", "finemesh.v1.AlertService"),
    "finemesh.v1.TrainingService": (
        "finemesh.v1.SweepService",
        "finemesh.v1.QuotaService",
        "finemesh.v1.WorkerService",
    ),
}
"""Further public services of the same server."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """A gRPC server behind the gateway: `service` is the full name of its first one, `address` host:port."""

    name: str
    service: str
    address: str

    @property
    def services(self) -> tuple[str, ...]:
        """Full names of all public services of the server."""
        return (self.service, *BESIDE.get(self.service, ()))


@dataclass(frozen=True, slots=True)
class ObjectStore:
    """The S3 server behind the gateway: `address` is host:port. Only presigned requests to `bucket` pass."""

    address: str
    bucket: str


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files of the listener's certificate."""

    certificate_chain: Path
    private_key: Path


@dataclass(frozen=True, slots=True)
class UpstreamTls:
    """PEM files for the way to the services: the authority that signed their certificates, and the
    certificate and key that the gateway shows them.
    """

    authority: Path
    certificate_chain: Path
    private_key: Path


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """Input of the generator.

    Attributes:
        upstreams: the first one answers reflection and health checks that name no service.
        jwks_path: JSON Web Key Set that verifies bearer tokens (RFC 7517); HS256 keys are of type `oct`.
        cors_origins: exact origins that browsers may call from. Empty: no cross-origin calls at all.
        unary_timeout_seconds: upper limit of a unary call; a shorter `grpc-timeout` of the caller wins.
        stream_idle_seconds: a stream on which nothing moves for so long is ended.
        max_request_bytes: limit of a request outside streams and presigned uploads, which S3 limits itself.
    """

    host: str
    port: int
    upstreams: tuple[Upstream, ...]
    jwks_path: Path
    descriptor_set_path: Path
    access_log_path: Path
    object_store: ObjectStore | None = None
    tls: Tls | None = None
    upstream_tls: UpstreamTls | None = None
    cors_origins: tuple[str, ...] = ()
    issuer: str = "finemesh"
    audience: str = "finemesh"
    unary_timeout_seconds: float = 60.0
    stream_idle_seconds: float = 3600.0
    max_request_bytes: int = 16 * 1024 * 1024


def packaged_descriptor_set() -> Path:
    """The descriptor set that `make proto` puts beside this module. Raises PreconditionError without it."""
    path = Path(str(resources.files("finemesh.gateway"))) / "finemesh.binpb"
    if not path.exists():
        raise PreconditionError(
            f"{path} is missing: run `make proto`, which generates it together with the stubs",
            reason="DESCRIPTOR_SET_MISSING",
        )
    return path
