"""`finemesh runs update`, `finish` and `delete`: what people say of a run and do with it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from finemesh.client.cli.context import options, out
from finemesh.client.cli.output import choice, enum_name, print_json, short
from finemesh.client.cli.runs import commands
from finemesh.v1 import run_pb2
from finemesh.v1 import tracking_service_pb2 as pb

_STATES = {
    "finished": run_pb2.Run.STATE_FINISHED,
    "failed": run_pb2.Run.STATE_FAILED,
    "cancelled": run_pb2.Run.STATE_CANCELLED,
}


@commands("update")
def update(
    run: Annotated[str, typer.Argument(help="Id or full name of the run.")],
    name: Annotated[str | None, typer.Option(help="A name for people.")] = None,
    notes: Annotated[str | None, typer.Option(help="Markdown; @FILE reads it from a file.")] = None,
    experiment: Annotated[str | None, typer.Option(help="The group of runs that it belongs to.")] = None,
    parent: Annotated[str | None, typer.Option(help="The run that it goes on from.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Add a tag; may be repeated.")] = None,
    untag: Annotated[list[str] | None, typer.Option(help="Remove a tag; may be repeated.")] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="Set a label, KEY=VALUE; remove it with KEY=. May be repeated.")
    ] = None,
) -> None:
    """Change what people say of a run. An empty text removes what was said."""
    connection = options.connection()
    full_name = connection.name("runs", run)
    given = {
        "display_name": name,
        "notes": _text_of(notes),
        "experiment": experiment,
        "parent_run": connection.name("runs", parent) if parent else parent,
    }
    fields: dict[str, Any] = {field: value for field, value in given.items() if value is not None}
    if tag or untag or label:
        before = connection.tracking.GetRun(pb.GetRunRequest(name=full_name))
        if tag or untag:
            fields["tags"] = [each for each in (*before.tags, *(tag or ())) if each not in (untag or ())]
        if label:
            fields["labels"] = _labels(dict(before.labels), label)
    if not fields:
        raise typer.BadParameter("say what to change: --name, --notes, --tag, ...; see --help")
    request = pb.UpdateRunRequest(run=run_pb2.Run(name=full_name, **fields))
    request.update_mask.paths.extend(sorted(fields))
    changed = connection.tracking.UpdateRun(request)
    if options.json:
        print_json(changed)
    else:
        out.print(f"changed {', '.join(sorted(fields))} of {short(changed.name)}", highlight=False)


@commands("finish")
def finish(
    run: Annotated[str, typer.Argument(help="Id or full name of the run.")],
    state: Annotated[str, typer.Option("--as", help=" | ".join(_STATES))] = "finished",
) -> None:
    """End a run of another program, as when that was killed. Runs of training jobs end with their job."""
    connection = options.connection()
    ended = connection.tracking.FinishRun(
        pb.FinishRunRequest(name=connection.name("runs", run), state=choice(state, _STATES, "--as"))
    )
    if options.json:
        print_json(ended)
    else:
        out.print(f"{short(ended.name)} is {enum_name(ended, 'state')}", highlight=False)


@commands("delete")
def delete(run: Annotated[str, typer.Argument(help="Id or full name of the run.")]) -> None:
    """Delete a run that has ended, with its points and files."""
    connection = options.connection()
    connection.tracking.DeleteRun(pb.DeleteRunRequest(name=connection.name("runs", run)))


def _text_of(notes: str | None) -> str | None:
    if notes is None or not notes.startswith("@"):
        return notes
    try:
        return Path(notes[1:]).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"cannot read {notes[1:]}: {error}", param_hint="--notes") from error


def _labels(labels: dict[str, str], changes: list[str]) -> dict[str, str]:
    for change in changes:
        key, equals, value = change.partition("=")
        if not key or not equals:
            raise typer.BadParameter(
                f"{change!r}: write KEY=VALUE, or KEY= to remove it", param_hint="--label"
            )
        if value:
            labels[key] = value
        else:
            labels.pop(key, None)
    return labels
