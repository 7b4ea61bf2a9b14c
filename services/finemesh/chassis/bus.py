"""The event bus on NATS JetStream."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import APIError, BadRequestError, NoStreamResponseError

from finemesh.chassis.events import (
    CE_ID,
    COMMAND_SUBJECTS,
    COMMANDS_STREAM,
    EVENT_SUBJECTS,
    EVENTS_STREAM,
    MESSAGE_ID,
    SUBJECT_ROOT,
    Delivery,
    Handler,
    Message,
)
from finemesh.chassis.telemetry import span, trace_from_headers
from finemesh.core.errors import InvalidError, UnavailableError

PUBLISH_TIMEOUT_SECONDS: Final = 5.0
# A consumer that dies holds its message this long; one that works says so three times in between.
ACK_WAIT_SECONDS: Final = 6.0
FETCH_TIMEOUT_SECONDS: Final = 2.0
RETRY_SECONDS: Final = 0.5
DEDUPLICATION_SECONDS: Final = 600.0
EVENT_AGE_SECONDS: Final = 90 * 24 * 3600.0
BACK_OFF_SECONDS: Final = (0.1, 0.5, 2.0, 5.0, 15.0, 30.0)

log: Final = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class BusConfig:
    """Where the broker is and who we are to it.

    Attributes:
        servers: addresses such as `nats://127.0.0.1:4222`.
        client_name: shown in the broker's monitoring, e.g. `finemesh-training`.
        nkey_seed_path: file with the client's nkey seed; empty for a broker without accounts.
        ca_path: certificates to trust for `tls://` servers; empty for the system's.
        replicas: copies of each stream in a NATS cluster.
    """

    servers: tuple[str, ...]
    client_name: str
    nkey_seed_path: str = ""
    ca_path: str = ""
    replicas: int = 1


async def reach_server(client: Client) -> None:
    """Return when the broker has read what was published and subscribed before. Raises nats.errors.Error.

    nats-py 2.16 writes a ping past what it still holds back; its answer shows no more than that the rest went
    out too. A second ping comes behind that rest.
    """
    await client.flush()
    await client.flush()


class NatsEventBus:
    """JetStream for facts and commands, core NATS for heartbeats: `events.EventBus` says what it promises."""

    def __init__(self, config: BusConfig) -> None:
        self._config = config
        self._client = Client()
        self._jetstream = self._client.jetstream(timeout=PUBLISH_TIMEOUT_SECONDS)
        self._connecting: asyncio.Task[None] | None = None
        self._has_begun = False

    async def start(self) -> None:
        """Begin to connect and return at once: a service starts without its broker."""
        self._connecting = asyncio.create_task(self._connect(), name="nats-connect")

    async def close(self) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._connecting
        if self._has_begun:
            await self._client.close()

    async def check_ready(self) -> None:
        """Broker reachable and both streams there. Raises UnavailableError."""
        self._require_connection()
        try:
            for stream in (EVENTS_STREAM, COMMANDS_STREAM):
                await self._jetstream.stream_info(stream)
        except (NatsError, OSError) as error:
            raise _unavailable(error) from error

    async def publish(self, message: Message) -> None:
        """Store a message durably. Raises UnavailableError."""
        self._require_connection()
        headers = {**message.headers, MESSAGE_ID: message.id}
        try:
            try:
                await self._jetstream.publish(message.subject, message.payload, headers=headers)
            except NoStreamResponseError:  # the broker lost its disk, or was never set up
                await self._ensure_streams()
                await self._jetstream.publish(message.subject, message.payload, headers=headers)
        except (NatsError, OSError) as error:
            raise _unavailable(error) from error

    async def consume(self, durable: str, subject: str, handler: Handler) -> None:
        """Hand every message under `subject` to `handler`, in order, until cancelled."""
        while True:
            try:
                subscription = await self._bind(durable, subject)
                await self._drain(subscription, durable, handler)
            except (NatsError, OSError, UnavailableError) as error:
                _raise_if_cancelled()
                log.warning("bus.consume_retry", durable=durable, error=repr(error))
                await asyncio.sleep(RETRY_SECONDS)

    async def send(self, subject: str, payload: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Send a plain message. Raises UnavailableError."""
        self._require_connection()
        try:
            await self._client.publish(subject, payload, headers=dict(headers) if headers else None)
        except (NatsError, OSError) as error:
            raise _unavailable(error) from error

    @contextlib.asynccontextmanager
    async def listen(self, subject: str) -> AsyncGenerator[AsyncGenerator[Delivery]]:
        """Plain messages under `subject` from now on. Raises UnavailableError."""
        self._require_connection()
        subscription = await self._client.subscribe(subject)
        await reach_server(self._client)

        async def deliveries() -> AsyncGenerator[Delivery]:
            async for message in subscription.messages:
                yield _delivery(message)

        try:
            yield deliveries()
        finally:
            with contextlib.suppress(NatsError):
                await subscription.unsubscribe()

    async def _connect(self) -> None:
        self._has_begun = True
        config = self._config
        tls = ssl.create_default_context(cafile=config.ca_path) if config.ca_path else None

        async def on_error(error: Exception) -> None:
            log.warning("bus.error", error=repr(error))

        async def on_disconnect() -> None:
            log.warning("bus.disconnected")

        async def on_reconnect() -> None:
            log.info("bus.reconnected")

        await self._client.connect(
            list(config.servers),
            name=config.client_name,
            error_cb=on_error,
            disconnected_cb=on_disconnect,
            reconnected_cb=on_reconnect,
            allow_reconnect=True,
            max_reconnect_attempts=-1,
            reconnect_time_wait=RETRY_SECONDS,  # pyright: ignore[reportArgumentType]  a float works
            nkeys_seed=config.nkey_seed_path or None,
            tls=tls,
        )
        log.info("bus.connected")
        with contextlib.suppress(NatsError, OSError):  # tried again by the first publish that needs them
            await self._ensure_streams()

    async def _ensure_streams(self) -> None:
        for config in _streams(self._config.replicas):
            try:
                await self._jetstream.add_stream(config)
            except BadRequestError:  # it exists with other settings
                await self._jetstream.update_stream(config)

    async def _bind(self, durable: str, subject: str) -> JetStreamContext.PullSubscription:
        self._require_connection()
        is_command = subject.startswith(f"{SUBJECT_ROOT}.command.")
        stream = COMMANDS_STREAM if is_command else EVENTS_STREAM
        consumer = ConsumerConfig(
            durable_name=durable,
            filter_subject=subject,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=ACK_WAIT_SECONDS,
            max_ack_pending=1,  # one at a time: a message that fails holds back the ones behind it
        )
        try:
            await self._jetstream.add_consumer(stream, consumer)
        except APIError:
            await self._ensure_streams()
            await self._jetstream.add_consumer(stream, consumer)
        return await self._jetstream.pull_subscribe_bind(consumer=durable, stream=stream)

    async def _drain(
        self, subscription: JetStreamContext.PullSubscription, durable: str, handler: Handler
    ) -> None:
        try:
            while True:
                with contextlib.suppress(NatsTimeoutError):
                    for message in await subscription.fetch(1, timeout=FETCH_TIMEOUT_SECONDS):
                        await _handle(message, durable, handler)
                _raise_if_cancelled()
        finally:
            with contextlib.suppress(NatsError):
                await subscription.unsubscribe()

    def _require_connection(self) -> None:
        if not self._client.is_connected:
            where = ", ".join(self._config.servers)
            raise UnavailableError(f"no connection to NATS at {where}", reason="NATS_UNAVAILABLE")


