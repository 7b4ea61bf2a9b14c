"""Lifecycle events from JetStream: watch them, or react to each exactly once.

Facts travel under `finemesh.v1.<noun>.<fact>.<project>.<id>`. A plain `Subscriber` sees them as they come and
leaves no trace on the broker. With `durable` the broker remembers how far it is, over restarts of either
side; with `state` besides, the ids of handled events are kept in a small SQLite file, so that a redelivery
does not run the handler again.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import nats
from google.protobuf import json_format, message_factory
from google.protobuf.message import DecodeError, Message
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from finemesh.client.settings import Settings
from finemesh.events.v1 import event_pb2 as _register_payloads

STREAM: Final = "FINEMESH_EVENTS"
ALL: Final = "finemesh.v1.*.*.*.*"
_PAYLOADS: Final = _register_payloads.Event.DESCRIPTOR.oneofs_by_name["payload"]
_CONNECT_SECONDS: Final = 10.0
_FETCH_SECONDS: Final = 5.0
# The broker forgets a subscription that is not durable when nobody fetches for so long. Its default of 5 s
# is over before a client has noticed that the broker was restarted.
_FORGET_SECONDS: Final = 300.0
_RETRY_SECONDS: Final = 5.0
_CLOSE_SECONDS: Final = 5.0


class SubscriptionError(Exception):
    """Events cannot be had; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Received:
    """One fact.

    Attributes:
        id: the same for every delivery of the fact.
        type: e.g. `finemesh.v1.training_job.succeeded`.
        resource: e.g. `projects/a/trainingJobs/b`.
        time: when it became true, UTC.
        sequence: its position in the stream, to replay from.
        payload: the message of `finemesh.events.v1` that `type` calls for.
        headers: all CloudEvents attributes and the trace context, as they came.
    """

    id: str
    type: str
    resource: str
    time: datetime
    sequence: int
    payload: Message
    headers: Mapping[str, str] = field(repr=False)

    @property
    def fact(self) -> str:
        """Noun and fact, e.g. `training_job.succeeded`."""
        return self.type.removeprefix("finemesh.v1.")

    def to_json(self) -> dict[str, Any]:
        """The event in the JSON format of CloudEvents, with its stream position."""
        return {
            "specversion": "1.0",
            "id": self.id,
            "type": self.type,
            "source": self.headers.get("ce-source", ""),
            "subject": self.resource,
            "time": self.headers.get("ce-time", ""),
            "traceparent": self.headers.get("traceparent", ""),
            "sequence": str(self.sequence),
            "data": json_format.MessageToDict(self.payload),
        }


