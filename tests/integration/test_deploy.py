"""The deployment, as far as it can be tried without a container engine: its files fit each other and the
code, the real servers take their configuration, and the processes speak TLS under the environment of
compose.yaml.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, cast

import grpc
import pytest
import yaml
from finemesh.chassis.config import PREFIX, Secret, from_environ
from finemesh.cluster.config import AgentConfig
from finemesh.dataprep.config import DataPrepConfig
from finemesh.embedded.servers import envoy_executable
from finemesh.embedded.site import executable
from finemesh.export.config import ExportConfig
from finemesh.tracking.config import TrackingConfig
from finemesh.training.config import TrainingConfig
from finemesh.v1 import dataprep_service_pb2
from finemesh.v1.dataprep_service_pb2_grpc import DataPrepServiceStub

from tests.support.servers import PATIENCE_SECONDS, S3Server, ServerProcess, free_ports, wait_until

pytestmark = pytest.mark.integration

DEPLOY: Final = Path(__file__).resolve().parents[2] / "deploy"
CONFIGS: Final[dict[str, Any]] = {
    "dataprep": DataPrepConfig,
    "training": TrainingConfig,
    "tracking": TrackingConfig,
    "export": ExportConfig,
    "cluster": AgentConfig,
}
Service = dict[str, Any]


def _prepare(folder: Path, *more: str) -> None:
    command = [sys.executable, str(DEPLOY / "prepare.py")]
    places = ["--output", str(folder / "site"), "--env-file", str(folder / ".env")]
    subprocess.run([*command, *places, *more], check=True, capture_output=True, timeout=PATIENCE_SECONDS)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared deployment: `site` and `.env` in a folder."""
    folder = tmp_path_factory.mktemp("deployment")
    _prepare(folder)
    return folder


@pytest.fixture(scope="module")
def services(prepared: Path) -> dict[str, Service]:
    """The services of compose.yaml, its variables filled in from .env."""
    lines = (prepared / ".env").read_text().splitlines()
    values = dict(line.split("=", 1) for line in lines)

    def fill(found: re.Match[str]) -> str:
        name, default = found["name"], found["default"]
        assert name in values or default is not None, f"{name} is in compose.yaml, but prepare.py sets it not"
        return values.get(name, default or "")

    text = (DEPLOY / "compose.yaml").read_text()
    filled = re.sub(r"\$\{(?P<name>[A-Z_]+)(?::\?[^}]*|:-(?P<default>[^}]*))?\}", fill, text)
    return yaml.safe_load(filled)["services"]


def _mounts(service: Service) -> dict[str, Path]:
    """Folders and files of the host by where the container sees them."""
    parts = [str(volume).split(":") for volume in service.get("volumes", [])]
    return {part[1]: Path(part[0]) for part in parts}


def _on_host(service: Service, text: str) -> str:
    """`text` with the container's paths replaced by those of the host."""
    for inside, outside in sorted(_mounts(service).items(), reverse=True):
        text = re.sub(rf"(?<![\w/.]){re.escape(inside)}(?=[/\"\s]|$)", str(outside), text)
    return text


def _variables(cls: Any, prefix: str = PREFIX) -> set[str]:
    """Every variable that a configuration reads."""
    names: set[str] = set()
    for field in dataclasses.fields(cls):
        kind = typing.get_type_hints(cls)[field.name]
        if isinstance(kind, types.UnionType):
            kind = next(arm for arm in typing.get_args(kind) if arm is not types.NoneType)
        name = prefix + field.name.upper()
        if kind is Secret:
            names |= {name, name + "_FILE"}
        elif dataclasses.is_dataclass(kind):
            names |= _variables(kind, name + "_")
        else:
            names.add(name)
    return names


def test_secrets_stay_and_are_private(tmp_path: Path) -> None:
    _prepare(tmp_path)
    site = tmp_path / "site"
    before = {path: path.read_bytes() for path in (site / "secrets").iterdir() if path.name != "admin.token"}
    _prepare(tmp_path, "--public-host", "mesh.example.org")
    assert {path: path.read_bytes() for path in before} == before
    assert "mesh.example.org" in (tmp_path / ".env").read_text()
    kept = ("jwt.key", "key.pem", "nats.seed", "s3.secret", "database.url", "password", "ca.key", "ray.token")
    private = [path for path in site.rglob("*") if path.name in kept]
    assert len(private) > 20
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in private)


