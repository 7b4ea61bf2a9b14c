"""Events and the bus that carries them.

A fact travels on JetStream under `finemesh.v1.<noun>.<fact>.<project>.<id>`: its body is the payload message
in protobuf, its CloudEvents 1.0 attributes are headers (binary content mode of the NATS binding,
https://github.com/cloudevents/spec/blob/main/cloudevents/bindings/nats-protocol-binding.md). Commands to
clusters travel under `finemesh.v1.command.<cluster>`, heartbeats as plain messages under
`finemesh.v1.heartbeat.<who>`.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Protocol

from google.protobuf.message import Message as ProtoMessage

from finemesh.chassis.telemetry import trace_headers
from finemesh.core.errors import InvalidError

SUBJECT_ROOT: Final = "finemesh.v1"
EVENTS_STREAM: Final = "FINEMESH_EVENTS"
COMMANDS_STREAM: Final = "FINEMESH_COMMANDS"
EVENT_SUBJECTS: Final = f"{SUBJECT_ROOT}.*.*.*.*"
COMMAND_SUBJECTS: Final = f"{SUBJECT_ROOT}.command.*"  # JetStream refuses subjects that overlap the events'
PROTOBUF: Final = "application/protobuf"
MAX_PAYLOAD_BYTES: Final = 512 * 1024  # the broker's limit is 1 MiB, headers included

MESSAGE_ID: Final = "Nats-Msg-Id"
CE_ID: Final = "ce-id"
CE_TYPE: Final = "ce-type"
CE_SOURCE: Final = "ce-source"
CE_SUBJECT: Final = "ce-subject"
CE_TIME: Final = "ce-time"
CE_SPECVERSION: Final = "ce-specversion"
CE_DATASCHEMA: Final = "ce-dataschema"
CONTENT_TYPE: Final = "content-type"


def event_subject(noun: str, fact: str, project: str, resource_id: str) -> str:
    """Where a fact is published. `*` in any place makes a filter of it."""
    return f"{SUBJECT_ROOT}.{noun}.{fact}.{project}.{resource_id}"


def command_subject(cluster: str) -> str:
    return f"{SUBJECT_ROOT}.command.{cluster}"


def heartbeat_subject(who: str) -> str:
    return f"{SUBJECT_ROOT}.heartbeat.{who}"


@dataclass(frozen=True, slots=True)
class Message:
    """What goes out: `id` makes a repetition recognisable, `key` names the resource whose order is kept."""

    id: str
    key: str
    subject: str
    headers: Mapping[str, str]
    payload: bytes


@dataclass(frozen=True, slots=True)
class Delivery:
    """What comes in.

    Attributes:
        id: the event's id; the same for every delivery of it.
        sequence: position in the stream; 0 for plain messages.
        attempt: how often it has been delivered, this time included.
    """

    id: str
    subject: str
    headers: Mapping[str, str]
    payload: bytes
    sequence: int = 0
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Event:
    """A past-tense fact about a resource.

    Attributes:
        noun, fact: e.g. `training_job` and `succeeded`.
        resource: full name, e.g. `projects/a/trainingJobs/b`; becomes `ce-subject` and keeps its order.
        source: the service that states it, e.g. `finemesh/training`.
        schema: full name of the payload's protobuf message.
        payload: that message, serialised.
    """

    noun: str
    fact: str
    resource: str
    source: str
    schema: str
    payload: bytes
    time: datetime
    id: str = field(default_factory=lambda: str(uuid.uuid4()))

    @classmethod
    def of(
        cls, noun: str, fact: str, resource: str, payload: ProtoMessage, *, source: str, time: datetime
    ) -> Event:
        """An event with a fresh id around a payload message."""
        body = payload.SerializeToString(deterministic=True)
        return cls(noun, fact, resource, source, payload.DESCRIPTOR.full_name, body, time)

    @property
    def project(self) -> str:
        return self.resource.split("/")[1]

    @property
    def resource_id(self) -> str:
        """Id of the resource; of its parent when it is a child (a validation report's dataset)."""
        return self.resource.split("/")[3]

    @property
    def subject(self) -> str:
        return event_subject(self.noun, self.fact, self.project, self.resource_id)

    def message(self) -> Message:
        """The event as it goes out, in the trace of the current request."""
        headers = {
            MESSAGE_ID: self.id,
            CE_SPECVERSION: "1.0",
            CE_ID: self.id,
            CE_TYPE: f"{SUBJECT_ROOT}.{self.noun}.{self.fact}",
            CE_SOURCE: self.source,
            CE_SUBJECT: self.resource,
            CE_TIME: self.time.astimezone(UTC).isoformat().replace("+00:00", "Z"),
            CE_DATASCHEMA: self.schema,
            CONTENT_TYPE: PROTOBUF,
            **trace_headers(),
        }
        return Message(self.id, self.resource, self.subject, headers, self.payload)


def parse_event(delivery: Delivery) -> Event:
    """The event in a delivery. Raises InvalidError, reason MALFORMED_EVENT, when attributes are missing."""
    try:
        _, _, noun, fact, _, _ = delivery.subject.split(".")
        return Event(
            noun=noun,
            fact=fact,
            resource=delivery.headers[CE_SUBJECT],
            source=delivery.headers[CE_SOURCE],
            schema=delivery.headers[CE_DATASCHEMA],
            payload=delivery.payload,
            time=datetime.fromisoformat(delivery.headers[CE_TIME]),
            id=delivery.headers[CE_ID],
        )
    except (KeyError, ValueError) as error:
        message = f"the message on {delivery.subject} is not an event: {type(error).__name__} {error}"
        raise InvalidError(message, reason="MALFORMED_EVENT") from error


def command_message(cluster: str, resource: str, payload: bytes, schema: str) -> Message:
    """An order to a cluster, with an id of its own."""
    message_id = str(uuid.uuid4())
    headers = {MESSAGE_ID: message_id, CE_DATASCHEMA: schema, CONTENT_TYPE: PROTOBUF, **trace_headers()}
    return Message(message_id, resource, command_subject(cluster), headers, payload)


Handler = Callable[[Delivery], Awaitable[None]]


class EventBus(Protocol):
    """The broker as the rest of the house sees it. One suite, tests/contract, holds every adapter to it."""

    async def publish(self, message: Message) -> None:
        """Store a message durably; returns once the broker has acknowledged it.

        A repetition of an id within the broker's window changes nothing. Raises UnavailableError.
        """
        ...

    async def consume(self, durable: str, subject: str, handler: Handler) -> None:
        """Hand every message under `subject` to `handler`, one after the other, until cancelled.

        `durable` names the reader: its place is kept by the broker over restarts. The handler's return
        acknowledges; InvalidError drops the message for good; any other exception brings it back after a
        back-off, and the ones behind it wait. A message may be delivered more than once: use the inbox.
        """
        ...

    async def send(self, subject: str, payload: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Send a plain message: whoever listens now gets it, nobody later. Raises UnavailableError."""
        ...

    def listen(self, subject: str) -> AbstractAsyncContextManager[AsyncGenerator[Delivery]]:
        """Plain messages under `subject`, from the moment the context is entered."""
        ...

    async def check_ready(self) -> None:
        """One round trip. Raises UnavailableError."""
        ...

    async def close(self) -> None: ...
