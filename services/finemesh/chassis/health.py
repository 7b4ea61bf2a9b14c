"""grpc.health.v1 by full service name, kept current by readiness checks.

A check is an async callable that returns when its dependency answers and raises otherwise, e.g.
`{"nats": bus.check, "s3": store.ensure_bucket, "sql": database.check}`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from grpc_health.v1 import health_pb2
from grpc_health.v1._async import HealthServicer

from finemesh.chassis.logs import get_logger

Check = Callable[[], Awaitable[object]]

CHECK_TIMEOUT_SECONDS: Final = 5.0

_log = get_logger("finemesh.health")


class HealthMonitor:
    """Polls checks and sets the status of every service of this process, and of "" for the whole process."""

    def __init__(self, checks: Mapping[str, Check], interval_seconds: float) -> None:
        self.servicer: Any = HealthServicer()
        self._checks = dict(checks)
        self._interval_seconds = interval_seconds
        self._failures: dict[str, str] = {}
        self._services: list[str] = [""]
        self._task: asyncio.Task[None] | None = None

    async def start(self, services: list[str]) -> None:
        """Set the first status from one round of checks, then poll."""
        self._services = ["", *services]
        await self.poll()
        self._task = asyncio.create_task(self._poll_forever(), name="health")

    async def stop(self) -> None:
        """NOT_SERVING for good, so that callers go elsewhere while calls in flight finish."""
        await self.servicer.enter_graceful_shutdown()
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def poll(self) -> dict[str, str]:
        """One round of checks. Returns the failing ones with their reasons."""
        names = list(self._checks)
        reasons = await asyncio.gather(*(self._failure(name) for name in names))
        failures = {name: reason for name, reason in zip(names, reasons, strict=True) if reason}
        if failures.keys() != self._failures.keys():
            write = _log.warning if failures else _log.info
            write("not_ready" if failures else "ready", failing=failures)
        self._failures = failures
        serving = health_pb2.HealthCheckResponse.SERVING
        status = health_pb2.HealthCheckResponse.NOT_SERVING if failures else serving
        for service in self._services:
            await self.servicer.set(service, status)
        return failures

    async def _failure(self, name: str) -> str:
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
                await self._checks[name]()
        except TimeoutError:
            return f"no answer within {CHECK_TIMEOUT_SECONDS} s"
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return ""

    async def _poll_forever(self) -> None:
        while True:
            await asyncio.sleep(self._interval_seconds)
            await self.poll()
