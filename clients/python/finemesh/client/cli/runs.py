"""`finemesh runs`: what was measured, and which run is better."""

from __future__ import annotations

import math
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from finemesh.client.cli.context import Commands, options, out
from finemesh.client.cli.metric_names import metrics_named, print_unknown
from finemesh.client.cli.output import (
    duration,
    enum_name,
    moment,
    print_facts,
    print_json,
    print_list,
    short,
    styled,
    table,
)
from finemesh.client.cli.paging import Filter, Limit, OrderBy, collect
from finemesh.client.cli.run_facts import facts_of, print_checkpoints
from finemesh.client.cli.train_specs import AGAIN, print_spec
from finemesh.client.figures import measured
from finemesh.v1 import run_pb2
from finemesh.v1 import tracking_service_pb2 as pb

commands = Commands("runs", "See what was measured, and which run is better.")


@commands("list")
def list_runs(filter_by: Filter = "", order_by: OrderBy = "", limit: Limit = 50) -> None:
    """List the runs of the project, newest first."""
    connection = options.connection()
    request = pb.ListRunsRequest(parent=connection.parent, filter=filter_by, order_by=order_by)
    found = collect(connection.tracking.ListRuns, request, lambda page: iter(page.runs), limit)
    print_list(
        found,
        ("id", "name", "experiment", "tags", "state", "metrics", "took", "created"),
        lambda run: (
            short(run.name),
            escape(run.display_name),
            escape(run.experiment),
            escape(", ".join(run.tags)),
            styled(enum_name(run, "state")),
            len(run.metrics),
            duration(run.start_time if run.HasField("start_time") else run.create_time, run.end_time),
            moment(run.create_time),
        ),
        "no run matches the filter"
        if filter_by
        else "no runs; they appear when a job is submitted, or a program logs one",
    )
    there = {metric.key for run in found for metric in run.metrics}
    print_unknown(connection, {*metrics_named(filter_by + order_by)} - there)


@commands("show")
def show(run: Annotated[str, typer.Argument(help="Id or full name of the run.")]) -> None:
    """Show one run: what it is, what it was made of, the last and best of each metric, its checkpoints."""
    connection = options.connection()
    found = connection.tracking.GetRun(pb.GetRunRequest(name=connection.name("runs", run)))
    if options.json:
        print_json(found)
        return
    print_facts(
        [
            ("run", found.name),
            ("name", escape(found.display_name)),
            ("state", styled(enum_name(found, "state"))),
            ("job", found.training_job),
            ("attempts", found.attempt or ""),
            *facts_of(found),
            *((f"  {key}", escape(value)) for key, value in sorted(found.params.items())),
        ]
    )
    out.print(metric_table(found))
    print_checkpoints(found)


@commands("spec")
def spec(run: Annotated[str, typer.Argument(help="Id or full name of the run.")]) -> None:
    """Print what a run was started from, as a spec file that starts the same again."""
    connection = options.connection()
    found = connection.tracking.GetRun(pb.GetRunRequest(name=connection.name("runs", run)))
    if not found.HasField("spec"):
        raise typer.BadParameter(f"{short(found.name)} was logged by another program: it has no spec")
    print_spec(found.spec, f"Run {short(found.name)}. {AGAIN}")


def metric_table(run: run_pb2.Run) -> Table:
    """A row for each metric of the run: its last and best, and what it ranges over."""
    rows = [
        (escape(m.key), measured(m.key, m.last_value), m.last_step, *_best(m), *_extremes(m), m.point_count)
        for m in run.metrics
    ]
    return table(("metric", "last", "at step", "best", "at step", "min", "max", "points"), rows)


def _extremes(summary: run_pb2.MetricSummary) -> tuple[str, str]:
    """Nothing of a metric without a finite value."""
    low, high = summary.min_value, summary.max_value
    return ("", "") if math.isnan(low) else (measured(summary.key, low), measured(summary.key, high))


def _best(summary: run_pb2.MetricSummary) -> tuple[str, str]:
    """Its best value and that one's step; nothing of a metric that is better neither high nor low."""
    known = not math.isnan(summary.best_value)
    return (measured(summary.key, summary.best_value), str(summary.best_step)) if known else ("", "")
