"""`finemesh up` as a user meets it: interrupted at any moment, killed, started twice."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import urllib3
from finemesh.embedded.processes import end_all, find
from finemesh.embedded.site import executable
from finemesh.embedded.state import ComponentRecord, MeshRecord, State, is_held, read_record

from tests.support.certificates import self_signed
from tests.support.servers import PATIENCE_SECONDS, wait_until

pytestmark = pytest.mark.integration


class Up:
    """A running `finemesh up --json` and what it has printed."""

    def __init__(self, data_dir: Path, *options: str) -> None:
        self.data_dir = data_dir
        command = [executable("finemesh"), "up", "--no-services", "--json", "--data-dir", str(data_dir)]
        command += options
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.lines: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.append(json.loads(line))

    def wait_for(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first printed line that meets the condition."""
        wait_until(lambda: any(map(condition, self.lines)) or self.process.poll() is not None, "a line")
        return next(filter(condition, self.lines))

    def wait_ready(self) -> dict[str, Any]:
        return self.wait_for(lambda line: line.get("mesh") == "ready")

    def end(self, number: signal.Signals) -> int:
        """Send a signal and wait for the end. Returns the exit code."""
        self.process.send_signal(number)
        try:
            return self.process.wait(PATIENCE_SECONDS)
        finally:
            self.close()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        if self.process.stdout:
            self.process.stdout.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], Up]]:
    started: list[Up] = []
    data_dir = tmp_path / "data"

    def start() -> Up:
        started.append(Up(data_dir))
        return started[-1]

    yield start
    for up in started:
        up.close()
    mesh_id = _mesh_id(data_dir)
    if mesh_id:  # what a killed `up` has left, and the next one would have removed
        end_all(lambda: find(mesh_id), 0.0)
        (Path(tempfile.gettempdir()) / f"finemesh-{mesh_id[:12]}").unlink(missing_ok=True)


def _mesh_id(data_dir: Path) -> str:
    try:
        return (data_dir / "secrets" / "mesh.id").read_text().strip()
    except OSError:
        return ""


def _listening(ports: set[int]) -> set[int]:
    listening: list[Any] = [c.laddr for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    return ports & {address.port for address in listening}


def _component(name: str, state: State) -> Callable[[dict[str, Any]], bool]:
    return lambda line: line.get("component") == name and line["state"] == state


MOMENTS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "the first process starts": lambda line: line.get("component") == "nats",
    "nats is ready": _component("nats", State.READY),
    "s3 is ready": _component("s3", State.READY),
    "everything is ready": lambda line: line.get("mesh") == "ready",
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_interrupted_it_leaves_no_process_and_no_port(start: Callable[[], Up], moment: str) -> None:
    up = start()
    up.wait_for(MOMENTS[moment])
    mesh_id = _mesh_id(up.data_dir)
    code = up.end(signal.SIGINT)
    record = read_record(up.data_dir)
    assert code == (0 if moment == "everything is ready" else 130)
    assert find(mesh_id) == []
    assert record
    assert record.state is State.STOPPED
    assert _listening(set(record.ports.values())) == set()
    assert not is_held(up.data_dir)


def test_interrupted_before_anything_started(start: Callable[[], Up]) -> None:
    up = start()
    wait_until(lambda: up.data_dir.exists() or up.process.poll() is not None, "the data directory")
    up.end(signal.SIGINT)
    mesh_id = _mesh_id(up.data_dir)
    assert not mesh_id or find(mesh_id) == []


def test_a_second_interrupt_does_not_wait(start: Callable[[], Up]) -> None:
    up = start()
    up.wait_ready()
    mesh_id = _mesh_id(up.data_dir)
    up.process.send_signal(signal.SIGINT)
    up.end(signal.SIGINT)
    assert find(mesh_id) == []


def test_a_second_up_says_who_holds_the_folder(start: Callable[[], Up]) -> None:
    first = start()
    ready = first.wait_ready()
    second = start()
    failed = second.wait_for(lambda line: line.get("mesh") == "failed")
    assert second.process.wait(PATIENCE_SECONDS) == 1
    assert failed["reason"] == "MESH_RUNNING"
    assert failed["pid"] == str(first.process.pid)
    assert failed["since"] in failed["message"]
    assert f"http://{failed['address']}" == ready["url"]
    assert first.end(signal.SIGTERM) == 0


def test_after_a_kill_the_next_one_reaps_and_takes_the_same_address(start: Callable[[], Up]) -> None:
    first = start()
    url = first.wait_ready()["url"]
    record = read_record(first.data_dir)
    assert record
    left = find(_mesh_id(first.data_dir))
    for process in left:  # what hangs: it outlives its parent, and takes no notice of SIGTERM
        process.suspend()
    first.end(signal.SIGKILL)
    second = start()
    ready = second.wait_ready()
    assert ready["url"] == url
    assert {record.components["nats"].pid, record.components["ray"].pid} <= set(ready["reaped"])
    assert not [process for process in left if process.is_running()]
    assert second.end(signal.SIGINT) == 0


def test_after_a_kill_everything_ends_by_itself(start: Callable[[], Up]) -> None:
    up = start()
    up.wait_ready()
    mesh_id = _mesh_id(up.data_dir)
    up.end(signal.SIGKILL)
    wait_until(lambda: find(mesh_id) == [], "the end of the processes")


def test_processes_of_others_are_left_alone(start: Callable[[], Up], tmp_path: Path) -> None:
    """A recorded pid that the kernel has given to somebody else since is not ended."""
    with subprocess.Popen(["sleep", "600"]) as other:
        stale = ComponentRecord(State.READY, other.pid, start_time=1.0)
        data_dir = tmp_path / "data"
        data_dir.mkdir()
        MeshRecord(other.pid, 1.0, "", "", components={"nats": stale}).write(data_dir)
        up = start()
        assert up.wait_ready()["reaped"] == []
        up.end(signal.SIGINT)
        assert other.poll() is None
        other.kill()


def test_a_port_in_use_is_named(tmp_path: Path, free_port: int) -> None:
    with socket.create_server(("127.0.0.1", free_port)):
        command = [executable("finemesh"), "up", "--no-services", "--port", str(free_port)]
        done = subprocess.run(
            [*command, "--data-dir", str(tmp_path)],
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
    assert done.returncode == 1
    assert f"port {free_port} of 127.0.0.1 is in use" in done.stderr
    assert find(_mesh_id(tmp_path)) == []


def test_with_a_certificate_the_door_speaks_tls(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    options = ["--host", "127.0.0.1", "--public-host", "localhost"]
    options += ["--tls-certificate", str(certificate), "--tls-key", str(key)]
    up = Up(tmp_path / "data", *options)
    try:
        url = up.wait_ready()["url"]
        assert url.startswith("https://localhost:")
        with urllib3.PoolManager(ca_certs=str(certificate)) as pool:
            assert pool.request("GET", f"{url}/healthz", retries=False).status == 200
        assert up.end(signal.SIGINT) == 0
    finally:
        up.close()


def test_doctor_without_a_mesh(tmp_path: Path) -> None:
    command = [executable("finemesh"), "doctor", "--json", "--data-dir", str(tmp_path / "none")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
    findings = {finding["name"]: finding for finding in json.loads(done.stdout)}
    assert done.returncode == 0
    assert findings["mesh"]["verdict"] == "warning"
    assert findings["nats-server"]["detail"].startswith("nats-server")
    assert {"cpu", "memory", "gpu", "open files", "ray", "torch"} <= findings.keys()
    assert not (tmp_path / "none").exists()
