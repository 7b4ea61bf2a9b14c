"""The root of the command line."""

from __future__ import annotations

from importlib.metadata import entry_points, version
from typing import Annotated

import typer

from finemesh.client.cli import (
    alerts,
    certify,
    compare,
    context,
    datasets,
    estimates,
    evaluations,
    events,
    examples,
    exports,
    history,
    logs,
    models,
    preflight,
    push,
    quotas,
    run_curves,
    run_files,
    run_import,
    run_sql,
    run_update,
    run_watch,
    runs,
    sweeps,
    train_specs,
    training,
    validation,
    workers,
)

_EPILOG = (
    "Exit codes: " + "; ".join(f"{code} {meaning}" for code, meaning in context.EXIT_CODES.items()) + "."
)

app = typer.Typer(
    name="finemesh",
    help="Turns annotated data into fine-tuned models that are proven to work.",
    epilog=_EPILOG,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        context.out.print(f"finemesh {version('finemesh-client')}", highlight=False)
        raise typer.Exit


@app.callback()
@context.with_common_options
def root(
    *,
    show_version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    del show_version


_ADDED = (
    certify,
    compare,
    estimates,
    evaluations,
    history,
    logs,
    preflight,
    push,
    run_curves,
    run_sql,
    validation,
    train_specs,
    run_files,
    run_import,
    run_update,
    run_watch,
)  # which add their commands to those of others
for group in (
    datasets.commands,
    models.commands,
    training.commands,
    sweeps.commands,
    runs.commands,
    alerts.commands,
    exports.commands,
    quotas.commands,
    workers.commands,
    events.commands,
):
    app.add_typer(group.app, name=group.noun)


def main() -> None:
    """Entry point of `finemesh`."""
    for plugin in sorted(entry_points(group="finemesh.commands"), key=lambda each: each.name):
        plugin.load()(app)
    examples.add_to(app)
    context.run(app)
