"""The outbox and its relay: on both databases, over a real NATS, and through every kind of death."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import uuid
from collections.abc import AsyncGenerator, Callable
from datetime import UTC, datetime

import pytest
from finemesh.chassis import outbox as outbox_module
from finemesh.chassis.bus import BusConfig, NatsEventBus
from finemesh.chassis.events import Delivery, Event, Message, event_subject
from finemesh.chassis.inbox import Inbox
from finemesh.chassis.outbox import Outbox, Relay
from finemesh.chassis.sql import Database
from finemesh.chassis.tables import ChassisTables
from finemesh.core.clock import ManualClock
from finemesh.core.errors import InvalidError, UnavailableError
from sqlalchemy import func, select

from tests.support.memory_event_bus import MemoryEventBus
from tests.support.servers import PATIENCE_SECONDS, NatsServer

pytestmark = pytest.mark.integration

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def event(resource_id: str, payload: bytes = b"", project: str = "acme") -> Event:
    resource = f"projects/{project}/exports/{resource_id}"
    return Event(
        "export", "started", resource, "finemesh/test", "finemesh.events.v1.ExportStarted", payload, NOON
    )


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def outbox(tables: ChassisTables, clock: ManualClock) -> Outbox:
    return Outbox(tables, clock)


@pytest.fixture
def bus() -> MemoryEventBus:
    return MemoryEventBus()


async def write(db: Database, outbox: Outbox, *events: Event) -> None:
    async with db.begin() as tx:
        for each in events:
            await outbox.append(tx, each)


def payloads(bus: MemoryEventBus, resource_id: str) -> list[bytes]:
    return [message.payload for message in bus.published if message.key.endswith(f"/{resource_id}")]


@contextlib.asynccontextmanager
async def running(relay: Relay) -> AsyncGenerator[None]:
    task = asyncio.create_task(relay.run())
    try:
        yield
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def until(condition: Callable[[], bool], timeout_seconds: float = PATIENCE_SECONDS) -> None:
    async with asyncio.timeout(timeout_seconds):
        while not condition():  # noqa: ASYNC110  what is awaited happens in another process or in SQL
            await asyncio.sleep(0.01)


async def test_what_is_rolled_back_is_never_said(
    database: Database, outbox: Outbox, bus: MemoryEventBus
) -> None:
    async def fail() -> None:
        async with database.begin() as tx:
            await outbox.append(tx, event("a"))
            raise KeyError

    with pytest.raises(KeyError):
        await fail()
    assert not outbox.woken.is_set()
    await Relay(outbox, database, bus).publish_pending()
    assert bus.published == []


async def test_a_commit_wakes_the_relay(database: Database, outbox: Outbox, bus: MemoryEventBus) -> None:
    async with running(Relay(outbox, database, bus, poll_seconds=3600)):
        await until(lambda: not outbox.woken.is_set())
        one = event("a", b"1")
        await write(database, outbox, one)
        await until(lambda: len(bus.published) == 1)
    (message,) = bus.published
    assert message == one.message()


async def test_an_outage_delays_and_keeps_the_order(
    database: Database, outbox: Outbox, bus: MemoryEventBus
) -> None:
    bus.available = False
    relay = Relay(outbox, database, bus, poll_seconds=0.01)
    for number in range(6):
        await write(database, outbox, event("ab"[number % 2], b"%d" % number))
    with pytest.raises(UnavailableError):
        await relay.publish_pending()
    async with running(relay):
        bus.available = True
        await until(lambda: len(bus.published) == 6)
    assert payloads(bus, "a") == [b"0", b"2", b"4"]
    assert payloads(bus, "b") == [b"1", b"3", b"5"]


class RefusesOne(MemoryEventBus):
    """Takes everything but the messages of one resource."""

    refused = "/a"

    async def publish(self, message: Message) -> None:
        if self.refused and message.key.endswith(self.refused):
            raise UnavailableError("not this one")
        await super().publish(message)


async def test_a_resource_that_cannot_be_published_does_not_hold_back_the_others(
    database: Database, outbox: Outbox
) -> None:
    bus = RefusesOne()
    relay = Relay(outbox, database, bus)
    await write(database, outbox, event("a", b"1"), event("b", b"1"), event("a", b"2"), event("b", b"2"))
    with pytest.raises(UnavailableError):
        await relay.publish_pending()
    assert payloads(bus, "b") == [b"1", b"2"]
    bus.refused = ""
    await relay.publish_pending()
    assert payloads(bus, "a") == [b"1", b"2"]
    assert len(bus.published) == 4


async def test_one_relay_works_and_another_takes_over(
    database: Database, outbox: Outbox, bus: MemoryEventBus, clock: ManualClock
) -> None:
    first, second = Relay(outbox, database, bus), Relay(outbox, database, bus)
    await first.publish_pending()
    await write(database, outbox, event("a"))
    await second.publish_pending()
    assert bus.published == []
    clock.advance(outbox_module.LEASE_SECONDS + 1)
    await second.publish_pending()
    assert len(bus.published) == 1
    await write(database, outbox, event("a"))
    await first.publish_pending()  # came back: the lease is no longer its own
    assert len(bus.published) == 1


class SlowBus(MemoryEventBus):
    """Time passes with every message."""

    def __init__(self, clock: ManualClock, seconds: float) -> None:
        super().__init__()
        self._clock = clock
        self._seconds = seconds

    async def publish(self, message: Message) -> None:
        await super().publish(message)
        self._clock.advance(self._seconds)


async def test_a_relay_stops_in_the_middle_when_its_lease_has_run_out(
    database: Database, outbox: Outbox, clock: ManualClock
) -> None:
    bus = SlowBus(clock, outbox_module.LEASE_SECONDS / 2)
    await write(database, outbox, *(event("a", b"%d" % number) for number in range(4)))
    await Relay(outbox, database, bus).publish_pending()
    assert payloads(bus, "a") == [b"0", b"1"]


async def test_a_stopped_relay_leaves_its_lease_to_the_next(
    database: Database, outbox: Outbox, bus: MemoryEventBus
) -> None:
    async with running(Relay(outbox, database, bus, poll_seconds=0.01)):
        await write(database, outbox, event("a"))
        await until(lambda: len(bus.published) == 1)
    await write(database, outbox, event("a"))
    await Relay(outbox, database, bus).publish_pending()
    assert len(bus.published) == 2


async def test_published_rows_are_kept_for_a_while_and_waiting_ones_for_ever(
    database: Database, outbox: Outbox, bus: MemoryEventBus, clock: ManualClock
) -> None:
    table = outbox.tables.outbox

    async def count() -> int:
        async with database.read() as tx:
            return int(await tx.scalar(select(func.count()).select_from(table)))

    relay = Relay(outbox, database, bus)
    await write(database, outbox, event("a"))
    await relay.publish_pending()
    assert await count() == 1
    bus.available = False
    await write(database, outbox, event("a"))
    clock.advance(outbox_module.RETENTION.total_seconds() + 1)
    with pytest.raises(UnavailableError):
        await relay.publish_pending()
    assert await count() == 2
    bus.available = True
    await relay.publish_pending()
    assert await count() == 1
    assert len(bus.published) == 2


async def test_a_later_transaction_on_the_same_resource_waits_for_its_turn(
    database: Database, second_database: Callable[[], Database], outbox: Outbox, bus: MemoryEventBus
) -> None:
    """PostgreSQL numbers rows at insertion: without the lock, an early number could be committed late."""
    other = second_database()
    async with database.begin() as tx:
        await outbox.append(tx, event("a", b"1"))
        later = asyncio.create_task(write(other, outbox, event("a", b"2")))
        done, _ = await asyncio.wait([later], timeout=0.3)
        assert not done
    await later
    await Relay(outbox, database, bus).publish_pending()
    assert payloads(bus, "a") == [b"1", b"2"]


async def test_a_message_that_the_broker_would_refuse_is_refused_at_once(
    database: Database, outbox: Outbox
) -> None:
    with pytest.raises(InvalidError) as caught:
        await write(database, outbox, event("a", bytes(600_000)))
    assert caught.value.reason == "MESSAGE_TOO_LARGE"


# Over a real broker, through real deaths

CHILD = """
import asyncio, os, signal, sys
from finemesh.chassis.bus import BusConfig, NatsEventBus
from finemesh.chassis.outbox import Outbox, Relay
from finemesh.chassis.sql import Database
from finemesh.chassis.tables import chassis_tables
from sqlalchemy import MetaData