Handler = Callable[[Received], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Subscriber:
    """A subscription to events.

    Attributes:
        settings: where the broker is.
        subject: filter, e.g. `finemesh.v1.training_job.succeeded.*.*`.
        start: replay from this time on, or from this stream position; None means from now on. Counts only
            when a durable subscription is made for the first time.
        durable: name under which the broker remembers how far this subscriber is.
        state: SQLite file with the ids of handled events.
    """

    settings: Settings
    subject: str = ALL
    start: datetime | int | None = None
    durable: str = ""
    state: Path | None = None

    async def run(self, handler: Handler) -> None:
        """Calls `handler` for every event until cancelled. A handler that raises gets the event again, after
        a while.

        With `state`, an event counts as handled in the same moment the handler returns; only a crash in
        between, or a handler that is cut off halfway, can make it run twice for one event.
        """
        with closing(_Handled(self.state)) as handled:
            async with aclosing(self._messages()) as messages:
                async for event, message in messages:
                    if event.id not in handled:
                        try:
                            await handler(event)
                        except Exception:
                            await message.nak(_RETRY_SECONDS)
                            raise
                        handled.add(event.id)
                    await _acknowledge(message)

    async def events(self) -> AsyncGenerator[Received]:
        """The events one by one; each counts as handled when the next is asked for. Close it (`aclosing`)
        to let go of the broker at once.
        """
        async with aclosing(self._messages()) as messages:
            async for event, message in messages:
                yield event
                await _acknowledge(message)

    async def _messages(self) -> AsyncGenerator[tuple[Received, Any]]:
        client = await self._connect()
        try:
            subscription = await client.jetstream().pull_subscribe(
                self.subject, durable=self.durable or None, stream=STREAM, config=self._consumer()
            )
            while True:
                _raise_if_cancelled()
                try:
                    batch = await subscription.fetch(32, timeout=_FETCH_SECONDS)
                except TimeoutError:  # nothing new, or nobody there who could tell
                    with suppress(TimeoutError):
                        await subscription.consumer_info()
                    continue
                for message in batch:
                    yield _received(message), message
        except (NatsError, OSError) as error:  # some time-outs of the client are Python's own, an OSError
            raise SubscriptionError(f"the subscription to {self.subject} was lost: {error!r}") from error
        finally:
            # A broker that is away must not hold up the end.
            with suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await client.close()

    async def _connect(self) -> Client:
        if not self.settings.nats_url:
            raise SubscriptionError(
                "no event broker known: run in the folder of `finemesh up`, "
                "or set FINEMESH_NATS_URL and FINEMESH_NATS_NKEY_FILE"
            )

        async def on_error(error: Exception) -> None:
            del error  # the client reconnects by itself; what matters surfaces where it is awaited

        try:
            # The client's own loop over attempts never ends while the broker is away.
            async with asyncio.timeout(_CONNECT_SECONDS):
                return await nats.connect(
                    self.settings.nats_url,
                    name="finemesh-client",
                    nkeys_seed=self.settings.nats_nkey_file or None,
                    error_cb=on_error,
                    max_reconnect_attempts=-1,
                    allow_reconnect=True,
                    connect_timeout=5,
                )
        except (NatsError, OSError) as error:
            raise SubscriptionError(
                f"cannot reach the event broker at {self.settings.nats_url}: {str(error) or 'no answer'}"
            ) from error

    def _consumer(self) -> ConsumerConfig:
        config = ConsumerConfig(ack_policy=AckPolicy.EXPLICIT, ack_wait=60, max_ack_pending=64)
        if not self.durable:
            config.inactive_threshold = _FORGET_SECONDS
        if isinstance(self.start, int):
            config.deliver_policy, config.opt_start_seq = DeliverPolicy.BY_START_SEQUENCE, self.start
        elif self.start is not None:
            moment = self.start.astimezone(UTC).isoformat().replace("+00:00", "Z")
            config.deliver_policy, config.opt_start_time = DeliverPolicy.BY_START_TIME, moment  # pyright: ignore[reportAttributeAccessIssue]
        else:
            config.deliver_policy = DeliverPolicy.NEW
        return config


async def _acknowledge(message: Any) -> None:
    """Raises SubscriptionError when the broker is away; it will send the message again."""
    try:
        await message.ack()
    except (NatsError, OSError) as error:
        raise SubscriptionError(f"an event could not be acknowledged: {error}") from error


def _raise_if_cancelled() -> None:
    """End the task if it was cancelled and something below has swallowed that.

    `asyncio.wait_for` of Python 3.11 returns its result, and forgets the cancellation, when both come at
    once.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


class _Handled:
    """Ids of the events that a handler has seen through; in memory without a path."""

    def __init__(self, path: Path | None) -> None:
        self._database = sqlite3.connect(path or ":memory:", isolation_level=None)
        self._database.execute("PRAGMA synchronous=FULL")
        self._database.execute("CREATE TABLE IF NOT EXISTS handled (id TEXT PRIMARY KEY) WITHOUT ROWID")

    def __contains__(self, event_id: str) -> bool:
        return (
            self._database.execute("SELECT 1 FROM handled WHERE id = ?", (event_id,)).fetchone() is not None
        )

    def add(self, event_id: str) -> None:
        self._database.execute("INSERT OR IGNORE INTO handled VALUES (?)", (event_id,))

    def close(self) -> None:
        self._database.close()


def _received(message: Any) -> Received:
    headers: dict[str, str] = {key.lower(): value for key, value in (message.headers or {}).items()}
    kind = headers.get("ce-type", "")
    return Received(
        id=headers.get("ce-id", ""),
        type=kind,
        resource=headers.get("ce-subject", ""),
        time=datetime.fromisoformat(headers.get("ce-time", "1970-01-01T00:00:00+00:00")),
        sequence=message.metadata.sequence.stream,
        payload=_payload(kind, message.data),
        headers=headers,
    )


def _payload(kind: str, body: bytes) -> Message:
    """The payload by its type: `training_job.succeeded` is field `training_job_succeeded` of Event."""
    name = kind.removeprefix("finemesh.v1.").replace(".", "_")
    known = {each.name: each.message_type for each in _PAYLOADS.fields}
    if name not in known:
        raise SubscriptionError(
            f"{kind or 'an event without a type'} is not known to this client; a newer one may be needed"
        )
    descriptor: Any = known[name]
    message = message_factory.GetMessageClass(descriptor)()
    try:
        message.ParseFromString(body)
    except DecodeError as error:
        raise SubscriptionError(f"{kind}: its body is not the {descriptor.full_name} it should be") from error
    return message
