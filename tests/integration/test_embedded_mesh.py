"""The servers of the mesh: they start, stay on loopback, ask who calls, and come back when killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import grpc
import nats
import psutil
import pytest
import pytest_asyncio
import urllib3
from finemesh.chassis.bus import BusConfig, NatsEventBus, reach_server
from finemesh.chassis.events import EVENTS_STREAM, Message, command_subject, event_subject
from finemesh.core.errors import FinemeshError, PreconditionError
from finemesh.embedded import Mesh, MeshConfig
from finemesh.embedded.doctor import Verdict, examine
from finemesh.embedded.environment import ray_environment

from tests.support.servers import PATIENCE_SECONDS

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

_RAY_CLIENT = """
import sys, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
print("answer", ray.get(ray.remote(lambda: 42).remote(), timeout=100))
"""


@dataclass
class Running:
    """A mesh, and a Ray client without a token that has been trying to get in since its start."""

    mesh: Mesh
    intruder: subprocess.Popen[str]

    def port(self, name: str) -> int:
        return self.mesh.site.ports[name]


def _ray_client(address: str, environment: dict[str, str]) -> subprocess.Popen[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.Popen(
        [sys.executable, "-c", _RAY_CLIENT, address],
        env=clean | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    # A long path: Ray's sockets would not fit below it.
    data = tmp_path_factory.mktemp("mesh") / ("long-" * 12)
    async with Mesh(
        MeshConfig(data_dir=data, services=False, ready_timeout_seconds=2 * PATIENCE_SECONDS)
    ) as mesh:
        address = f"127.0.0.1:{mesh.site.ports['ray']}"
        loopback = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
        intruder = _ray_client(address, loopback)
        try:
            yield Running(mesh, intruder)
        finally:
            intruder.kill()
            intruder.communicate()


async def _eventually(
    check: Callable[[], Awaitable[object]], timeout_seconds: float = PATIENCE_SECONDS
) -> None:
    """Wait until `check` no longer raises."""
    async with asyncio.timeout(timeout_seconds):
        while True:
            with contextlib.suppress(FinemeshError):
                await check()
                return
            await asyncio.sleep(0.05)


def _get(url: str) -> int:
    return urllib3.request("GET", url, retries=False, timeout=PATIENCE_SECONDS).status


async def test_every_listener_is_on_loopback(running: Running) -> None:
    listening: list[Any] = []
    for process in running.mesh.processes():
        with contextlib.suppress(psutil.NoSuchProcess):  # Ray ends a worker that has nothing to do
            connections = process.net_connections(kind="tcp")
            listening += [each.laddr for each in connections if each.status == psutil.CONN_LISTEN]
    hosts = {ip_address(address.ip) for address in listening}
    assert len(listening) > 10
    assert all((getattr(host, "ipv4_mapped", None) or host).is_loopback for host in hosts), hosts


async def test_nats_asks_who_calls(running: Running) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port("nats"))
    writer.write(b'CONNECT {"verbose":false}\r\nPING\r\n')
    answer = await asyncio.wait_for(reader.read(), PATIENCE_SECONDS)
    writer.close()
    await writer.wait_closed()
    assert b"-ERR 'Authorization Violation'" in answer
    assert b"PONG" not in answer


async def test_a_client_can_follow_events_but_not_make_them_nor_command(running: Running) -> None:
    url, credentials = f"nats://127.0.0.1:{running.port('nats')}", running.mesh.site.credentials
    refused: list[str] = []

    async def remember(error: Exception) -> None:
        refused.append(str(error))

    event = event_subject("training_job", "succeeded", "demo", "tj-1")
    training = NatsEventBus(BusConfig((url,), "training", str(credentials.nats_seed("training"))))
    await training.start()
    client = await nats.connect(url, nkeys_seed=str(credentials.nats_seed("client")), error_cb=remember)
    try:
        await _eventually(training.check_ready)
        await training.publish(Message("1", "tj-1", event, {}, b"fact"))
        subscription = await client.jetstream().subscribe(event, stream=EVENTS_STREAM)
        assert (await subscription.next_msg(timeout=PATIENCE_SECONDS)).data == b"fact"
        for subject in (event, command_subject("local")):
            await client.publish(subject, b"forged")
        await reach_server(client)
        assert [event in refused[0], command_subject("local") in refused[1]] == [True, True]
        assert (await client.jetstream().stream_info(EVENTS_STREAM)).state.messages == 1
    finally:
        await client.close()
        await training.close()


async def test_s3_and_its_filer_ask_who_calls(running: Running) -> None:
    bucket = running.mesh.config.bucket
    assert await asyncio.to_thread(_get, f"http://127.0.0.1:{running.port('s3')}/{bucket}/") == 403
    assert await asyncio.to_thread(_get, f"http://127.0.0.1:{running.port('filer')}/buckets/") == 401


async def test_the_gateway_is_there_and_its_services_are_not(running: Running) -> None:
    assert await asyncio.to_thread(_get, f"{running.mesh.url}/healthz") == 200
    assert await asyncio.to_thread(_get, f"{running.mesh.url}/v1/projects/demo/trainingJobs") == 401


async def test_doctor_finds_nothing_wrong(running: Running) -> None:
    findings = {f.name: f for f in await asyncio.to_thread(examine, running.mesh.config.data_dir)}
    failures = [f for f in findings.values() if f.verdict is Verdict.FAILURE]
    assert failures == []
    assert findings["mesh"].detail.startswith(running.mesh.url)
    assert "on loopback" in findings["listeners"].detail
    assert findings["nats"].detail.startswith("answers")


async def test_a_second_mesh_in_the_same_folder_is_refused(running: Running) -> None:
    with pytest.raises(PreconditionError) as raised:
        await Mesh(running.mesh.config).start()
    assert raised.value.reason == "MESH_RUNNING"
    assert raised.value.metadata["address"] == running.mesh.address


async def test_clients_find_the_mesh_by_its_file(running: Running) -> None:
    data = running.mesh.config.data_dir
    client = json.loads((data / "mesh.json").read_text())["client"]
    assert client["server"] == running.mesh.address
    assert Path(client["token_file"]).exists()
    assert Path(client["nats_nkey_file"]).exists()


async def test_ray_takes_a_client_with_the_token(running: Running) -> None:
    environment = ray_environment(running.mesh.site.credentials.ray_token)
    client = _ray_client(f"127.0.0.1:{running.port('ray')}", environment)
    output, _ = await asyncio.to_thread(client.communicate, timeout=PATIENCE_SECONDS)
    assert client.returncode == 0, output
    assert "answer 42" in output


@pytest.mark.parametrize("name", ["ray", "ray.client"])
async def test_ray_refuses_a_call_without_the_token(running: Running, name: str) -> None:
    method = {
        "ray": "/ray.rpc.NodeInfoGcsService/GetClusterId",
        "ray.client": "/ray.rpc.RayletDriver/ClusterInfo",
    }
    async with grpc.aio.insecure_channel(f"127.0.0.1:{running.port(name)}") as channel:
        call: Any = channel.unary_unary(method[name])
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call(b"", timeout=PATIENCE_SECONDS)
    assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_ray_refuses_a_client_without_the_token(running: Running) -> None:
    output, _ = await asyncio.to_thread(running.intruder.communicate, timeout=PATIENCE_SECONDS)
    assert running.intruder.returncode != 0
    assert "answer" not in output


@pytest.mark.parametrize("name", ["nats", "s3", "gateway", "ray"])
async def test_what_is_killed_comes_back_on_its_ports(running: Running, name: str) -> None:
    mesh = running.mesh
    ports = dict(mesh.status()[name].ports)
    pid = mesh.kill(name)
    await mesh.wait_ready(name, PATIENCE_SECONDS)
    record = mesh.status()[name]
    assert record.pid not in (0, pid)
    assert record.restarts >= 1
    assert record.ports == ports
    assert not psutil.pid_exists(pid)


async def test_an_unknown_component_is_named(running: Running) -> None:
    with pytest.raises(FinemeshError, match=r"'console'.*nats"):
        running.mesh.kill("console")
