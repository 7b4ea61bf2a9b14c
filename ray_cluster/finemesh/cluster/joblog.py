"""What the processes of an attempt write, in a file on their node until Training has it.

The worker's stdout and stderr become the file itself, so whatever was written is there after a SIGKILL. The
supervisor brings the file to Training while it grows. What neither has brought, because both were killed, the
next attempt's supervisor does, or the agent, before the file is removed.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import grpc.aio

from finemesh.chassis.errors import from_rpc_error
from finemesh.chassis.logs import configure_logging, get_logger
from finemesh.cluster.shipper import REFUSALS
from finemesh.v1.training_log_pb2 import AppendTrainingJobLogRequest
from finemesh.v1.training_service_pb2_grpc import TrainingServiceStub

SUFFIX: Final = ".log"
_POLL_SECONDS: Final = 0.3
_PART_BYTES: Final = 128 * 1024
_BACK_OFF_SECONDS: Final = (0.3, 1.0, 2.0, 5.0)
_SECRET_NAME: Final = re.compile(r"(TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|ACCESS_KEY|CREDENTIALS?)$")
_SHORTEST_SECRET: Final = 8
_BEARER: Final = re.compile(rb"eyJ[\w-]+\.[\w-]+\.[\w-]+")

_log = get_logger("finemesh.joblog")


def log_path(log_dir: Path, job: str, attempt: int) -> Path:
    """Where an attempt's log is; `job` is a file name, see `attempts.resource_key`."""
    return log_dir / job / f"{attempt:06d}{SUFFIX}"


def logs_of(log_dir: Path, job: str) -> list[Path]:
    """The logs of a job that are still there, earliest attempt first."""
    return sorted((log_dir / job).glob(f"*{SUFFIX}"))


def attempt_of(path: Path) -> int:
    """The number of the attempt whose log this is."""
    return int(path.stem)


def redirect(path: Path, log_level: str) -> None:
    """Let everything that this process writes to stdout and stderr from now on, and its log, go to the file.

    The ranks of an attempt that share a node share the file: a line is appended in one piece.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    for number in (1, 2):
        os.dup2(file, number)
    os.close(file)
    sys.stdout, sys.stderr = (open(n, "w", buffering=1, closefd=False) for n in (1, 2))  # noqa: SIM115
    configure_logging("worker", log_level)


class Redactor:
    """Covers secrets with stars, one for each byte, so that offsets stay what they are."""

    def __init__(self, *secrets: str, environ: Mapping[str, str] = os.environ) -> None:
        named = [value for name, value in environ.items() if _SECRET_NAME.search(name.upper())]
        found = {each for each in (*secrets, *named) if len(each) >= _SHORTEST_SECRET}
        known = b"|".join(re.escape(each.encode()) for each in sorted(found, key=len, reverse=True))
        self._pattern = re.compile(known + b"|" + _BEARER.pattern if known else _BEARER.pattern)

    def __call__(self, content: bytes) -> bytes:
        return self._pattern.sub(lambda found: b"*" * len(found[0]), content)


class LogShipper:
    """One log on its way to Training."""

    def __init__(self, training: grpc.aio.Channel, resource: str, path: Path, redact: Redactor) -> None:
        self._stub = TrainingServiceStub(training)
        self._resource = resource
        self._path = path
        self._redact = redact
        self._durable = 0

    async def ship(self, complete: Callable[[], bool]) -> None:
        """Ship until `complete()` says that nothing more will be written and all is durable, and remove it.

        Training being away is waited for without end. Raises FencedError, PermissionDeniedError, InvalidError
        or NotFoundError when Training does not want it.
        """
        failures = 0
        while True:
            # Asked before reading: what was written before the writer ended is then surely read.
            last = complete()
            try:
                sent = await self._send(last=last)
                failures = 0
            except grpc.aio.AioRpcError as error:
                cause = from_rpc_error(error)
                if isinstance(cause, REFUSALS):
                    _log.warning("log_refused", log=str(self._path), reason=cause.reason, error=str(cause))
                    raise cause from error
                await asyncio.sleep(_BACK_OFF_SECONDS[min(failures, len(_BACK_OFF_SECONDS) - 1)])
                failures += 1
                continue
            if not sent:
                if last:
                    remove_log(self._path)
                    return
                await asyncio.sleep(_POLL_SECONDS)

    async def _send(self, *, last: bool) -> bool:
        """Send the next part. Returns whether there was one. Raises AioRpcError."""
        content = self._read(last=last)
        if not content:
            return False
        request = AppendTrainingJobLogRequest(
            name=self._resource,
            attempt=attempt_of(self._path),
            offset=self._durable,
            content=self._redact(content),
        )
        answer = await self._stub.AppendTrainingJobLog(request, timeout=10.0)
        self._durable = answer.durable_bytes
        return True

    def _read(self, *, last: bool) -> bytes:
        """What follows what is durable: whole lines while there are some, so that no secret is cut."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._durable)
                content = file.read(_PART_BYTES)
        except FileNotFoundError:
            return b""
        end = content.rfind(b"\n") + 1
        return content[:end] if end or not (last or len(content) == _PART_BYTES) else content


def remove_log(path: Path) -> None:
    """Remove a log that is durable elsewhere, and its folder once it is empty."""
    path.unlink(missing_ok=True)
    try:
        path.parent.rmdir()
    except OSError:  # another attempt's log is still there
        return