def _raise_if_cancelled() -> None:
    """The client loses a cancellation that comes at once with a message, or with the connection's end."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def _handle(message: Msg, durable: str, handler: Handler) -> None:
    """Run the handler and settle the message. Cancelled in between, it is delivered again."""
    delivery = _delivery(message)
    working = asyncio.create_task(_keep_claimed(message))
    try:
        with span(trace_from_headers(message.headers)):
            await handler(delivery)
    except InvalidError as error:
        log.error(
            "bus.message_dropped", durable=durable, subject=delivery.subject, id=delivery.id, error=str(error)
        )
        await message.term()
    except Exception:
        delay_seconds = BACK_OFF_SECONDS[min(delivery.attempt, len(BACK_OFF_SECONDS)) - 1]
        log.exception(
            "bus.handler_failed",
            durable=durable,
            subject=delivery.subject,
            id=delivery.id,
            retry_seconds=delay_seconds,
        )
        await message.nak(delay=delay_seconds)
    else:
        await message.ack()
    finally:
        working.cancel()


async def _keep_claimed(message: Msg) -> None:
    while True:
        await asyncio.sleep(ACK_WAIT_SECONDS / 3)
        await message.in_progress()


def _delivery(message: Msg) -> Delivery:
    headers = message.headers or {}
    is_durable = message.reply.startswith("$JS.ACK.")
    metadata: Any = message.metadata if is_durable else None
    return Delivery(
        id=headers.get(CE_ID) or headers.get(MESSAGE_ID, ""),
        subject=message.subject,
        headers=headers,
        payload=message.data,
        sequence=metadata.sequence.stream if metadata else 0,
        attempt=metadata.num_delivered if metadata else 1,
    )


def _streams(replicas: int) -> tuple[StreamConfig, StreamConfig]:
    events = StreamConfig(
        name=EVENTS_STREAM,
        subjects=[EVENT_SUBJECTS],
        retention=RetentionPolicy.LIMITS,
        max_age=EVENT_AGE_SECONDS,
        duplicate_window=DEDUPLICATION_SECONDS,
        storage=StorageType.FILE,
        num_replicas=replicas,
    )
    commands = StreamConfig(
        name=COMMANDS_STREAM,
        subjects=[COMMAND_SUBJECTS],
        retention=RetentionPolicy.WORK_QUEUE,
        duplicate_window=DEDUPLICATION_SECONDS,
        storage=StorageType.FILE,
        num_replicas=replicas,
    )
    return events, commands


def _unavailable(error: Exception) -> UnavailableError:
    return UnavailableError(f"NATS did not answer: {error!r}", reason="NATS_UNAVAILABLE")
