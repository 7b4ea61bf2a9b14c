"""Effects exactly once: a consumer notes an event's id in the transaction that carries the effect."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import delete

from finemesh.chassis.sql import Tx
from finemesh.chassis.tables import ChassisTables
from finemesh.core.clock import Clock, SystemClock


class Inbox:
    """The events that the consumers of a service have dealt with."""

    def __init__(self, tables: ChassisTables, clock: Clock | None = None) -> None:
        self._table = tables.inbox
        self._clock = clock or SystemClock()

    async def once(self, tx: Tx, consumer: str, event_id: str) -> bool:
        """Whether `consumer` sees this event for the first time; noted when `tx` commits.

        A redelivery that runs at the same time waits for the first, then gets False.
        """
        now = self._clock.now()
        return await tx.insert_new(self._table, consumer=consumer, event_id=event_id, create_time=now)

    async def prune(self, tx: Tx, older_than: timedelta) -> int:
        """Forget events older than the broker could redeliver. Returns how many."""
        limit: datetime = self._clock.now() - older_than
        return (await tx.execute(delete(self._table).where(self._table.c.create_time < limit))).rowcount
