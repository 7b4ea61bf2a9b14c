"""The transactional outbox: what a transaction wants to say, written with it and published after it.

`Outbox.append` writes a row in the caller's transaction. One relay per service, the holder of a lease in the
same database, publishes the rows, in order per resource, with the message id that lets the broker recognise a
repetition. A crash between publishing and marking repeats the message with the same id.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, Final

import structlog
from sqlalchemy import RowMapping, delete, insert, select, update

from finemesh.chassis.events import MAX_PAYLOAD_BYTES, Event, EventBus, Message
from finemesh.chassis.inbox import Inbox
from finemesh.chassis.requests import Requests
from finemesh.chassis.sql import Database, Tx
from finemesh.chassis.tables import ChassisTables
from finemesh.core.clock import Clock, SystemClock
from finemesh.core.errors import InvalidError, UnavailableError

BATCH_SIZE: Final = 256
LEASE_SECONDS: Final = 5.0
POLL_SECONDS: Final = 1.0
MAX_BACK_OFF_SECONDS: Final = 5.0
RETENTION: Final = timedelta(days=1)
INBOX_RETENTION: Final = timedelta(days=100)  # longer than the broker keeps events to deliver again
REQUEST_RETENTION: Final = timedelta(days=7)
PRUNE_EVERY: Final = timedelta(minutes=10)
_LEASE_ID: Final = 1

log: Final = structlog.get_logger(__name__)


class Outbox:
    """Where a service's transactions put their messages."""

    def __init__(self, tables: ChassisTables, clock: Clock | None = None) -> None:
        self.tables = tables
        self.clock: Clock = clock or SystemClock()
        self.woken = asyncio.Event()

    async def append(self, tx: Tx, *messages: Event | Message) -> None:
        """Publish `messages` if and when `tx` commits; in the order of commits for each resource.

        Raises InvalidError, reason MESSAGE_TOO_LARGE: the broker would refuse it for ever.
        """
        outgoing = [each.message() if isinstance(each, Event) else each for each in messages]
        rows: list[Mapping[str, Any]] = [self._row(each) for each in outgoing]
        # So that sequence numbers of one resource rise in the order of commits.
        await tx.lock(*(each.key for each in outgoing))
        if rows:
            await tx.execute(insert(self.tables.outbox), rows)
            tx.after_commit(self.woken.set)

    def _row(self, outgoing: Message) -> dict[str, Any]:
        size = len(outgoing.payload)
        if size > MAX_PAYLOAD_BYTES:
            raise InvalidError(
                f"the message on {outgoing.subject} has {size} bytes, at most {MAX_PAYLOAD_BYTES} fit:"
                " refer to large content by its URI",
                reason="MESSAGE_TOO_LARGE",
            )
        return {
            "id": outgoing.id,
            "resource": outgoing.key,
            "subject": outgoing.subject,
            "headers": dict(outgoing.headers),
            "payload": outgoing.payload,
            "create_time": self.clock.now(),
        }


class Relay:
    """Publishes the outbox of one service. Run one per process; the lease lets a single one work."""

    def __init__(
        self, outbox: Outbox, db: Database, bus: EventBus, *, poll_seconds: float = POLL_SECONDS
    ) -> None:
        self._outbox = outbox
        self._table = outbox.tables.outbox
        self._lease = outbox.tables.outbox_lease
        self._clock = outbox.clock
        self._db = db
        self._bus = bus
        self._poll_seconds = poll_seconds
        self._owner = secrets.token_hex(8)
        self._lease_until = self._clock.now()
        self._prune_at = self._clock.now()

    async def run(self) -> None:
        """Publish until cancelled; then let the lease go."""
        back_off_seconds = self._poll_seconds
        try:
            while True:
                try:
                    busy = await self.publish_pending()
                    back_off_seconds = self._poll_seconds
                except UnavailableError as error:
                    log.warning("outbox.away", error=error.message, retry_seconds=back_off_seconds)
                    await asyncio.sleep(back_off_seconds)
                    back_off_seconds = min(2 * back_off_seconds, MAX_BACK_OFF_SECONDS)
                    continue
                if not busy:
                    await self._wait()
        finally:
            with contextlib.suppress(UnavailableError):
                await self._release()

    async def publish_pending(self) -> bool:
        """Publish one batch; tells whether there may be more.

        Raises UnavailableError when the broker or the database is away; what was published before is marked.
        """
        self._outbox.woken.clear()  # before reading: a commit during this batch starts the next one
        if not await self._hold_lease():
            return False
        rows = await self._unpublished()
        chains: dict[str, list[RowMapping]] = defaultdict(list)
        for row in rows:
            chains[row["resource"]].append(row)
        published: list[int] = []
        results = await asyncio.gather(
            *(self._publish_chain(chain, published) for chain in chains.values()), return_exceptions=True
        )
        await self._mark(published)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        await self._prune()
        return len(rows) == BATCH_SIZE

    async def _publish_chain(self, chain: Iterable[RowMapping], published: list[int]) -> None:
        """Publish the rows of one resource in order; stop at the first that fails."""
        for row in chain:
            if self._clock.now() >= self._lease_until:
                return  # another relay may have taken over
            message = Message(row["id"], row["resource"], row["subject"], row["headers"], row["payload"])
            await self._bus.publish(message)
            published.append(row["sequence"])

    async def _unpublished(self) -> list[RowMapping]:
        query = select(self._table).where(self._table.c.publish_time.is_(None))
        async with self._db.read() as tx:
            return await tx.rows(query.order_by(self._table.c.sequence).limit(BATCH_SIZE))

    async def _mark(self, published: list[int]) -> None:
        if not published:
            return
        done = update(self._table).where(self._table.c.sequence.in_(published))
        async with self._db.begin(brief=True) as tx:
            await tx.execute(done.values(publish_time=self._clock.now()))

    async def _hold_lease(self) -> bool:
        """Take the lease, or extend it when less than half is left."""
        now = self._clock.now()
        until = now + timedelta(seconds=LEASE_SECONDS)
        if self._lease_until - now > timedelta(seconds=LEASE_SECONDS / 2):
            return True
        lease = self._lease
        free = (lease.c.owner == self._owner) | (lease.c.expire_time <= now)
        take = update(lease).where(lease.c.id == _LEASE_ID, free).values(owner=self._owner, expire_time=until)
        async with self._db.begin() as tx:
            held = await tx.insert_new(lease, id=_LEASE_ID, owner=self._owner, expire_time=until)
            held = held or (await tx.execute(take)).rowcount == 1
        if held:
            self._lease_until = until
        return held

    async def _release(self) -> None:
        mine = (self._lease.c.id == _LEASE_ID) & (self._lease.c.owner == self._owner)
        async with self._db.begin() as tx:
            await tx.execute(delete(self._lease).where(mine))

    async def _prune(self) -> None:
        """Delete what nobody will ask for any more, of the outbox and of the tables beside it."""
        now = self._clock.now()
        if now < self._prune_at:
            return
        self._prune_at = now + PRUNE_EVERY
        async with self._db.begin() as tx:
            await tx.execute(delete(self._table).where(self._table.c.publish_time < now - RETENTION))
            await Inbox(self._outbox.tables, self._clock).prune(tx, INBOX_RETENTION)
            await Requests(self._outbox.tables, self._clock).prune(tx, REQUEST_RETENTION)

    async def _wait(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._poll_seconds):
                await self._outbox.woken.wait()
