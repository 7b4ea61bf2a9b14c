"""Equal exports get one package: it is made once, and given to all who ask for it.

An export is placed with the lock of its content held. If its package is there, it gets that; if another
export is making it, it waits for the end of that one; otherwise it goes to work itself. The end of a maker
wakes nobody in its own transaction, which would have to lock others: `run` looks after those who wait.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Final

import structlog

from finemesh.core.clock import Clock
from finemesh.core.errors import FinemeshError, NotFoundError
from finemesh.core.names import Name
from finemesh.core.states import EXPORT
from finemesh.export import domain
from finemesh.export.domain import Export, State, Step
from finemesh.export.ports import Store, Unit

log: Final = structlog.get_logger(__name__)

TICK_SECONDS: Final = 0.5


class Sharing:
    """Who makes a package, and who gets it."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def place(self, unit: Unit, export: Export) -> Export:
        """Give a QUEUED export its package, have it wait for one, or start its work."""
        await unit.same_content(export)
        maker = await unit.maker(export)
        if maker is None:
            if export.waits_for:
                export = await unit.save(Step(replace(export, waits_for="", message="waiting for a cluster")))
            await unit.dispatch(export.name)
            return export
        now = self._clock.now()
        found = maker.state is State.SUCCEEDED
        return await unit.save((domain.shared if found else domain.awaiting)(export, maker, now))

    async def run(self) -> None:
        """Look after those who wait, until cancelled."""
        while True:
            try:
                await self.settle()
            except FinemeshError as error:
                log.warning("sharing.tick_failed", reason=error.reason, error=error.message)
            await asyncio.sleep(TICK_SECONDS)

    async def settle(self) -> None:
        """Place anew those whose maker has ended."""
        async with self._store.read() as view:
            waiting = await view.waiting()
        for name in waiting:
            async with self._store.begin() as unit:
                await self._settle(unit, name)

    async def _settle(self, unit: Unit, name: Name) -> None:
        try:
            export = await unit.locked(name)
        except NotFoundError:
            return
        if export.state is not State.QUEUED or not export.waits_for:
            return
        try:
            maker = await unit.export(replace(name, id=export.waits_for))
        except NotFoundError:
            maker = None
        if maker is not None and maker.state in {State.REJECTED, State.FAILED}:
            await unit.save(domain.shared(export, maker, self._clock.now()))
        elif maker is None or maker.state in EXPORT.terminal | {State.CANCELLING} or maker.waits_for:
            await self.place(unit, export)
