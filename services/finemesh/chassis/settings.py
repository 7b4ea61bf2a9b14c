"""Where the broker and the object store are, for whoever reads it from its environment.

Apart from what is built on them: the processes of Ray know the store, and load neither SQL nor NATS.
"""

from __future__ import annotations

from dataclasses import dataclass

from finemesh.chassis.config import Secret


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
