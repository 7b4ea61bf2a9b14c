"""What keeps the points in order: cuts segments, ships and merges them, forgets what has had its time."""

from __future__ import annotations

import asyncio
import contextlib
import time
from datetime import datetime, timedelta
from typing import Final

from finemesh.chassis.logs import get_logger
from finemesh.core.clock import Clock
from finemesh.core.errors import FinemeshError
from finemesh.core.names import parse_name
from finemesh.tracking.archive import Archive
from finemesh.tracking.points import PointFile
from finemesh.tracking.ports import PointWriter, RunStore
from finemesh.tracking.segments import SLICE_POINTS, Cutter

_LOOK_SECONDS: Final = 0.5
_RETENTION_SECONDS: Final = 3600.0
_LAST_SHIPMENT_SECONDS: Final = 5.0

_log = get_logger(__name__)


class Keeper:
    """Belongs to one event loop; `run` beside the server, `finish` once nothing more is committed."""

    def __init__(
        self,
        file: PointFile,
        cutter: Cutter,
        archive: Archive,
        *,
        interval_seconds: float,
    ) -> None:
        self._file = file
        self._cutter = cutter
        self._archive = archive
        self._interval_seconds = interval_seconds
        self._cut_event = asyncio.Event()

    async def run(self) -> None:
        """Cut and ship until cancelled. What fails is tried again."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._cutting())
            tasks.create_task(self._shipping())

    async def finish(self) -> None:
        """Cut what is left and ship it; what the store does not take in time waits for the next start."""
        with contextlib.suppress(FinemeshError, OSError):
            await asyncio.to_thread(self._cutter.cut)
            async with asyncio.timeout(_LAST_SHIPMENT_SECONDS):
                await self._archive.ship()

    async def _cutting(self) -> None:
        due = time.monotonic() + self._interval_seconds
        while True:
            try:
                waiting = await asyncio.to_thread(self._cutter.waiting)
                if waiting < SLICE_POINTS and time.monotonic() < due:
                    await asyncio.sleep(_LOOK_SECONDS)
                    continue
                due = time.monotonic() + self._interval_seconds
                if await asyncio.to_thread(self._cutter.cut):
                    self._cut_event.set()
                await asyncio.to_thread(self._cutter.sort)
            except FinemeshError as error:
                _log.warning("points_not_cut", error=error.message)
                with contextlib.suppress(FinemeshError):
                    await asyncio.to_thread(self._file.heal)
                await asyncio.sleep(_LOOK_SECONDS)

    async def _shipping(self) -> None:
        """At every cut, and at intervals for what did not go."""
        told = ""
        while True:
            try:
                if await self._archive.ship():
                    while await self._archive.merge():
                        pass
                told = ""
            except (FinemeshError, OSError) as error:
                reason = error.reason if isinstance(error, FinemeshError) else "DISK"
                if reason != told:  # once, not at every interval for as long as the store is away
                    _log.warning("segments_wait", reason=reason, error=str(error))
                told = reason
            self._cut_event.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._interval_seconds):
                    await self._cut_event.wait()


async def forget_old_points(
    file: PointFile, store: RunStore, writer: PointWriter, clock: Clock, retention_days: float
) -> None:
    """Every hour, remove the points of runs that ended so long ago; what summarises them stays.

    0 days: keep them for ever.
    """
    while True:
        try:
            if retention_days > 0:
                await forget_ended_before(clock.now() - timedelta(days=retention_days), file, store, writer)
        except FinemeshError as error:
            _log.warning("points_not_forgotten", error=error.message)
        await asyncio.sleep(_RETENTION_SECONDS)


async def forget_ended_before(
    oldest: datetime, file: PointFile, store: RunStore, writer: PointWriter
) -> None:
    """Remove the points of runs that ended before `oldest`. Raises UnavailableError."""
    for name in file.marks():
        run = await store.find(parse_name(name, "runs"))
        if run is not None and run.end_time is not None and run.end_time < oldest:
            await writer.delete(name)
            _log.info("points_forgotten", run=name, end_time=run.end_time.isoformat())
