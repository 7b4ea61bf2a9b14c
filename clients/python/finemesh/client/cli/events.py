"""`finemesh events`: what happens in the mesh, as it happens."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from rich.markup import escape

from finemesh.client.cli.context import Commands, options, out
from finemesh.client.cli.output import print_json_line
from finemesh.client.events import ALL, Received, Subscriber

commands = Commands("events", "See what happens in the mesh, as it happens.")

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def parse_start(text: str) -> datetime | int | None:
    """`now`, `all`, a stream position, a time (ISO 8601), or how long ago (`10m`, `2h`, `1d`)."""
    if text == "now":
        return None
    if text == "all":
        return 1
    if text.isdigit() and int(text) > 0:
        return int(text)
    if text[:-1].isdigit() and text[-1] in _UNITS:
        return datetime.now(UTC) - timedelta(**{_UNITS[text[-1]]: int(text[:-1])})
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} is none of: {parse_start.__doc__}", param_hint="--from"
        ) from error


@commands("tail")
def tail(
    subject: Annotated[
        str, typer.Option(help="Filter: finemesh.v1.<noun>.<fact>.<project>.<id>, * for any part.")
    ] = ALL,
    start: Annotated[
        str,
        typer.Option("--from", help="now, all, a stream position, a time (ISO 8601), or an age such as 10m."),
    ] = "now",
    limit: Annotated[int, typer.Option(help="Stop after this many events; 0 for never.", min=0)] = 0,
) -> None:
    """Print events until interrupted."""
    if not subject or len(subject.split()) != 1:
        raise typer.BadParameter(f"{subject!r} is no subject: write one like {ALL}", param_hint="--subject")
    subscriber = Subscriber(options.settings(), subject=subject, start=parse_start(start))

    async def follow() -> None:
        seen = 0
        async for event in subscriber.events():
            _print_event(event)
            seen += 1
            if seen == limit:
                return

    asyncio.run(follow())


def _print_event(event: Received) -> None:
    if options.json:
        print_json_line(event.to_json())
        return
    at = event.time.astimezone().strftime("%H:%M:%S.%f")[:-3]
    out.print(
        f"[dim]{event.sequence:>6} {at}[/] [cyan]{event.fact:<26}[/] {escape(event.resource)}",
        highlight=False,
    )
