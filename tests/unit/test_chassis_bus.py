"""A consumer ends when it is cancelled, also where the client of NATS loses the cancellation."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from finemesh.chassis.bus import BusConfig, NatsEventBus
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