def test_no_secret_is_outside_its_file(prepared: Path, services: dict[str, Service]) -> None:
    shown = (prepared / ".env").read_text() + json.dumps(services)
    for path in (prepared / "site" / "secrets").iterdir():
        if path.suffix != ".pem" and path.name not in ("mesh.id", "jwks.json"):
            assert path.read_text().strip() not in shown, path.name


def test_compose_hangs_together(services: dict[str, Service]) -> None:
    for name, service in services.items():
        assert "image" in service, name
        assert "healthcheck" in service, name
        assert service["user"] == f"{os.getuid()}:{os.getgid()}"
        for dependency, condition in service.get("depends_on", {}).items():
            assert dependency in services
            assert condition == {"condition": "service_healthy"}
        if build := service.get("build"):
            assert (DEPLOY / build["context"] / build["dockerfile"]).is_file()
        for outside in _mounts(service).values():
            assert outside.exists(), f"{name} mounts {outside}, which prepare.py does not make"
        said = json.dumps([service.get("environment", {}), service.get("command", [])])
        for path in re.findall(r"/site/[\w./-]+", said):
            assert Path(_on_host(service, path)).exists(), f"{name} reads {path}, which is not there"
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert published == {"gateway": ["8443:8443"]}


def test_a_gpu_override_names_a_service_of_compose(services: dict[str, Service]) -> None:
    override = yaml.safe_load((DEPLOY / "compose.gpu.yaml").read_text())
    assert set(override["services"]) <= set(services)


@pytest.mark.parametrize("name", CONFIGS)
def test_each_process_understands_its_environment(services: dict[str, Service], name: str) -> None:
    environment: Mapping[str, str] = services[name]["environment"]
    on_host = {key: _on_host(services[name], value) for key, value in environment.items()}
    from_environ(CONFIGS[name], on_host)  # whatever is missing or wrong would be named
    known = _variables(CONFIGS[name]) | {f"FINEMESH_{other.upper()}_ADDRESS" for other in CONFIGS}
    assert set(environment) <= known | {"FINEMESH_PUBLIC_ENDPOINT"}, "a variable that nobody reads"


