"""`finemesh runs watch`: a run, as it goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from fnmatch import fnmatchcase
from typing import Annotated

import typer
from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from finemesh.client.cli.context import EXIT_FAILED, EXIT_NOT_FOUND, err, options, out
from finemesh.client.cli.metric_names import print_unknown
from finemesh.client.cli.output import duration, enum_name, print_json_line, short, styled
from finemesh.client.cli.run_files import RunId
from finemesh.client.cli.runs import commands, metric_table
from finemesh.client.watching import follow
from finemesh.v1.run_pb2 import Run
from finemesh.v1.tracking_service_pb2 import WatchRunRequest

_MACHINE = "system/"


@commands("watch")
def watch(
    run: RunId,
    metric: Annotated[
        list[str] | None,
        typer.Option(help="Metric or pattern such as 'val/*'; may be repeated. Default: all but system/*."),
    ] = None,
) -> None:
    """Follow a run to its end: its metrics as they change; in a pipe, a line for each that did.

    Exit code 1 if it does not finish well, 3 if it ends without a metric that was asked for.
    """
    connection = options.connection()
    request = WatchRunRequest(name=connection.name("runs", run))
    wanted = metric or []
    missing, told, version = set(wanted), False, Run()
    with ExitStack() as stack:
        show = _view(stack)
        for version in follow(
            lambda: connection.tracking.WatchRun(request), lambda each: each.state != Run.STATE_RUNNING
        ):
            there = [each.key for each in version.metrics]
            missing = {each for each in wanted if not _matching(there, [each])}
            if missing and there and not told and version.state == Run.STATE_RUNNING:
                told = True
                said = f"no {', '.join(sorted(missing))} yet; there are {', '.join(there)}"
                err.print(f"[dim]{escape(said)}[/]", highlight=False, soft_wrap=True)
            _keep(version, wanted)
            show(version)
    if missing:
        print_unknown(connection, sorted(missing), [request.name])
        raise typer.Exit(EXIT_NOT_FOUND)
    if version.state != Run.STATE_FINISHED:
        raise typer.Exit(EXIT_FAILED)


def _matching(keys: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Those that a pattern matches; without patterns, all that the run itself has logged."""
    if not wanted:
        return [key for key in keys if not key.startswith(_MACHINE)]
    return [key for key in keys if any(key == each or fnmatchcase(key, each) for each in wanted)]


def _keep(run: Run, wanted: Sequence[str]) -> None:
    """Leave the summaries of wanted metrics alone in the run."""
    keys = {*_matching([each.key for each in run.metrics], wanted)}
    kept = [each for each in run.metrics if each.key in keys]
    del run.metrics[:]
    run.metrics.extend(kept)


def _view(stack: ExitStack) -> Callable[[Run], None]:
    """What shows versions: a JSON line each, a table that changes, or in a pipe lines of what has changed."""
    if options.json:
        return print_json_line
    if not out.is_terminal:
        return _Lines().print
    live = stack.enter_context(Live(console=out, auto_refresh=False))
    return lambda run: live.update(_table(run), refresh=True)


def _table(run: Run) -> Group:
    attempts = f", attempt {run.attempt}" if run.attempt > 1 else ""
    took = duration(run.start_time if run.HasField("start_time") else run.create_time, run.end_time)
    head = f"{short(run.name)} {styled(enum_name(run, 'state'))}{attempts}, {took}"
    return Group(Text.from_markup(head), metric_table(run))


class _Lines:
    """Prints each metric when it is there first, and whenever it has changed; at the end the state."""

    def __init__(self) -> None:
        self._printed: dict[str, bytes] = {}

    def print(self, run: Run) -> None:
        for each in run.metrics:
            content = each.SerializeToString()  # NaN equals itself there
            if self._printed.get(each.key) != content:
                self._printed[each.key] = content
                print(f"{each.key}  {each.last_value:.6g}  at step {each.last_step}", flush=True)  # noqa: T201
        if run.state != Run.STATE_RUNNING:
            print(enum_name(run, "state"), flush=True)  # noqa: T201
