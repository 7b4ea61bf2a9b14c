"""A real Ray head on free loopback ports, with a token and a folder of its own."""

from __future__ import annotations

import secrets
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from finemesh.chassis.auth import write_private_file
from finemesh.embedded.environment import ray_environment
from finemesh.embedded.processes import signal_all

from tests.support.servers import PATIENCE_SECONDS, ServerProcess, executable, free_ports, wait_until


@dataclass
class RayHeadProcess:
    """`ray start --head --block`. `kill` and `start` again keep port and token, and make a new cluster."""

    folder: Path
    cpus: int = 3
    gpus: int = 0
    port: int = field(default_factory=lambda: free_ports(1)[0])
    # The paths of Ray's sockets have room for about 100 bytes: too few for a test's own folder.
    sessions: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="fm-ray-")))
    _server: ServerProcess | None = None

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.token_path = self.folder / "token"
        write_private_file(self.token_path, secrets.token_hex(32))

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def token(self) -> str:
        return self.token_path.read_text().strip()

    @property
    def environment(self) -> dict[str, str]:
        """What a driver of this head needs."""
        return ray_environment(self.token_path)

    def start(self) -> RayHeadProcess:
        """Start, and wait until the node is registered."""
        announced = self.sessions / "ray_current_cluster"
        announced.unlink(missing_ok=True)
        others = free_ports(3)
        options = {
            "node-ip-address": "127.0.0.1",
            "port": self.port,
            "ray-client-server-port": others[0],
            "dashboard-port": others[1],
            "dashboard-agent-listen-port": others[2],
            "min-worker-port": 0,
            "max-worker-port": 0,
            "include-dashboard": "false",
            "include-log-monitor": "false",
            "object-store-memory": 100 << 20,
            "temp-dir": self.sessions,
            "num-cpus": self.cpus,
            "num-gpus": self.gpus,
        }
        switches = ["--head", "--block", "--no-monitor", "--disable-usage-stats"]
        variables = [f"{name}={value}" for name, value in self.environment.items()]
        arguments = [f"--{name}={value}" for name, value in options.items()]
        command = ["/usr/bin/env", *variables, executable("ray"), "start", *switches, *arguments]
        server = self._server = ServerProcess(command, self.folder, self.folder / "ray.log")
        server.start()

        def registered() -> bool:
            server.require_running()
            return announced.is_file()

        wait_until(registered, "Ray's head")
        return self

    @property
    def processes(self) -> list[psutil.Process]:
        """Every process of this head, workers included."""
        if self._server is None or self._server.process is None:
            return []
        root = psutil.Process(self._server.process.pid)
        return [root, *root.children(recursive=True)]

    def kill(self) -> None:
        """SIGKILL everything of this head."""
        processes = self.processes
        if self._server is not None:
            self._server.kill()
        signal_all(processes, psutil.Process.kill)
        psutil.wait_procs(processes, PATIENCE_SECONDS)

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.sessions, ignore_errors=True)


def agent_command(environment: dict[str, str], program: Sequence[str]) -> list[str]:
    """The cluster agent as a command that brings its environment along; `program` is what Python is told."""
    variables = [f"{name}={value}" for name, value in environment.items()]
    return ["/usr/bin/env", *variables, sys.executable, *program]
