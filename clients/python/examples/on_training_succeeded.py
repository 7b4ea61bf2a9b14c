"""Reacts to every job that succeeds, once, over restarts: run it beside `finemesh up`, stop it by Ctrl-C."""

import asyncio
from pathlib import Path

from finemesh.client import Received, Subscriber, load_settings


async def announce(event: Received) -> None:
    print(f"{event.time:%H:%M:%S} {event.resource} has succeeded: time to export it")  # noqa: T201


subscriber = Subscriber(
    load_settings(),
    subject="finemesh.v1.training_job.succeeded.*.*",
    start=1,  # the first time, everything that ever succeeded
    durable="announcer",
    state=Path("announcer.db"),
)
asyncio.run(subscriber.run(announce))
