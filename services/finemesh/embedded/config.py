"""What `finemesh up` can be told."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from finemesh.chassis.auth import SigningKey
from finemesh.core.errors import InvalidError, PreconditionError
from finemesh.embedded.state import DEFAULT_DATA_DIR
from finemesh.gateway import Tls

_MEBIBYTE: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class MeshConfig:
    """Input of `Mesh`.

    Attributes:
        data_dir: folder of everything the mesh keeps; made if missing.
        port: port of the gateway; 0 takes the one of the last start if it is free, or else any.
        public_host: name by which others reach the gateway; needed when `host` is a wildcard.
        jwt_key_file: signing key to use in place of the one that is made on the first start.
        services: False starts NATS, S3, Ray and the gateway alone.
        cpus: logical CPUs that Ray may hand out; None lets Ray count.
        gpus: GPUs that Ray may hand out; None lets Ray count.
        warm_workers: workers that wait with everything imported; each takes some hundred MB.
        object_store_bytes: limit of Ray's shared memory, which is taken only as it is used.
        lease_seconds: how long an attempt of a job may go without a renewal.
        ready_timeout_seconds: how long `start` waits for all components.
    """

    data_dir: Path = DEFAULT_DATA_DIR
    host: str = "127.0.0.1"
    port: int = 0
    public_host: str = ""
    tls: Tls | None = None
    jwt_key_file: Path | None = None
    services: bool = True
    cpus: int | None = None
    gpus: int | None = None
    warm_workers: int = 0
    object_store_bytes: int = 200 * _MEBIBYTE
    lease_seconds: float = 20.0
    log_level: str = "INFO"
    bucket: str = "finemesh"
    cluster_id: str = "local"
    ready_timeout_seconds: float = 120.0
    environment: dict[str, str] = field(default_factory=dict[str, str])
    """Further variables for the services and the agent, e.g. shorter intervals in tests."""


def check_exposure(config: MeshConfig) -> None:
    """Refuse to open the gateway to other machines without TLS and a key of the operator's own.

    Raises:
        PreconditionError: reason INSECURE_BIND, naming everything that is missing.
        InvalidError: the certificate or the key file cannot be used.
    """
    if config.tls:
        _check_certificate(config.tls)
    if config.jwt_key_file:
        SigningKey.load(config.jwt_key_file)
    if is_loopback(config.host):
        return
    missing = [
        *([] if config.tls else ["a certificate (--tls-certificate and --tls-key)"]),
        *([] if config.jwt_key_file else ["a signing key of your own (--jwt-key-file)"]),
    ]
    if _is_wildcard(config.host) and not config.public_host:
        missing.append("the name that clients will use (--public-host)")
    if missing:
        raise PreconditionError(
            f"refusing to listen on {config.host}, where other machines can connect, without "
            f"{' and '.join(missing)}; or listen on 127.0.0.1",
            reason="INSECURE_BIND",
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`. A name counts only if it is `localhost`."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_wildcard(host: str) -> bool:
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False


def _check_certificate(tls: Tls) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tls.certificate_chain, tls.private_key)
    except (OSError, ssl.SSLError) as error:
        raise InvalidError(
            f"the certificate {tls.certificate_chain} with the key {tls.private_key} cannot be used: {error}",
            reason="BAD_CERTIFICATE",
        ) from error
