"""What goes without anybody asking: exports that have had their time, and objects that belong to nobody."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from finemesh.core.clock import Clock
from finemesh.core.errors import FinemeshError
from finemesh.export.ports import Store
from finemesh.export.service import ExportService

log: Final = structlog.get_logger(__name__)


class Sweeper:
    """Sweeps every `seconds`."""

    def __init__(self, store: Store, service: ExportService, clock: Clock, *, seconds: float) -> None:
        self._store = store
        self._service = service
        self._clock = clock
        self._seconds = seconds

    async def run(self) -> None:
        """Sweep until cancelled. What fails is tried again with the next round."""
        while True:
            try:
                await self.sweep()
            except FinemeshError as error:
                log.warning("sweeper.failed", reason=error.reason, error=error.message)
            await asyncio.sleep(self._seconds)

    async def sweep(self) -> None:
        """One round."""
        now = self._clock.now()
        async with self._store.read() as view:
            expired, garbage = await view.expired(now), await view.garbage(now)
        for name in expired:
            try:
                await self._service.expire(name)
            except FinemeshError as error:
                log.warning("sweeper.kept", export=str(name), reason=error.reason, error=error.message)
        for uri in garbage:
            await self._service.clean(uri)
