"""How results are shown: tables for people, JSON for programs, progress while something works."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import typer
from google.protobuf import json_format
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich import box
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from finemesh.client.cli.context import err, options, out
from finemesh.client.watching import wait_for
from finemesh.v1.training_job_pb2 import TrainingJob

R = TypeVar("R", bound=Message)
V = TypeVar("V")

_STATE_STYLES = {
    "SUCCEEDED": "green",
    "FINISHED": "green",
    "PASSED": "green",
    "PASSED_WITH_WARNINGS": "yellow",
    "FAILED": "red",
    "REJECTED": "red",
    "CANCELLED": "yellow",
    "CANCELLING": "yellow",
    "RUNNING": "cyan",
    "STARTING": "cyan",
    "VERIFYING": "cyan",
    "PAUSING": "magenta",
    "PAUSED": "magenta",
    "PREEMPTING": "magenta",
}


def to_json(message: Message) -> dict[str, Any]:
    return json_format.MessageToDict(message)


def print_json(value: Message | Iterable[Message] | dict[str, Any]) -> None:
    """One JSON document: an object, or an array of objects."""
    if isinstance(value, Message):
        document: Any = to_json(value)
    elif isinstance(value, dict):
        document = value
    else:
        document = [to_json(each) for each in value]
    print(json.dumps(document, indent=2, ensure_ascii=False))  # noqa: T201


def print_text(text: str) -> None:
    """As it is: neither wrapped nor coloured."""
    sys.stdout.write(text)


def print_json_line(message: Message | dict[str, Any]) -> None:
    document = to_json(message) if isinstance(message, Message) else message
    print(json.dumps(document, ensure_ascii=False), flush=True)  # noqa: T201


def short(name: str) -> str:
    """The id at the end of a resource name."""
    return name.rsplit("/", 1)[-1]


def enum_name(message: Message, field: str) -> str:
    """Name of an enum field's value without its prefix, e.g. `RUNNING`."""
    descriptor = message.DESCRIPTOR.fields_by_name[field].enum_type
    assert descriptor is not None
    zero = descriptor.values_by_number[0].name
    return descriptor.values_by_number[getattr(message, field)].name.removeprefix(
        zero.removesuffix("UNSPECIFIED")
    )


def choices_of(enum: Any, unspecified: str = "") -> dict[str, Any]:
    """The values of an enum of the contract by the words for them: `BOX_CONVENTION_UNIT` is `unit`.

    `unspecified` is the word for zero; without one it cannot be chosen.
    """
    names: list[str] = enum.keys()
    prefix = names[0].removesuffix("UNSPECIFIED")
    words = {name.removeprefix(prefix).lower().replace("_", "-"): enum.Value(name) for name in names[1:]}
    return {unspecified: enum.Value(names[0]), **words} if unspecified else words


def choice(value: str, choices: Mapping[str, V], option: str) -> V:
    """What a word on the command line stands for, however its parts are joined.

    Raises typer.BadParameter, naming the words that are.
    """
    joined = {word.replace("-", ""): chosen for word, chosen in choices.items()}
    word = value.lower().replace("-", "").replace("_", "")
    if word not in joined:
        raise typer.BadParameter(f"{value!r} is none of {', '.join(choices)}", param_hint=option)
    return joined[word]


def styled(state: str) -> str:
    style = _STATE_STYLES.get(state)
    return f"[{style}]{state}[/]" if style else state


def moment(timestamp: Timestamp) -> str:
    """Local time to the second; empty if unset."""
    if not timestamp.seconds:
        return ""
    return timestamp.ToDatetime(tzinfo=UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def duration(start: Timestamp, end: Timestamp) -> str:
    """Time between the two, up to now if there is no end yet."""
    if not start.seconds:
        return ""
    until = end.ToDatetime(tzinfo=UTC) if end.seconds else datetime.now(UTC)
    seconds = max(0.0, (until - start.ToDatetime(tzinfo=UTC)).total_seconds())  # clocks of two machines
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "") -> Table:
    made = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")  # an id that is cut could not be typed again
    for row in rows:
        made.add_row(*(str(cell) for cell in row))
    return made


def print_list(
    messages: Sequence[R], columns: Sequence[str], row: Callable[[R], Sequence[object]], empty: str
) -> None:
    """A list as a table, or as JSON."""
    if options.json:
        print_json(messages)
    elif messages:
        out.print(table(columns, [row(each) for each in messages]))
    else:
        err.print(f"[dim]{empty}[/]")


def print_facts(facts: Iterable[tuple[str, object]]) -> None:
    """Name and value, a line each; values that are empty are left out."""
    shown = Table(box=None, show_header=False, pad_edge=False)
    shown.add_column(style="dim", no_wrap=True)
    shown.add_column(overflow="fold")
    for name, value in facts:
        if value not in ("", None):
            shown.add_row(name, str(value))
    out.print(shown)


def print_link(name: str, url: str) -> None:
    """A link on a line of its own, whole however narrow the terminal is; nothing if there is none."""
    if url:
        out.print(f"[dim]{name}[/]  {escape(url)}", highlight=False, soft_wrap=True)


def print_error_state(error: Any) -> None:
    """The error that a failed resource carries."""
    if error.code:
        err.print(f"[red]error:[/] {escape(error.message)}", highlight=False, soft_wrap=True)


@contextmanager
def progress_bar(description: str, *, transfer_bytes: int = 0) -> Generator[Callable[[float, str], None]]:
    """A progress bar on stderr; call what it gives with a fraction (or with bytes so far) and a few words."""
    amount = DownloadColumn() if transfer_bytes else TaskProgressColumn()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), amount, TimeElapsedColumn())
    with Progress(
        *columns, TextColumn("[dim]{task.fields[note]}"), console=err, disable=options.json
    ) as progress:
        task = progress.add_task(description, total=transfer_bytes or 1.0, note="")

        def update(done: float, note: str) -> None:
            progress.update(task, completed=done, note=escape(note))

        yield update


def wait_with_progress(
    description: str, watch: Callable[[], Iterator[R]], is_terminal: Callable[[R], bool]
) -> R:
    """Waits for a resource with `progress`, showing it; with --json, a line per version."""
    with progress_bar(description) as update:

        def on_change(version: Any) -> None:
            if options.json:
                print_json_line(version)
            note = version.progress.message or enum_name(version, "state").lower()
            if isinstance(version, TrainingJob) and version.HasField("estimated_end_time"):
                note += f", until about {moment(version.estimated_end_time)}"
            update(version.progress.fraction, note)

        return wait_for(watch, is_terminal, on_change)


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    return (
        path.stat().st_size
        if path.is_file()
        else sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    )
