"""The gateway before one service of ours, for what only a caller over HTTP sees."""

from __future__ import annotations

import contextlib
import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from finemesh.chassis.auth import Role, SigningKey
from finemesh.embedded.servers import envoy_executable
from finemesh.gateway import packaged_descriptor_set
from finemesh.gateway.bootstrap import write_configuration
from finemesh.gateway.config import PUBLIC_SERVICES, GatewayConfig, ObjectStore, Upstream

from tests.support.servers import S3Server, ServerProcess, free_ports, wait_until


@dataclass(frozen=True)
class HttpDoor:
    """Where HTTP is spoken, and the key of those who may speak."""

    address: str
    key: SigningKey

    def curl(self, path: str, *options: str, project: str) -> subprocess.CompletedProcess[bytes]:
        """What the program makes of `path`; the status is on stderr."""
        token = self.key.mint("tester", Role.OPERATOR, [project], 600)
        command = [
            "curl",
            "--silent",
            "--max-time",
            "30",
            "--write-out",
            "%{stderr}%{http_code}",
        ]
        bearer = ["--header", f"Authorization: Bearer {token}"]
        return subprocess.run(
            [*command, *bearer, *options, f"http://{self.address}{path}"], capture_output=True, check=False
        )


@contextlib.contextmanager
def gateway_before(
    name: str, address: str, key: SigningKey, store: S3Server, folder: Path
) -> Generator[HttpDoor]:
    """An Envoy with service `name` behind it, and the object store; nobody answers for the others."""
    port, nobody = free_ports(2)
    jwks = folder / "jwks.json"
    jwks.write_text(json.dumps(key.jwks()))
    config = GatewayConfig(
        host="127.0.0.1",
        port=port,
        upstreams=tuple(
            Upstream(each, service, address if each == name else f"127.0.0.1:{nobody}")
            for each, service in PUBLIC_SERVICES.items()
        ),
        jwks_path=jwks,
        descriptor_set_path=packaged_descriptor_set(),
        access_log_path=folder / "access.jsonl",
        object_store=ObjectStore(store.endpoint, store.bucket),
    )
    write_configuration(config, folder / "envoy.json")
    command = [
        envoy_executable(),
        "-c",
        str(folder / "envoy.json"),
        "--disable-hot-restart",
        "-l",
        "warning",
    ]
    envoy = ServerProcess(command, folder, folder / "envoy.log")

    def alive() -> bool:
        envoy.require_running()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2):
                return True
        except (urllib.error.URLError, OSError):
            return False

    envoy.start()
    try:
        wait_until(alive, "Envoy")
        yield HttpDoor(f"127.0.0.1:{port}", key)
    finally:
        envoy.stop()
