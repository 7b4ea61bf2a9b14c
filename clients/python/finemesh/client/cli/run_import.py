"""`finemesh runs import`: runs that other trackers have written."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from finemesh.client.cli.context import EXIT_FAILED, err, options, out
from finemesh.client.cli.output import print_json_line, short
from finemesh.client.cli.runs import commands
from finemesh.client.errors import RpcError
from finemesh.client.imports.mlflow import mlflow_runs
from finemesh.client.imports.source import Source
from finemesh.client.imports.tensorboard import tensorboard_runs
from finemesh.client.sync import Report, sync


class Tracker(StrEnum):
    """Whose runs can be read."""

    TENSORBOARD = "tensorboard"
    MLFLOW = "mlflow"


_READERS: dict[Tracker, Callable[[Path], Iterator[Source]]] = {
    Tracker.TENSORBOARD: tensorboard_runs,
    Tracker.MLFLOW: mlflow_runs,
}


@commands("import")
def import_runs(
    tracker: Annotated[Tracker, typer.Argument(help="What has written them.")],
    path: Annotated[
        Path,
        typer.Argument(help="Event file or folder of TensorBoard; mlruns folder or SQLite file of MLflow."),
    ],
    experiment: Annotated[
        str, typer.Option(help="The experiment that they go to, in place of their own.")
    ] = "",
) -> None:
    """Copy runs of TensorBoard or MLflow: points, parameters, tags, notes, pictures, files.

    Importing them again changes nothing. What is not taken is said, run by run.
    """
    failed = False
    try:
        for source in _READERS[tracker](path):
            source.experiment = experiment or source.experiment
            failed |= not _import(source)
    except (FileNotFoundError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error
    if failed:
        raise typer.Exit(EXIT_FAILED)


def _import(source: Source) -> bool:
    """Copy one run. Whether it is here."""
    connection = options.connection()
    with tempfile.TemporaryDirectory(prefix="finemesh-import-") as folder:
        source.record(Path(folder), connection.settings.project)
        try:
            report = sync(connection, Path(folder))
        except RpcError as error:
            if error.reason != "RUN_EXISTS":
                raise
            err.print(
                f"[red]error:[/] {escape(source.name)}: {source.run_id} was imported before; its source or"
                " the experiment has changed since: delete it (finemesh runs delete), and import it again",
                highlight=False,
                soft_wrap=True,
            )
            return False
    _say(source, report)
    return True


def _say(source: Source, report: Report) -> None:
    problems = [*source.problems, *report.problems]
    if options.json:
        document: dict[str, Any] = {
            "source": source.name,
            "run": report.run,
            "points": report.points,
            "files": report.files,
            "problems": problems,
        }
        print_json_line(document)
        return
    done = f"{report.points} points, {report.files} files" if report.files else "was here already"
    out.print(f"{escape(source.name)}: {short(report.run)}, {done}", highlight=False, soft_wrap=True)
    for problem in problems:
        err.print(f"  [yellow]{escape(problem)}[/]", highlight=False, soft_wrap=True)
