"""`finemesh sweep`: the same fine-tune with different values, and which of them are best."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from finemesh.client import sweeps
from finemesh.client.cli.context import EXIT_FAILED, Commands, err, options, out
from finemesh.client.cli.output import (
    duration,
    enum_name,
    moment,
    print_error_state,
    print_facts,
    print_json,
    print_list,
    print_text,
    short,
    styled,
    table,
    wait_with_progress,
)
from finemesh.client.cli.paging import Filter, Limit, OrderBy, collect
from finemesh.client.cli.specs import Overrides, as_seen_from_here, fail
from finemesh.client.errors import RpcError
from finemesh.client.specs import SpecError
from finemesh.specfile import SpecFile, SpecFileError
from finemesh.v1 import sweep_pb2
from finemesh.v1 import sweep_service_pb2 as pb

commands = Commands("sweep", "Train with different values, and see which are best.")

Sweep = sweep_pb2.Sweep
ENDED = {Sweep.STATE_SUCCEEDED, Sweep.STATE_FAILED, Sweep.STATE_CANCELLED}

SweepId = Annotated[str, typer.Argument(help="Id or full name of the sweep.")]


@commands("create")
def create(
    file: Annotated[
        Path,
        typer.Option(
            "--file", "-f", help="Sweep in YAML; `finemesh sweep template` shows one.", dir_okay=False
        ),
    ],
    overrides: Overrides = None,
    new_id: Annotated[
        str, typer.Option("--id", help="Id of the new sweep; its jobs are called ID-1 and so on.")
    ] = "",
    *,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait for the end and show progress.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Show the trials there would be; start nothing.")
    ] = False,
) -> None:
    """Begin a sweep. Every combination is checked before any of them is trained.

    A sweep file, in short:

        spec: spec.yaml
        parameters:
          lora.rank: [8, 16, 32]
          optimization.learning_rate: {log_uniform: [1e-5, 1e-3]}
        successive_halving: {trials: 27}

    `finemesh sweep template > sweep.yaml` writes one with everything explained.
    """
    connection = options.connection()
    asked, read = _read(file, overrides or [])
    request = pb.CreateSweepRequest(
        parent=connection.parent,
        sweep=asked,
        sweep_id=new_id,
        request_id=str(uuid.uuid4()),
        validate_only=check,
    )
    try:
        sweep = connection.sweeps.CreateSweep(request)
    except RpcError as error:
        if not error.violations:
            raise
        fail(
            [
                f"{where}: {each.field}: {each.description}"
                if (where := sweeps.place_in(read, asked, each.field))
                else f"{each.field}: {each.description}"
                for each in error.violations
            ]
        )
    if check:
        show_sweep(sweep, planned=True)
        err.print("[green]every combination is sound[/]; nothing was started")
        return
    if wait:
        sweep = _follow(sweep.name)
    _end_with(sweep, shown=wait and options.json)


def _read(file: Path, overrides: list[str]) -> tuple[Sweep, SpecFile]:
    try:
        asked, read = sweeps.read(file, overrides)
    except SpecFileError as error:
        fail([str(error)])
    except SpecError as error:
        fail([str(problem) for problem in error.problems])
    as_seen_from_here(asked.spec)
    return asked, read


@commands("template")
def template() -> None:
    """Print a sweep file in which everything is explained."""
    print_text(sweeps.TEMPLATE)


@commands("list")
def list_sweeps(filter_by: Filter = "", order_by: OrderBy = "", limit: Limit = 50) -> None:
    """List the sweeps of the project, newest first."""
    connection = options.connection()
    request = pb.ListSweepsRequest(parent=connection.parent, filter=filter_by, order_by=order_by)
    found = collect(connection.sweeps.ListSweeps, request, lambda page: iter(page.sweeps), limit)
    print_list(
        found,
        ("id", "name", "state", "strategy", "trials", "best", "took", "created"),
        lambda sweep: (
            short(sweep.name),
            escape(sweep.display_name),
            styled(enum_name(sweep, "state")),
            _strategy(sweep),
            sweep.rungs[0].trials,
            short(sweep.best_training_job),
            duration(sweep.create_time, sweep.end_time),
            moment(sweep.create_time),
        ),
        "no sweeps; begin one with `finemesh sweep create`",
    )


@commands("show")
def show(sweep: SweepId) -> None:
    """Show one sweep with its trials, best first."""
    connection = options.connection()
    show_sweep(connection.sweeps.GetSweep(pb.GetSweepRequest(name=connection.name("sweeps", sweep))))


@commands("watch")
def watch(sweep: SweepId) -> None:
    """Follow a sweep to its end. Exit code 1 if it does not succeed."""
    _end_with(_follow(options.connection().name("sweeps", sweep)), shown=options.json)


@commands("cancel")
def cancel(sweep: SweepId) -> None:
    """Stop a sweep. The jobs of its trials save a checkpoint first."""
    connection = options.connection()
    show_sweep(connection.sweeps.CancelSweep(pb.CancelSweepRequest(name=connection.name("sweeps", sweep))))


@commands("delete")
def delete(
    sweep: SweepId,
    *,
    jobs: Annotated[
        bool, typer.Option("--jobs", help="Also delete its jobs, with their checkpoints.")
    ] = False,
) -> None:
    """Delete a sweep that has ended. The jobs of its trials stay, unless told otherwise."""
    connection = options.connection()
    connection.sweeps.DeleteSweep(pb.DeleteSweepRequest(name=connection.name("sweeps", sweep), force=jobs))


def _follow(name: str) -> Sweep:
    connection = options.connection()
    return wait_with_progress(
        f"sweeping {short(name)}",
        lambda: connection.sweeps.WatchSweep(pb.WatchSweepRequest(name=name)),
        lambda version: version.state in ENDED,
    )


def _end_with(sweep: Sweep, *, shown: bool) -> None:
    if not shown:
        show_sweep(sweep)
    if sweep.state in ENDED - {Sweep.STATE_SUCCEEDED}:
        raise typer.Exit(EXIT_FAILED)


def show_sweep(sweep: Sweep, *, planned: bool = False) -> None:
    """A sweep with its trials, best first; `planned`, one that was only checked, has no state."""
    if options.json:
        print_json(sweep)
        return
    print_facts(
        [
            ("sweep", sweep.name),
            ("name", escape(sweep.display_name)),
            ("state", "" if planned else styled(enum_name(sweep, "state"))),
            ("", escape(sweep.progress.message)),
            ("strategy", _strategy(sweep)),
            ("objective", f"{sweep.objective.metric}, {enum_name(sweep.objective, 'goal').lower()}"),
            ("compared", _rungs(sweep)),
            ("best", short(sweep.best_training_job)),
            ("took", "" if planned else duration(sweep.create_time, sweep.end_time)),
            ("cost", "" if planned else _cost(sweep, sum(trial.held_seconds for trial in sweep.trials))),
        ]
    )
    fields = list(sweeps.varying(sweep))
    heads = ("", "trial", "state", *(_short_field(field, fields) for field in fields))
    measured = (sweep.objective.metric, "step", "cost", "")
    out.print(table((*heads, *measured), [_row(sweep, trial, fields) for trial in sweeps.ranked(sweep)]))
    print_error_state(sweep.error)


def _row(sweep: Sweep, trial: sweep_pb2.SweepTrial, fields: list[str]) -> list[object]:
    values = {field: _value(trial.values.fields[field]) for field in fields}
    return [
        "[green]*[/]" if trial.best else "",
        trial.number,
        styled(enum_name(trial, "state")),
        *values.values(),
        f"{trial.objective:.6g}" if trial.HasField("objective") else "",
        f"{trial.step}/{trial.total_steps}" if trial.total_steps else "",
        _cost(sweep, trial.held_seconds) if trial.held_seconds else "",
        escape(trial.message),
    ]


def _value(value: Any) -> str:
    kind = value.WhichOneof("kind")
    if kind == "number_value":
        return f"{value.number_value:g}"
    if kind == "list_value":
        return ", ".join(_value(each) for each in value.list_value.values)
    if kind == "struct_value":
        return (
            "{" + ", ".join(f"{key}: {_value(each)}" for key, each in value.struct_value.fields.items()) + "}"
        )
    return escape(str(getattr(value, kind))) if kind else ""


def _short_field(field: str, fields: list[str]) -> str:
    """The last part of a path, where that tells it from the others."""
    last = field.rpartition(".")[2]
    return last if sum(each.rpartition(".")[2] == last for each in fields) == 1 else field


def _strategy(sweep: Sweep) -> str:
    return (sweep.WhichOneof("strategy") or "grid").replace("_", " ")


def _rungs(sweep: Sweep) -> str:
    if len(sweep.rungs) < 2:
        return "at the end"
    return ", ".join(
        f"{rung.trials} at {f'step {rung.steps}' if rung.steps else 'the end'}" for rung in sweep.rungs
    )


def _cost(sweep: Sweep, seconds: float) -> str:
    """What was held for so long: GPU hours, or the time of processes without one."""
    gpus = sweep.spec.resources.gpus
    if gpus:
        return f"{gpus * seconds / 3600:.2f} GPU h"
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 3600:.2f} h"
