"""Real servers for tests: each on free loopback ports, with its own folder, ended with the test process."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import secrets
import shutil
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from finemesh.embedded.ports import PortReservations

# Tests share a machine that may be slow: this finds what hangs, not what takes its time.
PATIENCE_SECONDS: Final = 120.0

# Ask the kernel to end the server when the tests are killed, then become the server. A small interpreter does
# this in place of `preexec_fn`, which forks in Python and so must not run beside an open gRPC channel.
_END_WITH_PARENT: Final = (
    "import ctypes, os, signal, sys\n"
    "if sys.platform == 'linux': ctypes.CDLL(None).prctl(1, signal.SIGKILL)\n"
    "os.execv(sys.argv[1], sys.argv[1:])"
)


def executable(name: str) -> str:
    """The path of a server that a wheel put beside this interpreter, or one on the PATH."""
    beside = Path(sysconfig.get_path("scripts")) / name
    found = str(beside) if beside.exists() else shutil.which(name)
    assert found, f"{name} is not installed: run `make test`, or pip install '.[embedded]'"
    return found


_reserved: Final = PortReservations({})
_names: Final = map(str, itertools.count())


def free_ports(count: int) -> list[int]:
    """`count` different TCP ports of loopback that nobody else takes while this process lives.

    A server may listen beside the reservation, also once more after it was killed. Without it, tests that run
    side by side would be given the same port between the moment it is found and the moment it is used.
    """
    return [_reserved.take(next(_names)) for _ in range(count)]


def wait_until(ready: Callable[[], bool], what: str, timeout_seconds: float = PATIENCE_SECONDS) -> None:
    """Poll `ready` until it is true. Raises TimeoutError that names `what`."""
    deadline = time.monotonic() + timeout_seconds
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} not ready after {timeout_seconds} s")
        time.sleep(0.02)


@dataclass
class ServerProcess:
    """A child process with its output in `log_path`."""

    command: list[str]
    folder: Path
    log_path: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> int:
        """Start the process and return its pid."""
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _END_WITH_PARENT, *self.command],
                cwd=self.folder,
                env={**os.environ, "HOME": str(self.folder)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def require_running(self) -> None:
        assert self.running, f"{self.command[0]} ended at once:\n{self.log_path.read_text()[-4000:]}"

    def stop(self) -> None:
        """Ask to end, wait, then insist."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.kill()
        self.process = None

    def kill(self) -> None:
        """SIGKILL: what a crash looks like."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@dataclass
class NatsServer:
    """nats-server with JetStream. `kill` and `start` again keep the port and the stored streams."""

    folder: Path
    port: int = -1
    _server: ServerProcess | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> NatsServer:
        """Start and wait until it listens. The first start lets the server choose a free port."""
        self.folder.mkdir(parents=True, exist_ok=True)
        arguments = ["-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", str(self.folder / "jetstream")]
        command = [executable("nats-server"), *arguments, "--ports_file_dir", str(self.folder)]
        server = self._server = ServerProcess(command, self.folder, self.folder / "nats.log")
        ports_file = self.folder / f"nats-server_{server.start()}.ports"

        def listening() -> bool:
            server.require_running()
            with contextlib.suppress(FileNotFoundError, json.JSONDecodeError, KeyError):
                self.port = int(json.loads(ports_file.read_text())["nats"][0].rpartition(":")[2])
                return True
            return False

        wait_until(listening, "nats-server")
        return self

    def kill(self) -> None:
        if self._server:
            self._server.kill()

    def stop(self) -> None:
        if self._server:
            self._server.stop()


@dataclass
class S3Server:
    """SeaweedFS (`weed mini`) as an S3 endpoint. `kill` and `start` again keep the ports and the objects."""

    folder: Path
    access_key: str = "finemesh"
    secret_key: str = field(default_factory=lambda: secrets.token_hex(16))
    bucket: str = "finemesh-test"
    ports: list[int] = field(default_factory=lambda: free_ports(10))
    _server: ServerProcess | None = None

    @property
    def endpoint(self) -> str:
        """host:port, without a scheme."""
        return f"127.0.0.1:{self.ports[0]}"

    @property
    def filer_endpoint(self) -> str:
        return f"127.0.0.1:{self.ports[5]}"

    def start(self) -> S3Server:
        """Start and wait until S3 answers. Creating the bucket is left to `ensure_bucket`."""
        data = self.folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        self._write_configuration()
        names = "s3.port s3.port.grpc master.port master.port.grpc volume.port filer.port filer.port.grpc "
        names += "volume.port.grpc admin.port admin.port.grpc"
        ports = [f"-{name}={port}" for name, port in zip(names.split(), self.ports, strict=True)]
        off = ["webdav", "admin.ui", "master.telemetry"]
        off += ["s3.allowDeleteBucketNotEmpty", "s3.autoCreateBucket"]
        # The sockets' default place is /tmp, and a socket path has room for about 100 bytes.
        sockets = ["-filer.localSocket=filer.sock", "-s3.localSocket=s3.sock"]
        where = [f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3.config=s3.json"]
        unused = ["-s3.port.iceberg=0", "-s3.port.lance=0", *(f"-{name}=false" for name in off)]
        command = [executable("weed"), "-logtostderr=true", "mini", *where, *ports, *unused, *sockets]
        server = self._server = ServerProcess(command, self.folder, self.folder / "weed.log")
        server.start()

        def answers() -> bool:
            server.require_running()
            try:
                urllib.request.urlopen(f"http://{self.endpoint}/", timeout=2).close()
            except urllib.error.HTTPError as error:
                error.close()
                return error.code == 403  # anonymous callers are refused: the credentials are loaded
            except OSError:
                return False
            return False

        wait_until(answers, "SeaweedFS S3")
        return self

    def _write_configuration(self) -> None:
        credentials = {"accessKey": self.access_key, "secretKey": self.secret_key}
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        identity = {"name": "finemesh", "credentials": [credentials], "actions": actions}
        (self.folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        # Without these keys the filer and volume ports serve every object to anybody.
        signing = ("jwt.signing", "jwt.signing.read", "jwt.filer_signing", "jwt.filer_signing.read")
        sections = [f'[{name}]\nkey = "{secrets.token_hex(16)}"\n' for name in signing]
        (self.folder / "security.toml").write_text("".join(sections))

    def kill(self) -> None:
        if self._server:
            self._server.kill()

    def stop(self) -> None:
        if self._server:
            self._server.stop()
        # `weed` puts the sockets of gRPC where no flag can change it, and leaves them.
        for port in self.ports:
            for left in Path("/tmp").glob(f"seaweedfs-*-grpc-{port}.sock"):
                left.unlink(missing_ok=True)
