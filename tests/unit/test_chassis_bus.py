"""What the client of NATS does not keep: a cancellation, and the order of a ping and what came before it."""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from typing import Any

import nats
import pytest
from finemesh.chassis.bus import BusConfig, NatsEventBus, reach_server
from finemesh.chassis.events import Delivery
from nats.errors import ConnectionClosedError, Error
from nats.errors import TimeoutError as NatsTimeoutError

from tests.support.servers import PATIENCE_SECONDS


class Forgetful:
    """A subscription that is cancelled in the moment in which something comes: it tells of that alone."""

    def __init__(self, comes: type[Error]) -> None:
        self.comes = comes
        self.waiting = asyncio.Event()

    async def fetch(self, batch: int, timeout: float) -> list[Any]:  # noqa: ASYNC109  as the client has it
        self.waiting.set()
        try:
            return await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            raise self.comes from None

    async def unsubscribe(self) -> None:
        return


@pytest.mark.parametrize("comes", [NatsTimeoutError, ConnectionClosedError])
async def test_a_consumer_that_is_cancelled_ends(comes: type[Error], monkeypatch: pytest.MonkeyPatch) -> None:
    bus, subscription = NatsEventBus(BusConfig((), "test")), Forgetful(comes)

    async def bind(durable: str, subject: str) -> Any:
        return subscription

    async def nothing(delivery: Delivery) -> None:
        return

    monkeypatch.setattr(bus, "_bind", bind)
    consuming = asyncio.create_task(bus.consume("d", "finemesh.v1.event.>", nothing))
    await subscription.waiting.wait()
    consuming.cancel()
    await asyncio.wait([consuming], timeout=PATIENCE_SECONDS)
    assert consuming.cancelled()


async def test_a_broker_is_reached_when_it_has_read_what_came_before() -> None:
    read: list[bytes] = []

    async def broker(reader: StreamReader, writer: StreamWriter) -> None:
        writer.write(b'INFO {"max_payload": 1000}\r\n')
        async for line in reader:
            read.append(line.split()[0])
            if line == b"PING\r\n":
                writer.write(b"PONG\r\n")
        writer.close()

    async with await asyncio.start_server(broker, "127.0.0.1", 0) as server:
        client = await nats.connect(f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await client.subscribe("told")
        await client.publish("asked", b"anything")
        await reach_server(client)
        assert read[-1] == b"PING"
        assert {b"SUB", b"PUB"} <= set(read)
        await client.close()
