"""The components of the mesh as data. A new process joins with one entry in `components`."""

from __future__ import annotations

import importlib.util
import sys
from typing import Final

from finemesh.core.errors import PreconditionError
from finemesh.embedded import servers
from finemesh.embedded.config import MeshConfig
from finemesh.embedded.environment import ray_environment
from finemesh.embedded.readiness import grpc_ready
from finemesh.embedded.site import LOOPBACK, Component, Site
from finemesh.gateway.config import PUBLIC_SERVICES

SERVICES: Final = tuple(PUBLIC_SERVICES)
S3_REGION: Final = "us-east-1"
AGENT_MODULE: Final = "finemesh.cluster"


def port_names(config: MeshConfig) -> list[str]:
    """Names of all loopback ports that the components need; the gateway's is apart."""
    names = ["nats", *servers.S3_PORTS, *servers.RAY_PORTS, *SERVICES]
    return [*names, "agent"] if config.services else names


def components(site: Site) -> list[Component]:
    """All components of the mesh."""
    own = [*(service(site, name) for name in SERVICES), _agent(site)] if site.config.services else []
    return [
        servers.nats(site),
        servers.object_store(site),
        servers.ray_head(site),
        *own,
        servers.gateway(site),
    ]


def service(site: Site, name: str) -> Component:
    """One of the four. It starts without NATS and S3, and is ready once it has them."""
    module = f"finemesh.{name}"
    own = {
        "FINEMESH_DATABASE_URL": f"sqlite+aiosqlite:///{site.folder('sql') / f'{name}.db'}",
        "FINEMESH_DATA_DIR": str(site.folder(name)),
    }
    return Component(
        name=name,
        command=(sys.executable, "-m", module),
        environment=_shared_environment(site, name) | own | site.config.environment,
        ready=grpc_ready(site.address(name), PUBLIC_SERVICES[name]),
        ports={"grpc": site.ports[name]},
        layer=2,
        prepare=lambda: _require_module(module),
    )


def _agent(site: Site) -> Component:
    """The one Ray driver. It serves nothing but its health."""
    own = {
        "FINEMESH_RAY_ADDRESS": site.address("ray"),
        "FINEMESH_LOCAL_POOL": "true",
        "FINEMESH_DATA_DIR": str(site.folder("agent")),
        **ray_environment(site.credentials.ray_token),
    }
    return Component(
        name="agent",
        command=(sys.executable, "-m", AGENT_MODULE),
        environment=_shared_environment(site, "agent") | own | site.config.environment,
        ready=grpc_ready(site.address("agent")),
        ports={"grpc": site.ports["agent"]},
        layer=2,
        prepare=lambda: _require_module(AGENT_MODULE),
    )


def _shared_environment(site: Site, component: str) -> dict[str, str]:
    credentials = site.credentials
    addresses = {f"FINEMESH_{name.upper()}_ADDRESS": site.address(name) for name in SERVICES}
    return (
        site.environment(component)
        | addresses
        | {
            "FINEMESH_SERVICE_HOST": LOOPBACK,
            "FINEMESH_SERVICE_PORT": str(site.ports[component]),
            "FINEMESH_NATS_SERVERS": f"nats://{site.address('nats')}",
            "FINEMESH_NATS_NKEY_SEED_PATH": str(credentials.nats_seed(component)),
            "FINEMESH_S3_ENDPOINT": f"http://{site.address('s3')}",
            "FINEMESH_S3_BUCKET": site.config.bucket,
            "FINEMESH_S3_REGION": S3_REGION,
            "FINEMESH_S3_ACCESS_KEY_FILE": str(credentials.s3_access_key),
            "FINEMESH_S3_SECRET_KEY_FILE": str(credentials.s3_secret_key),
            "FINEMESH_PUBLIC_ENDPOINT": site.public_url,
            "FINEMESH_JWT_KEY_FILE": str(credentials.jwt_key),
            "FINEMESH_CLUSTER_ID": site.config.cluster_id,
            "FINEMESH_LEASE_SECONDS": f"{site.config.lease_seconds:g}",
            "FINEMESH_WARM_WORKERS": str(site.config.warm_workers),
            "FINEMESH_LOG_LEVEL": site.config.log_level,
        }
    )


def _require_module(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise PreconditionError(f"{module} is not installed: pip install finemesh", reason="NOT_INSTALLED")
