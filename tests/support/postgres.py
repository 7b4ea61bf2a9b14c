"""A throw-away PostgreSQL server, if this machine has the programs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import asyncpg

from tests.support.servers import free_ports

# PostgreSQL refuses to run as root. Changing user clears the request to end with the parent, so it is first.
_AS_USER: Final = (
    "import ctypes, os, signal, sys\n"
    "uid, gid = int(sys.argv[1]), int(sys.argv[2])\n"
    "if uid != os.getuid(): os.setgroups([]); os.setgid(gid); os.setuid(uid)\n"
    "if sys.platform == 'linux': ctypes.CDLL(None).prctl(1, signal.SIGKILL)\n"
    "os.execv(sys.argv[3], sys.argv[3:])"
)


def postgres_programs() -> Path | None:
    """The folder of `initdb` and `postgres`, or None."""
    on_path = shutil.which("initdb")
    candidates = [Path(on_path).resolve().parent] if on_path else []
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in candidates if (folder / "postgres").exists()), None)


class PostgresServer:
    """One server on a free loopback port; every test makes databases of its own in it."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._folder = Path(tempfile.mkdtemp(prefix="finemesh-pg-"))
        self._port = free_ports(1)[0]
        self._process: subprocess.Popen[bytes] | None = None
        user = pwd.getpwnam("postgres") if os.getuid() == 0 else pwd.getpwuid(os.getuid())
        self._identity = [str(user.pw_uid), str(user.pw_gid)]
        if os.getuid() == 0:
            os.chown(self._folder, user.pw_uid, user.pw_gid)

    def start(self) -> PostgresServer:
        data = str(self._folder / "data")
        initdb = [str(self._programs / "initdb"), "-D", data, "-U", "finemesh", "-A", "trust", "--no-sync"]
        subprocess.run(self._command(initdb), check=True, stdout=subprocess.DEVNULL, cwd=self._folder)
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self._port),
            "unix_socket_directories": str(self._folder),
            "fsync": "off",  # the machine is not going to lose power
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        self._process = subprocess.Popen(
            self._command([str(self._programs / "postgres"), "-D", data, *options]),
            cwd=self._folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        return self

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)  # "fast shutdown"
            self._process.wait(30)
        shutil.rmtree(self._folder, ignore_errors=True)

    def url(self, database: str) -> str:
        return f"postgresql://finemesh@127.0.0.1:{self._port}/{database}"

    async def create_database(self, name: str) -> str:
        """A fresh database; returns its URL."""
        connection = await self._connect()
        try:
            await connection.execute(f'CREATE DATABASE "{name}"')
        finally:
            await connection.close()
        return self.url(name)

    async def _connect(self) -> asyncpg.Connection:
        for _ in range(200):
            with contextlib.suppress(OSError, asyncpg.CannotConnectNowError):
                return await asyncpg.connect(self.url("postgres"))
            assert self._process is not None
            assert self._process.poll() is None, "PostgreSQL ended at once"
            await asyncio.sleep(0.05)
        raise TimeoutError("PostgreSQL not ready after 10 s")

    def _command(self, command: list[str]) -> list[str]:
        return [sys.executable, "-I", "-S", "-c", _AS_USER, *self._identity, *command]