def test_dockerfiles_are_sound() -> None:
    linter = Path(sys.executable).with_name("hadolint")
    files = sorted(DEPLOY.glob("Dockerfile.*"))
    assert len(files) == 2
    checked = subprocess.run([linter, *files], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


def test_what_the_dockerfiles_copy_is_let_through() -> None:
    rules = (DEPLOY.parent / ".dockerignore").read_text().split()
    allowed = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    for dockerfile in DEPLOY.glob("Dockerfile.*"):
        for source in re.findall(r"^COPY (?:--chmod=\d+ )?([\w./]+) ", dockerfile.read_text(), re.MULTILINE):
            assert source == "." or source in allowed, f"{source} is kept from {dockerfile.name}"
    needed = (
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "services",
        "ray_cluster",
        "gateway",
        "clients/python",
    )
    assert set(needed) <= allowed


def test_nats_takes_its_configuration(services: dict[str, Service], tmp_path: Path) -> None:
    nats = services["nats"]
    config = tmp_path / "nats.json"
    config.write_text(_on_host(nats, (_mounts(nats)["/site"] / "nats.json").read_text()))
    subprocess.run(
        [executable("nats-server"), "-t", "-c", str(config)],
        check=True,
        capture_output=True,
        timeout=PATIENCE_SECONDS,
    )


def test_the_cluster_script_ends_with_the_first_of_its_two(tmp_path: Path) -> None:
    """With stand-ins for `ray` and `python`: one ends, the other is told to, and the script fails."""
    (tmp_path / "ray").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "python").write_text("#!/bin/sh\nexit 3\n")
    for name in ("ray", "python"):
        (tmp_path / name).chmod(0o755)
    ended = subprocess.run(
        ["sh", str(DEPLOY / "cluster.sh")],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert ended.returncode == 1


@dataclasses.dataclass
class Deployment:
    """DataPrep and the gateway as in compose.yaml, on loopback, with real NATS and S3 beside them."""

    gateway: str
    dataprep_port: int
    environment: dict[str, str]
    site: Path


@pytest.fixture(scope="module")
def deployment(
    prepared: Path,
    services: dict[str, Service],
    s3_server: S3Server,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Deployment]:
    folder, site = tmp_path_factory.mktemp("deployed"), prepared / "site"
    nats_port, dataprep_port, gateway_port = free_ports(3)
    nats = json.loads(_on_host(services["nats"], (site / "nats" / "nats.json").read_text()))
    del nats["http"]
    (folder / "nats.json").write_text(json.dumps(nats | {"listen": f"127.0.0.1:{nats_port}"}))
    envoy = json.loads(_on_host(services["gateway"], (site / "gateway" / "envoy.json").read_text()))
    _listen(envoy, gateway_port, {"dataprep": dataprep_port})
    (folder / "envoy.json").write_text(json.dumps(envoy))
    stated: dict[str, str] = services["dataprep"]["environment"]
    environment = {key: _on_host(services["dataprep"], value) for key, value in stated.items()} | {
        "FINEMESH_DATABASE_URL_FILE": "",
        "FINEMESH_DATABASE_URL": f"sqlite:///{folder / 'dataprep.db'}",
        "FINEMESH_NATS_SERVERS": f"tls://localhost:{nats_port}",
        "FINEMESH_S3_ENDPOINT": f"http://{s3_server.endpoint}",
        "FINEMESH_S3_ACCESS_KEY": s3_server.access_key,
        "FINEMESH_S3_SECRET_KEY": s3_server.secret_key,
        "FINEMESH_S3_BUCKET": s3_server.bucket,
        "FINEMESH_S3_ACCESS_KEY_FILE": "",
        "FINEMESH_S3_SECRET_KEY_FILE": "",
        "FINEMESH_SERVICE_PORT": str(dataprep_port),
    }
    made = Deployment(f"localhost:{gateway_port}", dataprep_port, environment, site)
    variables = [f"{key}={value}" for key, value in environment.items()]
    commands = {
        "nats": [executable("nats-server"), "-c", str(folder / "nats.json")],
        "dataprep": [str(shutil.which("env")), *variables, sys.executable, "-m", "finemesh.dataprep"],
        "gateway": [envoy_executable(), "--config-path", str(folder / "envoy.json"), "--disable-hot-restart"],
    }
    processes = [ServerProcess(command, folder, folder / f"{name}.log") for name, command in commands.items()]
    try:
        for process in processes:
            process.start()
        wait_until(lambda: _probe(made) == "SERVING", "the probe of DataPrep")
        wait_until(lambda: _listens(gateway_port), "the gateway")
        yield made
    finally:
        for process in reversed(processes):
            process.stop()


def _listen(envoy: dict[str, Any], port: int, upstreams: dict[str, int]) -> None:
    """Bring the gateway and the services behind it to loopback; those that are not there stay unreachable."""
    [listener] = envoy["static_resources"]["listeners"]
    listener["address"]["socket_address"] |= {"address": "127.0.0.1", "port_value": port}
    for cluster in envoy["static_resources"]["clusters"]:
        [endpoint] = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
        address = endpoint["endpoint"]["address"]["socket_address"]
        address |= {"address": "127.0.0.1", "port_value": upstreams.get(cluster["name"], 1)}


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS):
        return True
    return False


def _probe(deployment: Deployment) -> str:
    """What the health check of the container says."""
    probe = [sys.executable, "-m", "finemesh.chassis.probe"]
    found = subprocess.run(
        probe,
        env=os.environ | deployment.environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    return found.stdout.strip()


def _list_datasets(address: str, credentials: grpc.ChannelCredentials, token: str) -> Any:
    with grpc.secure_channel(address, credentials) as channel:
        stub: Any = DataPrepServiceStub(channel)
        request = dataprep_service_pb2.ListDatasetsRequest(parent="projects/demo")
        return stub.ListDatasets(
            request, metadata=(("authorization", f"Bearer {token}"),), timeout=PATIENCE_SECONDS
        )


def test_a_client_reaches_a_service_through_tls_on_both_ways(deployment: Deployment) -> None:
    client = deployment.site / "client"
    authority = grpc.ssl_channel_credentials((client / "ca.pem").read_bytes())
    token = (client / "admin.token").read_text().strip()
    assert _list_datasets(deployment.gateway, authority, token).datasets == []
    with pytest.raises(grpc.RpcError) as error:
        _list_datasets(deployment.gateway, authority, "nonsense")
    assert cast("grpc.Call", error.value).code() is grpc.StatusCode.UNAUTHENTICATED


def test_a_service_takes_nobody_without_a_certificate(deployment: Deployment) -> None:
    client = deployment.site / "client"
    authority = grpc.ssl_channel_credentials((client / "ca.pem").read_bytes())
    token = (client / "admin.token").read_text().strip()
    with pytest.raises(grpc.RpcError) as error:
        _list_datasets(f"localhost:{deployment.dataprep_port}", authority, token)
    assert cast("grpc.Call", error.value).code() is grpc.StatusCode.UNAVAILABLE
