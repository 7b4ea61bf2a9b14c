"""Write Envoy's configuration for a deployment: `python -m finemesh.gateway --output envoy.json ...`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from finemesh.core.errors import FinemeshError
from finemesh.gateway.bootstrap import write_configuration
from finemesh.gateway.config import (
    PUBLIC_SERVICES,
    GatewayConfig,
    ObjectStore,
    Tls,
    Upstream,
    UpstreamTls,
    packaged_descriptor_set,
)


def main(arguments: list[str] | None = None) -> int:
    """Parse arguments, write the file. Returns the exit code."""
    given = _parser().parse_args(arguments)
    try:
        write_configuration(_config(given), given.output)
    except (FinemeshError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


def _config(given: argparse.Namespace) -> GatewayConfig:
    tls = Tls(given.tls_certificate, given.tls_key) if given.tls_certificate else None
    upstream_tls = (
        UpstreamTls(given.upstream_ca, given.upstream_certificate, given.upstream_key)
        if given.upstream_ca
        else None
    )
    return GatewayConfig(
        host=given.host,
        port=given.port,
        upstreams=tuple(
            Upstream(name, service, getattr(given, name)) for name, service in PUBLIC_SERVICES.items()
        ),
        jwks_path=given.jwks,
        descriptor_set_path=given.descriptor_set or packaged_descriptor_set(),
        access_log_path=given.access_log,
        object_store=ObjectStore(given.s3, given.bucket) if given.s3 else None,
        tls=tls,
        upstream_tls=upstream_tls,
        cors_origins=tuple(given.cors_origin),
        issuer=given.issuer,
        audience=given.audience,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m finemesh.gateway", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="the file to write")
    parser.add_argument("--host", default="0.0.0.0", help="where to listen; default: everywhere")  # noqa: S104
    parser.add_argument("--port", type=int, default=8443)
    for name in PUBLIC_SERVICES:
        parser.add_argument(f"--{name}", required=True, metavar="HOST:PORT", help="address of this service")
    parser.add_argument("--s3", metavar="HOST:PORT", help="S3 server that presigned requests go to")
    parser.add_argument("--bucket", default="finemesh")
    parser.add_argument("--jwks", type=Path, required=True, help="keys that verify tokens, as Envoy sees it")
    parser.add_argument("--issuer", default="finemesh")
    parser.add_argument("--audience", default="finemesh")
    parser.add_argument("--tls-certificate", type=Path, help="PEM file; plain text without it")
    parser.add_argument("--tls-key", type=Path)
    parser.add_argument("--upstream-ca", type=Path, help="authority of the services; plain text without it")
    parser.add_argument("--upstream-certificate", type=Path, help="what the gateway shows to the services")
    parser.add_argument("--upstream-key", type=Path)
    parser.add_argument("--cors-origin", action="append", default=[], help="browsers may call from here")
    parser.add_argument("--descriptor-set", type=Path, help="default: the one of this package")
    parser.add_argument("--access-log", type=Path, default=Path("/dev/stdout"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
