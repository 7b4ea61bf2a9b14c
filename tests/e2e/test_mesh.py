"""The whole mesh: up in time, small when idle, one door to four services, and up again when killed."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import grpc.aio
import psutil
import pytest
import pytest_asyncio
import urllib3
from finemesh.embedded import Mesh, MeshConfig
from finemesh.embedded.components import SERVICES
from finemesh.embedded.doctor import Verdict, examine
from finemesh.embedded.processes import memory_pss_bytes
from finemesh.embedded.site import executable
from finemesh.gateway.config import PUBLIC_SERVICES
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.support.servers import PATIENCE_SECONDS

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

_READY_CPU_SECONDS = 60.0  # on two cores that have nothing else to do, 15 s
_IDLE_PSS_BYTES = 1.5e9
_SUPERVISOR_PSS_BYTES = 50e6  # 31 MB when measured
_LISTS = {
    "dataprep": ("datasets", "DataPrepService/ListDatasets"),
    "training": ("trainingJobs", "TrainingService/ListTrainingJobs"),
    "tracking": ("runs", "TrackingService/ListRuns"),
    "export": ("exports", "ExportService/ListExports"),
}


@dataclass
class Running:
    mesh: Mesh
    start_cpu_seconds: float

    async def request(self, method: str, path: str, **options: Any) -> Any:
        """A JSON request through the gateway, with the token."""
        token = self.mesh.site.credentials.admin_token.read_text().strip()
        return await asyncio.to_thread(
            urllib3.request,
            method,
            f"{self.mesh.url}{path}",
            headers={"authorization": f"Bearer {token}"},
            retries=False,
            timeout=PATIENCE_SECONDS,
            **options,
        )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    data, patience = tmp_path_factory.mktemp("mesh") / "data", 2 * PATIENCE_SECONDS
    async with Mesh(MeshConfig(data_dir=data, ready_timeout_seconds=patience)) as mesh:
        used = 0.0
        for process in mesh.processes():
            with contextlib.suppress(psutil.NoSuchProcess):  # what has ended counts with who started it
                used += sum(process.cpu_times()[:4])
        yield Running(mesh, used)


async def test_ready_in_time(running: Running) -> None:
    """By what a start computes: how long that takes is up to who else is at work."""
    assert running.start_cpu_seconds < _READY_CPU_SECONDS


async def test_small_when_idle(running: Running) -> None:
    """The test's own process stands in for `up`, but has loaded torch for other tests: it counts by what `up`
    holds.
    """
    used = await asyncio.to_thread(memory_pss_bytes, running.mesh.processes())
    assert used + _SUPERVISOR_PSS_BYTES < _IDLE_PSS_BYTES


async def test_every_listener_is_on_loopback(running: Running) -> None:
    hosts: set[Any] = set()
    for process in running.mesh.processes():
        with contextlib.suppress(psutil.NoSuchProcess):  # Ray ends a worker that has nothing to do
            connections = process.net_connections(kind="tcp")
            hosts |= {ip_address(each.laddr.ip) for each in connections if each.status == psutil.CONN_LISTEN}
    assert hosts
    assert all((getattr(host, "ipv4_mapped", None) or host).is_loopback for host in hosts), hosts


@pytest.mark.parametrize("name", SERVICES)
async def test_health_by_service_name(running: Running, name: str) -> None:
    async with grpc.aio.insecure_channel(running.mesh.address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(
            health_pb2.HealthCheckRequest(service=PUBLIC_SERVICES[name]), timeout=PATIENCE_SECONDS
        )
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("name", SERVICES)
async def test_list_as_json(running: Running, name: str) -> None:
    collection, _ = _LISTS[name]
    answer = await running.request("GET", f"/v1/projects/demo/{collection}")
    assert (answer.status, answer.json()) == (200, {})


@pytest.mark.parametrize("name", SERVICES)
async def test_list_by_reflection(running: Running, name: str) -> None:
    """As grpcurl would: the caller knows no protos, the gateway's reflection tells."""
    token = running.mesh.site.credentials.admin_token.read_text().strip()
    header = f"authorization: Bearer {token}"
    command = [executable("buf"), "curl", "--protocol", "grpc", "--http2-prior-knowledge"]
    command += ["--header", header, "--reflect-header", header, "--data", '{"parent": "projects/demo"}']
    url = f"{running.mesh.url}/finemesh.v1.{_LISTS[name][1]}"
    done = await asyncio.to_thread(
        subprocess.run, [*command, url], capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {}


async def test_error_names_its_reason(running: Running) -> None:
    answer = await running.request("GET", "/v1/projects/demo/trainingJobs/none")
    details = {detail["@type"]: detail for detail in answer.json()["details"]}
    assert answer.status == 404
    assert details["type.googleapis.com/google.rpc.ErrorInfo"]["reason"]


async def test_upload_by_presigned_url(running: Running) -> None:
    content = bytes(range(256)) * 1000
    upload = {
        "filename": "scenes.zip",
        "sizeBytes": str(len(content)),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    made = await running.request("POST", "/v1/projects/demo/uploads", json=upload)
    assert made.status == 200, made.data
    url = made.json()["url"]
    assert url.startswith(running.mesh.url)
    put = await asyncio.to_thread(urllib3.request, "PUT", url, body=content, retries=False)
    assert put.status == 200, put.data


async def test_doctor_is_content(running: Running) -> None:
    findings = await asyncio.to_thread(examine, running.mesh.config.data_dir)
    assert [finding for finding in findings if finding.verdict is Verdict.FAILURE] == []


@pytest.mark.chaos
@pytest.mark.parametrize("name", [*SERVICES, "agent"])
async def test_what_is_killed_comes_back(running: Running, name: str) -> None:
    pid = running.mesh.kill(name)
    await running.mesh.wait_ready(name, PATIENCE_SECONDS)
    assert running.mesh.pids()[name] != pid
    if name in _LISTS:
        answer = await running.request("GET", f"/v1/projects/demo/{_LISTS[name][0]}")
        assert answer.status == 200, answer.data
