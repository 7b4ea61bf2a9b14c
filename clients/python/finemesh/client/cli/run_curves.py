"""`finemesh runs curves`: the curves of runs over steps, time or a metric, drawn or as data."""

from __future__ import annotations

import csv
import itertools
import sys
from collections.abc import Iterator, Sequence
from typing import Annotated, Final

import typer
from rich.markup import escape

from finemesh.client.cli.canvas import drawing
from finemesh.client.cli.context import EXIT_NOT_FOUND, err, options, out
from finemesh.client.cli.metric_names import print_unknown
from finemesh.client.cli.output import choice, print_json, short
from finemesh.client.cli.runs import commands
from finemesh.v1 import metric_pb2
from finemesh.v1 import tracking_service_pb2 as pb

_FORMATS: Final = {each: each for each in ("plot", "csv")}
_COLOURS: Final = ("cyan", "yellow", "green", "magenta", "red", "blue", "white")


@commands("curves")
def curves(
    runs: Annotated[list[str], typer.Argument(help="Ids or full names of the runs.")],
    key: Annotated[list[str] | None, typer.Option(help="Metric, or several. Default: train/loss.")] = None,
    over: Annotated[str, typer.Option(help="step, time, or a metric that grows: train/tokens.")] = "step",
    smooth: Annotated[
        float, typer.Option(min=0, help="Half life of the weights, in units of the axis; 0 does not smooth.")
    ] = 0.0,
    align: Annotated[int, typer.Option(min=0, help="Put all on so many shared places; 0 does not.")] = 0,
    from_step: Annotated[int, typer.Option(min=0, help="Only steps from here on.")] = 0,
    to_step: Annotated[int, typer.Option(min=0, help="Only steps up to here; 0 means all.")] = 0,
    max_points: Annotated[int, typer.Option(min=0, help="Points of a curve; 0 means 1000.")] = 0,
    form: Annotated[str, typer.Option("--format", help=" | ".join(_FORMATS))] = "plot",
) -> None:
    """Draw curves of runs over one axis. With --format csv or --json, as data.

    A metric that none of the runs has ends it with 3, after the others have been drawn.
    """
    form = choice(form, _FORMATS, "--format")
    connection = options.connection()
    request = pb.QueryMetricsRequest(
        parent=connection.parent,
        runs=[connection.name("runs", each) for each in runs],
        keys=key or ["train/loss"],
        axis=_axis(over),
        axis_metric="" if over in {"step", "time"} else over,
        half_life=smooth,
        aligned_points=align,
        min_step=from_step,
        max_step=to_step,
        max_points=max_points,
    )
    response = connection.tracking.QueryMetrics(request)
    if options.json:
        print_json(response)
    elif form == "csv":
        _print_csv(response.series)
    else:
        _draw(response.series, over)
    missing = {*request.keys} - {series.key for series in response.series}
    if request.axis_metric and not any(series.values for series in response.series):
        missing.add(request.axis_metric)
    if print_unknown(connection, sorted(missing), request.runs):
        raise typer.Exit(EXIT_NOT_FOUND)


def _axis(over: str) -> pb.QueryMetricsRequest.Axis:
    known = {"step": pb.QueryMetricsRequest.AXIS_STEP, "time": pb.QueryMetricsRequest.AXIS_TIME}
    return known.get(over, pb.QueryMetricsRequest.AXIS_METRIC)


def _print_csv(found: Sequence[metric_pb2.MetricSeries]) -> None:
    """A line per point; a column is empty where there is nothing to tell."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["run", "key", "step", "axis", "value", "smoothed", "time_us", "attempt"])
    for series in found:
        columns = (
            series.steps,
            series.axis_values or series.steps,
            series.values,
            series.smoothed_values,
            series.times_us,
            series.attempts,
        )
        for point in itertools.zip_longest(*columns, fillvalue=""):
            writer.writerow([short(series.run), series.key, *point])


def _draw(found: Sequence[metric_pb2.MetricSeries], over: str) -> None:
    """A drawing per metric, a colour per run."""
    runs = list(dict.fromkeys(series.run for series in found))
    colours = dict(zip(runs, itertools.cycle(_COLOURS)))
    for key in dict.fromkeys(series.key for series in found):
        own = [series for series in found if series.key == key]
        lines = [(_places(each), each.smoothed_values or each.values, colours[each.run]) for each in own]
        unit = "seconds" if over == "time" else "steps" if over == "step" else over
        out.print(f"[bold]{escape(key)}[/] over {escape(unit)}")
        out.print(drawing(lines), highlight=False)
        for note in _notes(own, colours):
            out.print(note, highlight=False)
    if not found:
        err.print("[dim]no points of these metrics; `finemesh runs show` lists what a run has[/]")


def _places(series: metric_pb2.MetricSeries) -> Sequence[float]:
    return series.axis_values or [float(step) for step in series.steps]


def _notes(found: Sequence[metric_pb2.MetricSeries], colours: dict[str, str]) -> Iterator[str]:
    for series in found:
        last = f"last {series.values[-1]:.6g}" if series.values else "no points"
        note = f"{len(series.values)} of {series.total_points} points, {last}"
        if series.left_out_points:
            note += f"; {series.left_out_points} points have no place on this axis"
        yield f"  [{colours[series.run]}]●[/] {escape(short(series.run))}: {note}"
