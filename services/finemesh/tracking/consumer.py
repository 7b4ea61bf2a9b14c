"""Events about training jobs, from the bus to the runs."""

from __future__ import annotations

from typing import Final

from google.protobuf.message import DecodeError

from finemesh.chassis.events import Delivery, EventBus, event_subject, parse_event
from finemesh.core.errors import InvalidError
from finemesh.tracking import convert
from finemesh.tracking.service import Tracking

DURABLE: Final = "tracking"
SUBJECT: Final = event_subject("training_job", "*", "*", "*")


async def consume(bus: EventBus, tracking: Tracking) -> None:
    """Apply every event to its run, each once, until cancelled."""

    async def handle(delivery: Delivery) -> None:
        event = parse_event(delivery)
        try:
            fact = convert.job_fact(event)
        except DecodeError as error:
            raise InvalidError(
                f"event {event.id} is not a {event.schema}: {error}", reason="MALFORMED_EVENT"
            ) from error
        if fact is not None:
            await tracking.apply_job_fact(fact)

    await bus.consume(DURABLE, SUBJECT, handle)
