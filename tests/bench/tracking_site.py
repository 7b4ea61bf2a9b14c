"""What the bars of Tracking stand on: the service with its broker and object store, the servers of peers, and
client processes that take orders together.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
from finemesh.chassis.auth import Role

from tests.bench.measuring import ENVIRONMENT, ROOT
from tests.bench.peers import peer_python
from tests.support.servers import NatsServer, S3Server, ServerProcess, free_ports, wait_until
from tests.support.services import ServiceProcess

MLFLOW: Final = ("mlflow==3.17.2",)
AIM: Final = ("aim==3.29.1",)


@dataclass
class Site:
    """A Tracking service of its own."""

    service: ServiceProcess

    @property
    def target(self) -> str:
        return f"{self.service.address} {self.service.key.mint('bench', Role.OPERATOR, ['p'], 36_000)}"

    def size_bytes(self) -> int:
        """Of the points file and its log."""
        return sum(path.stat().st_size for path in (self.service.folder / "data").glob("points.duckdb*"))

    def peak_mb(self) -> float:
        """The most memory that has been resident, of this process of the service."""
        status = Path(f"/proc/{self.service.pid}/status").read_text()
        [line] = [line for line in status.splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) * 1024 / 1e6


@contextlib.contextmanager
def site(folder: Path) -> Generator[Site]:
    nats, s3 = NatsServer(folder / "nats"), S3Server(folder / "s3")
    settings = {"FINEMESH_DATA_DIR": str(folder / "data")}
    service = ServiceProcess("tracking", folder, nats, s3, settings)
    try:
        nats.start()
        s3.start()
        service.start()
        yield Site(service)
    finally:
        service.stop()
        s3.kill()
        nats.kill()


@contextlib.contextmanager
def site_elsewhere(folder: Path) -> Generator[Site]:
    """With its broker and store on a core that whatever else starts here does not use: a mesh has them on
    other machines than a trainer and its sender.
    """
    cores = os.sched_getaffinity(0)
    theirs = {min(cores)}
    os.sched_setaffinity(0, theirs)
    try:
        with site(folder) as own:
            os.sched_setaffinity(0, cores - theirs or cores)
            yield own
    finally:
        os.sched_setaffinity(0, cores)


@contextlib.contextmanager
def mlflow_server(folder: Path) -> Generator[str]:
    """MLflow's server on SQLite, over HTTP; gives its URL."""
    folder.mkdir()
    [port] = free_ports(1)
    python = peer_python("tracking-mlflow", MLFLOW)
    database, artifacts = f"sqlite:///{folder / 'mlflow.db'}", f"{folder / 'artifacts'}"
    # Its own jobs, of which none is asked for, would only take its time.
    command = ["/usr/bin/env", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false"]
    command += [str(python), "-m", "mlflow", "server", "--backend-store-uri", database]
    command += ["--default-artifact-root", artifacts, "--host", "127.0.0.1", "--port", str(port)]
    server = ServerProcess(command, folder, folder / "mlflow.log")
    try:
        server.start()
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: _answers(f"{url}/health"), "mlflow", 300)
        yield url
    finally:
        server.stop()  # it ends its own processes, which a kill would leave behind


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False


class Clients:
    """Processes of `tests.bench.tracking_clients` that share `runs` new runs; they are warm, and wait."""

    def __init__(
        self,
        system: str,
        target: str,
        *,
        first_run: int,
        runs: int = 20,
        steps: int = 1000,
        clients: int = 1,
        python: Path | str = sys.executable,
    ) -> None:
        share = runs // clients
        self._processes = [
            subprocess.Popen(
                [str(python), "-m", "tests.bench.tracking_clients", system, target]
                + [str(first_run + index * share), str(share), str(steps)],
                cwd=ROOT,
                env=ENVIRONMENT,
                text=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            for index in range(clients)
        ]
        self._answers()

    def order(self, what: str) -> tuple[float, int]:
        """Give an order to all of them at once: seconds until the last is done, and points."""
        for process in self._processes:
            assert process.stdin
            process.stdin.write(f"{what}\n")
            process.stdin.flush()
        answers = self._answers()
        return max(each["seconds"] for each in answers), int(sum(each["points"] for each in answers))

    def start(self, what: str) -> None:
        """Give an order and do not wait for it; `close` does."""
        for process in self._processes:
            assert process.stdin
            process.stdin.write(f"{what}\n")
            process.stdin.flush()

    def close(self) -> None:
        for process in self._processes:
            process.communicate()

    def end(self) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()

    def _answers(self) -> Sequence[dict[str, float]]:
        lines = [process.stdout.readline() for process in self._processes if process.stdout]
        if not all(lines):
            sys.exit("a client has failed; its words are above")
        return [json.loads(line) for line in lines]
