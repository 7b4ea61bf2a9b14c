"""What every event bus promises: NATS JetStream, and the one in memory that tests of services use."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncGenerator, Callable, Coroutine
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from finemesh.chassis.bus import BusConfig, NatsEventBus
from finemesh.chassis.events import Delivery, Event, EventBus, command_message, event_subject, parse_event
from finemesh.chassis.telemetry import current_trace, span
from finemesh.core.errors import InvalidError, UnavailableError
from finemesh.events.v1.dataset_events_pb2 import DatasetImported

from tests.support.memory_event_bus import MemoryEventBus
from tests.support.servers import PATIENCE_SECONDS, NatsServer

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
Spawn = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]


@pytest.fixture(params=["memory", pytest.param("nats", marks=pytest.mark.integration)])
async def bus(request: pytest.FixtureRequest) -> AsyncGenerator[EventBus]:
    if request.param == "memory":
        yield MemoryEventBus()
        return
    server: NatsServer = request.getfixturevalue("nats_server")
    real = NatsEventBus(BusConfig((server.url,), "contract"))
    await real.start()
    await until_ready(real)
    yield real
    await real.close()


async def until_ready(bus: EventBus) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            with contextlib.suppress(UnavailableError):
                return await bus.check_ready()
            await asyncio.sleep(0.02)


@pytest.fixture
def project() -> str:
    """The broker is shared: every test has a project of its own."""
    return f"p{uuid.uuid4().hex[:12]}"


@pytest.fixture
async def spawn() -> AsyncGenerator[Spawn]:
    """Starts background tasks that end with the test."""
    tasks: list[asyncio.Task[None]] = []

    def start(coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        tasks.append(asyncio.create_task(coroutine))
        return tasks[-1]

    yield start
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class Collector:
    """A handler that keeps what it gets; `failures` are raised first, one per delivery."""

    def __init__(self, *failures: Exception) -> None:
        self.received: list[Delivery] = []
        self._failures = list(failures)
        self._changed = asyncio.Condition()

    async def __call__(self, delivery: Delivery) -> None:
        async with self._changed:
            self.received.append(delivery)
            self._changed.notify_all()
        if self._failures:
            raise self._failures.pop(0)

    async def wait_for(self, count: int) -> list[Delivery]:
        async with asyncio.timeout(PATIENCE_SECONDS), self._changed:
            await self._changed.wait_for(lambda: len(self.received) >= count)
        return self.received

    @property
    def payloads(self) -> list[bytes]:
        return [delivery.payload for delivery in self.received]


def imported(project: str, dataset: str = "d", payload: bytes = b"") -> Event:
    resource = f"projects/{project}/datasets/{dataset}"
    event = Event.of("dataset", "imported", resource, DatasetImported(), source="finemesh/test", time=NOON)
    return replace(event, payload=payload)


def everything(project: str) -> str:
    return event_subject("*", "*", project, "*")


async def test_an_event_arrives_with_its_attributes(bus: EventBus, project: str, spawn: Spawn) -> None:
    event = imported(project, payload=b"body")
    with span() as sender:
        await bus.publish(event.message())
    got = Collector()
    spawn(bus.consume(f"{project}-a", everything(project), got))
    (delivery,) = await got.wait_for(1)
    assert parse_event(delivery) == event
    assert delivery.id == event.id
    assert delivery.subject == f"finemesh.v1.dataset.imported.{project}.d"
    assert delivery.attempt == 1
    assert delivery.sequence > 0
    headers = dict(delivery.headers)
    assert headers.pop("traceparent").split("-")[1] == sender.trace_id
    assert headers == {
        "Nats-Msg-Id": event.id,
        "ce-specversion": "1.0",
        "ce-id": event.id,
        "ce-type": "finemesh.v1.dataset.imported",
        "ce-source": "finemesh/test",
        "ce-subject": f"projects/{project}/datasets/d",
        "ce-time": "2026-01-01T12:00:00Z",
        "ce-dataschema": "finemesh.events.v1.DatasetImported",
        "content-type": "application/protobuf",
    }


async def test_the_handler_works_in_the_trace_of_the_sender(
    bus: EventBus, project: str, spawn: Spawn
) -> None:
    seen: asyncio.Queue[str] = asyncio.Queue()

    async def handler(_: Delivery) -> None:
        here = current_trace()
        seen.put_nowait(here.trace_id if here else "")

    with span() as sender:
        await bus.publish(imported(project).message())
    spawn(bus.consume(f"{project}-a", everything(project), handler))
    assert await asyncio.wait_for(seen.get(), PATIENCE_SECONDS) == sender.trace_id


async def test_a_repeated_id_is_stored_once(bus: EventBus, project: str, spawn: Spawn) -> None:
    event = imported(project, payload=b"1")
    await bus.publish(event.message())
    await bus.publish(event.message())
    await bus.publish(imported(project, payload=b"2").message())
    got = Collector()
    spawn(bus.consume(f"{project}-a", everything(project), got))
    await got.wait_for(2)
    assert got.payloads == [b"1", b"2"]


async def test_a_message_that_fails_comes_back_before_the_next(
    bus: EventBus, project: str, spawn: Spawn
) -> None:
    for number in range(3):
        await bus.publish(imported(project, payload=b"%d" % number).message())
    got = Collector(RuntimeError("first time"), RuntimeError("second time"))
    spawn(bus.consume(f"{project}-a", everything(project), got))
    await got.wait_for(5)
    assert got.payloads == [b"0", b"0", b"0", b"1", b"2"]
    assert [delivery.attempt for delivery in got.received] == [1, 2, 3, 1, 1]
    assert len({delivery.id for delivery in got.received[:3]}) == 1


async def test_a_message_that_can_never_be_right_is_dropped(
    bus: EventBus, project: str, spawn: Spawn
) -> None:
    for number in range(2):
        await bus.publish(imported(project, payload=b"%d" % number).message())
    got = Collector(InvalidError("not an event of mine"))
    spawn(bus.consume(f"{project}-a", everything(project), got))
    await got.wait_for(2)
    assert got.payloads == [b"0", b"1"]


async def test_a_reader_that_comes_back_goes_on_where_it_was(
    bus: EventBus, project: str, spawn: Spawn
) -> None:
    for number in range(2):
        await bus.publish(imported(project, payload=b"%d" % number).message())
    first = Collector()
    reading = spawn(bus.consume(f"{project}-a", everything(project), first))
    await first.wait_for(2)  # so the first is acknowledged; of the second nobody knows
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await bus.publish(imported(project, payload=b"2").message())
    second = Collector()
    spawn(bus.consume(f"{project}-a", everything(project), second))
    while b"2" not in second.payloads:
        await second.wait_for(len(second.received) + 1)
    assert b"0" not in second.payloads


async def test_every_reader_gets_every_message_under_its_subject(
    bus: EventBus, project: str, spawn: Spawn
) -> None:
    await bus.publish(imported(project, "a").message())
    await bus.publish(imported(project, "b").message())
    everyone, only_b = Collector(), Collector()
    spawn(bus.consume(f"{project}-all", everything(project), everyone))
    spawn(bus.consume(f"{project}-b", event_subject("dataset", "imported", project, "b"), only_b))
    await everyone.wait_for(2)
    await only_b.wait_for(1)
    assert [delivery.subject.split(".")[-1] for delivery in everyone.received] == ["a", "b"]
    assert [delivery.subject.split(".")[-1] for delivery in only_b.received] == ["b"]


async def test_a_command_reaches_its_cluster_alone(bus: EventBus, project: str, spawn: Spawn) -> None:
    resource = f"projects/{project}/datasets/d"
    await bus.publish(command_message(f"{project}-x", resource, b"for x", "finemesh.v1.Command"))
    await bus.publish(command_message(f"{project}-y", resource, b"for y", "finemesh.v1.Command"))
    got = Collector()
    spawn(bus.consume(f"agent-{project}-y", f"finemesh.v1.command.{project}-y", got))
    await got.wait_for(1)
    assert got.payloads == [b"for y"]


async def test_plain_messages_reach_those_who_listen_now(bus: EventBus, project: str) -> None:
    subject = f"finemesh.v1.heartbeat.{project}"
    await bus.send(subject, b"nobody hears this")
    async with bus.listen(f"finemesh.v1.heartbeat.{project}") as deliveries:
        await bus.send(subject, b"beat", {"who": "me"})
        delivery = await asyncio.wait_for(anext(deliveries), PATIENCE_SECONDS)
    assert (delivery.subject, delivery.payload) == (subject, b"beat")
    assert delivery.headers.get("who") == "me"
    assert (delivery.sequence, delivery.attempt) == (0, 1)


@pytest.mark.parametrize("missing", ["ce-id", "ce-subject", "ce-time"])
async def test_a_message_without_its_attributes_is_no_event(project: str, missing: str) -> None:
    message = imported(project).message()
    headers = {name: value for name, value in message.headers.items() if name != missing}
    with pytest.raises(InvalidError) as caught:
        parse_event(Delivery(message.id, message.subject, headers, message.payload))
    assert caught.value.reason == "MALFORMED_EVENT"


async def test_a_bus_that_is_away_says_so(project: str) -> None:
    memory = MemoryEventBus()
    memory.available = False
    away = NatsEventBus(BusConfig(("nats://127.0.0.1:1",), "contract"))
    await away.start()
    try:
        for bus in (memory, away):
            for call in (bus.check_ready(), bus.publish(imported(project).message()), bus.send("a", b"")):
                with pytest.raises(UnavailableError) as caught:
                    await call
                assert caught.value.reason == "NATS_UNAVAILABLE"
    finally:
        await away.close()
