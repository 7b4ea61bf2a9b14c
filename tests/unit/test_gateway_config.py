"""The generated configuration: Envoy accepts it, and it says what the contracts say."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from finemesh.chassis.auth import SigningKey
from finemesh.core.errors import InvalidError
from finemesh.embedded.servers import envoy_executable
from finemesh.gateway import (
    GatewayConfig,
    ObjectStore,
    Tls,
    Upstream,
    envoy_bootstrap,
    packaged_descriptor_set,
    write_configuration,
)
from finemesh.gateway.__main__ import main
from finemesh.gateway.config import BESIDE, PUBLIC_SERVICES
from finemesh.gateway.methods import read_methods

from tests.support.certificates import self_signed


@pytest.fixture
def config(tmp_path: Path) -> GatewayConfig:
    (tmp_path / "jwks.json").write_text(json.dumps(SigningKey.generate().jwks()))
    return GatewayConfig(
        host="127.0.0.1",
        port=8443,
        upstreams=tuple(
            Upstream(name, service, f"127.0.0.1:{9000 + i}")
            for i, (name, service) in enumerate(PUBLIC_SERVICES.items())
        ),
        jwks_path=tmp_path / "jwks.json",
        descriptor_set_path=packaged_descriptor_set(),
        access_log_path=tmp_path / "access.jsonl",
        object_store=ObjectStore("127.0.0.1:9100", "finemesh"),
    )


def _routes(config: GatewayConfig) -> list[dict[str, Any]]:
    manager = envoy_bootstrap(config)["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]
    return manager["typed_config"]["route_config"]["virtual_hosts"][0]["routes"]


def _validate(path: Path) -> None:
    command = [envoy_executable(), "--mode", "validate", "-c", str(path), "-l", "error"]
    done = subprocess.run([*command, "--disable-hot-restart"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _of_path(config: GatewayConfig, path: str) -> dict[str, Any]:
    return next(route for route in _routes(config) if route["match"].get("path") == path)


@pytest.mark.parametrize("variant", ["default", "tls and cors", "no object store", "names for addresses"])
def test_envoy_accepts_it(config: GatewayConfig, tmp_path: Path, variant: str) -> None:
    if variant == "tls and cors":
        tls = Tls(*self_signed(tmp_path))
        config = replace(config, tls=tls, cors_origins=("https://console.example",))
    elif variant == "no object store":
        config = replace(config, object_store=None)
    elif variant == "names for addresses":
        upstreams = tuple(replace(each, address=f"{each.name}:50051") for each in config.upstreams)
        config = replace(config, host="0.0.0.0", upstreams=upstreams)
    path = tmp_path / "envoy.json"
    write_configuration(config, path)
    _validate(path)


def test_envoy_accepts_what_the_command_writes(config: GatewayConfig, tmp_path: Path) -> None:
    path = tmp_path / "envoy.json"
    certificate, key = self_signed(tmp_path)
    services = [f"--{name}={name}:50051" for name in PUBLIC_SERVICES]
    tls = [f"--tls-certificate={certificate}", f"--tls-key={key}"]
    arguments = [f"--output={path}", f"--jwks={config.jwks_path}", "--s3=minio:9000", *services, *tls]
    assert main(arguments) == 0
    _validate(path)


def test_streams_have_no_time_limit_and_reads_are_tried_again(config: GatewayConfig) -> None:
    watch = _of_path(config, "/finemesh.v1.TrainingService/WatchTrainingJob")
    read = _of_path(config, "/finemesh.v1.TrainingService/GetTrainingJob")
    assert watch["route"]["timeout"] == "0s"
    assert "unavailable" in read["route"]["retry_policy"]["retry_on"]


def test_writes_are_only_tried_again_unseen(config: GatewayConfig) -> None:
    writes = [
        route for route in _routes(config) if route["match"].get("prefix", "").startswith("/finemesh.v1.")
    ]
    assert len(writes) == len(PUBLIC_SERVICES) + sum(map(len, BESIDE.values()))
    for route in writes:
        assert "unavailable" not in route["route"]["retry_policy"]["retry_on"]


def test_every_method_is_either_streaming_reading_or_a_write() -> None:
    methods = read_methods(packaged_descriptor_set(), list(PUBLIC_SERVICES.values()))
    tracking = methods[PUBLIC_SERVICES["tracking"]]
    files = {"UploadRunArtifact", "DownloadRunMetrics"}
    assert set(tracking.streaming) == {"WatchRun", "LogMetrics", "WatchMetrics", "QuerySql", *files}
    assert set(tracking.reading) == {"GetRun", "ListRuns", "ListRunArtifacts", "QueryMetrics"}


def test_only_health_and_presigned_requests_need_no_token(config: GatewayConfig) -> None:
    manager = envoy_bootstrap(config)["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]
    filters = {each["name"]: each["typed_config"] for each in manager["typed_config"]["http_filters"]}
    rules = filters["envoy.filters.http.jwt_authn"]["rules"]
    free = [rule["match"] for rule in rules if "requires" not in rule]
    assert [match.get("path") or match["prefix"] for match in free] == [
        "/healthz",
        "/grpc.health.v1.Health/",
        "/finemesh/",
    ]
    assert free[2]["query_parameters"] == [{"name": "X-Amz-Signature", "present_match": True}]
    assert rules[-1]["match"] == {"prefix": "/"}
    assert rules[-1]["requires"] == {"provider_name": "finemesh"}


def test_no_admin_interface(config: GatewayConfig) -> None:
    assert "admin" not in envoy_bootstrap(config)


def test_service_that_is_not_described_is_refused(config: GatewayConfig) -> None:
    upstreams = (Upstream("other", "finemesh.v1.OtherService", "127.0.0.1:1"),)
    with pytest.raises(InvalidError, match=r"finemesh\.v1\.OtherService"):
        envoy_bootstrap(replace(config, upstreams=upstreams))


def test_every_reply_of_envoy_itself_has_a_reason(config: GatewayConfig) -> None:
    """The rarer ones cannot be provoked in a moment: REQUEST_TIMEOUT, TOO_MANY_REQUESTS."""
    text = json.dumps(envoy_bootstrap(config))
    (manager,) = (
        each["filters"][0]["typed_config"]
        for each in json.loads(text)["static_resources"]["listeners"][0]["filter_chains"]
    )
    bodies = [
        each["body_format_override"]["json_format"] for each in manager["local_reply_config"]["mappers"]
    ]
    documented = Path(__file__, "../../../docs/reference/errors.md").resolve().read_text()
    assert {each["details"][0]["reason"] for each in bodies} <= set(re.findall(r"[A-Z_]{5,}", documented))
    assert all(each["message"] for each in bodies)