class DiesAfterPublishing(Relay):
    async def _mark(self, published):
        if published:
            os.kill(os.getpid(), signal.SIGKILL)

async def main(url, server):
    bus = NatsEventBus(BusConfig((server,), "doomed"))
    await bus.start()
    await DiesAfterPublishing(Outbox(chassis_tables(MetaData())), Database(url), bus, poll_seconds=0.05).run()

asyncio.run(main(*sys.argv[1:]))
"""


@contextlib.asynccontextmanager
async def connected(server: NatsServer) -> AsyncGenerator[NatsEventBus]:
    bus = NatsEventBus(BusConfig((server.url,), "outbox-test"))
    await bus.start()
    yield bus
    await bus.close()


async def test_a_relay_killed_between_publishing_and_marking_has_its_effect_once(
    database: Database, database_url: str, tables: ChassisTables, nats_server: NatsServer
) -> None:
    project = f"p{uuid.uuid4().hex[:12]}"
    outbox = Outbox(tables)
    sent = [event("a", b"%d" % number, project) for number in range(5)]
    await write(database, outbox, *sent)
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", CHILD, database_url, nats_server.url)
    assert await asyncio.wait_for(child.wait(), PATIENCE_SECONDS) == -signal.SIGKILL

    inbox, effects = Inbox(tables), list[str]()

    async def handler(delivery: Delivery) -> None:
        async with database.begin() as tx:
            if await inbox.once(tx, "test", delivery.id):
                tx.after_commit(lambda: effects.append(delivery.id))

    async with connected(nats_server) as bus, running(Relay(outbox, database, bus, poll_seconds=0.05)):
        last = event("a", b"last", project)
        await write(database, outbox, last)
        consuming = asyncio.create_task(
            bus.consume(f"effects-{project}", event_subject("*", "*", project, "*"), handler)
        )
        await until(lambda: last.id in effects)
        consuming.cancel()
        await asyncio.gather(consuming, return_exceptions=True)
    assert effects == [each.id for each in [*sent, last]]


async def test_nothing_is_lost_while_nats_is_killed_again_and_again(
    database: Database, tables: ChassisTables, start_nats: Callable[[], NatsServer]
) -> None:
    server = start_nats()
    outbox = Outbox(tables)
    got: list[bytes] = []

    async def handler(delivery: Delivery) -> None:
        if delivery.payload not in got:
            got.append(delivery.payload)

    async with connected(server) as bus, running(Relay(outbox, database, bus, poll_seconds=0.05)):
        consuming = asyncio.create_task(bus.consume("survivor", event_subject("*", "*", "*", "*"), handler))
        for number in range(60):
            await write(database, outbox, event("a", b"%d" % number))
            if number in {20, 40}:
                server.kill()
                await write(database, outbox, event("a", b"in the dark %d" % number))
                server.start()
        await until(lambda: b"59" in got)
        consuming.cancel()
        await asyncio.gather(consuming, return_exceptions=True)
    numbered = [int(payload) for payload in got if payload.isdigit()]
    assert numbered == list(range(60))
    assert len(got) == 62
