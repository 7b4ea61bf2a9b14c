"""The event bus inside one process: for tests of services, held to the same contract suite as NATS."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field

from finemesh.chassis.events import Delivery, Handler, Message
from finemesh.chassis.telemetry import span, trace_from_headers
from finemesh.core.errors import InvalidError, UnavailableError

FIRST_RETRY_SECONDS = 0.01
MAX_RETRY_SECONDS = 1.0


@dataclass
class _Durable:
    """How far a named reader has come, and how often its current message was delivered."""

    position: int = 0
    deliveries: int = 0
    busy: asyncio.Lock = field(default_factory=asyncio.Lock)


class MemoryEventBus:
    """All messages in a list; the promises are those of `events.EventBus`, but for surviving the process."""

    def __init__(self) -> None:
        self.published: list[Message] = []
        self.available = True
        self._ids: set[str] = set()
        self._durables: dict[str, _Durable] = {}
        self._grown = asyncio.Condition()
        self._listeners: list[tuple[str, asyncio.Queue[Delivery]]] = []

    async def publish(self, message: Message) -> None:
        """Append a message unless its id is known. Raises UnavailableError while `available` is False."""
        self._require_available()
        async with self._grown:
            if message.id not in self._ids:
                self._ids.add(message.id)
                self.published.append(message)
                self._grown.notify_all()

    async def consume(self, durable: str, subject: str, handler: Handler) -> None:
        """Hand every message under `subject` to `handler`, in order, until cancelled."""
        reader = self._durables.setdefault(durable, _Durable())
        while True:
            async with reader.busy:
                await self._deliver_next(reader, subject, handler)

    async def _deliver_next(self, reader: _Durable, subject: str, handler: Handler) -> None:
        async with self._grown:
            await self._grown.wait_for(lambda: reader.position < len(self.published))
        message = self.published[reader.position]
        if matches(subject, message.subject):
            reader.deliveries += 1
            delivery = Delivery(
                message.id,
                message.subject,
                message.headers,
                message.payload,
                sequence=reader.position + 1,
                attempt=reader.deliveries,
            )
            try:
                with span(trace_from_headers(message.headers)):
                    await handler(delivery)
            except InvalidError:
                pass  # dropped for good
            except Exception:
                await asyncio.sleep(min(MAX_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2**reader.deliveries))
                return
        reader.position += 1
        reader.deliveries = 0

    async def send(self, subject: str, payload: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Hand a plain message to whoever listens now."""
        self._require_available()
        for pattern, queue in self._listeners:
            if matches(pattern, subject):
                queue.put_nowait(Delivery("", subject, dict(headers or {}), payload))

    @contextlib.asynccontextmanager
    async def listen(self, subject: str) -> AsyncGenerator[AsyncGenerator[Delivery]]:
        """Plain messages under `subject` from now on."""
        self._require_available()
        entry = (subject, asyncio.Queue[Delivery]())
        self._listeners.append(entry)

        async def deliveries() -> AsyncGenerator[Delivery]:
            while True:
                yield await entry[1].get()

        try:
            yield deliveries()
        finally:
            self._listeners.remove(entry)

    async def check_ready(self) -> None:
        self._require_available()

    async def close(self) -> None:
        """Nothing is held."""

    def _require_available(self) -> None:
        if not self.available:
            raise UnavailableError("the memory bus is switched off", reason="NATS_UNAVAILABLE")


def matches(pattern: str, subject: str) -> bool:
    """Whether `subject` is under `pattern`, in NATS's way: `*` is one token, a final `>` is one or more."""
    wanted, given = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        wanted = wanted[:-1]
        return len(given) > len(wanted) and all(w in {"*", g} for w, g in zip(wanted, given, strict=False))
    return len(wanted) == len(given) and all(w in {"*", g} for w, g in zip(wanted, given, strict=True))
