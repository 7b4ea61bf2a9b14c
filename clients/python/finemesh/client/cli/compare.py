"""`finemesh runs compare`: which run is better, in words, tables and pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.markup import escape

from finemesh.client.cli.context import err, options, out
from finemesh.client.cli.output import choice, print_json, short, table
from finemesh.client.cli.runs import commands
from finemesh.client.comparison_page import page_of
from finemesh.client.connection import Connection
from finemesh.client.figures import measured
from finemesh.client.plots import FORMATS, Compared, PlotsMissingError, by_interest, figure_of, picture_of
from finemesh.v1 import run_pb2
from finemesh.v1 import tracking_service_pb2 as pb
from finemesh.v1.metric_pb2 import MetricSeries

_GOALS: Final = {
    "auto": run_pb2.GOAL_UNSPECIFIED,
    "minimize": run_pb2.GOAL_MINIMIZE,
    "maximize": run_pb2.GOAL_MAXIMIZE,
}
_WAYS: Final = {run_pb2.GOAL_MINIMIZE: "min", run_pb2.GOAL_MAXIMIZE: "max"}
# Curves that people look at first, behind the metric that decides.
_CURVES: Final = ("val/loss", "train/loss", "val/accuracy")
_MAX_CURVES: Final = 4


@commands("compare")
def compare(
    runs: Annotated[list[str], typer.Argument(help="Ids or full names of two or more runs.")],
    metric: Annotated[str, typer.Option(help="The metric that decides; chosen if left out.")] = "",
    goal: Annotated[str, typer.Option(help=" | ".join(_GOALS))] = "auto",
    baseline: Annotated[str, typer.Option(help="The run that gains are counted from; else the first.")] = "",
    price: Annotated[float, typer.Option(help="Of an hour of one GPU, or of a machine without.")] = 0.0,
    html: Annotated[Path | None, typer.Option(help="Write a page that needs nothing else.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write curves and charts: .png or .svg.")] = None,
) -> None:
    """Set runs side by side: what differs in them, their metrics, which is better, and whether that is more
    than noise.
    """
    if plot and plot.suffix.lstrip(".").lower() not in FORMATS:
        raise typer.BadParameter(f"{plot.name} is neither .png nor .svg", param_hint="--plot")
    connection = options.connection()
    names = [connection.name("runs", run) for run in runs]
    response = connection.tracking.CompareRuns(
        pb.CompareRunsRequest(
            parent=connection.parent,
            runs=names,
            metric=metric,
            goal=choice(goal, _GOALS, "--goal"),
            baseline=connection.name("runs", baseline) if baseline else "",
            price_per_device_hour=price,
        )
    )
    if options.json:
        print_json(response)
    else:
        print_comparison(response, names)
    if html or plot:
        _draw(connection, response, names, html, plot)


def print_comparison(response: pb.CompareRunsResponse, names: Sequence[str]) -> None:
    """The answer of CompareRuns as tables and sentences."""
    heads = [short(name) for name in names]
    _print_differences(response, heads)
    rows = [
        (
            f"[bold]{escape(each.key)}[/]" if each.key == response.metric else escape(each.key),
            _WAYS.get(each.goal, ""),
            *(
                _cell(summary, difference, best=name == each.better_run)
                for name, summary, difference in zip(
                    names, each.summaries, each.last_differences, strict=True
                )
            ),
        )
        for each in by_interest(response)
    ]
    out.print(table(("metric, last ± (best)", "goal", *heads), rows))
    if response.HasField("items"):
        _print_items(response)
    if any(cost.gain for cost in response.costs):
        _print_costs(response, heads)
    out.print(escape(response.verdict), soft_wrap=True)
    for sentence in response.recommendations:
        out.print(f"  {escape(sentence)}", soft_wrap=True)
    if response.items_problem:
        out.print(f"[dim]not compared item by item: {escape(response.items_problem)}[/]", soft_wrap=True)


def _print_differences(response: pb.CompareRunsResponse, heads: Sequence[str]) -> None:
    found = [
        (kind, [(escape(each.field), *(escape(value) for value in each.values)) for each in differences])
        for kind, differences in (
            ("what differs", response.config_differences),
            ("data", response.data_differences),
            ("program", response.code_differences),
            ("environment", response.environment_differences),
        )
        if differences
    ]
    for kind, rows in found:
        out.print(table((kind, *heads), rows))
    if not found:
        out.print("[dim]the configurations do not differ[/]")


def _print_items(response: pb.CompareRunsResponse) -> None:
    found = response.items
    labels = [", ".join(map(short, group.runs)) for group in found.groups]
    rows = [
        (
            f"{labels[each.first]} - {labels[each.second]}",
            f"{each.estimate:+.4g}",
            f"{each.low:+.4g} to {each.high:+.4g}",
            f"{each.adjusted_p_value:.2g}",
            "[green]yes[/]" if each.conclusive else "not yet",
            "" if each.conclusive else each.items_needed if each.items_needed > 0 else "none would do",
        )
        for each in found.differences
    ]
    title = f"{found.metric} on the same {found.item_count} items"
    heads = (title, "difference", "95% interval", "p, Holm", "more than noise", "more items needed")
    out.print(table(heads, rows))


def _print_costs(response: pb.CompareRunsResponse, heads: Sequence[str]) -> None:
    rows = [
        (
            head,
            f"{cost.device_seconds / 60:.3g}",
            "" if math.isnan(cost.gain) else f"{cost.gain:+.4g}",
            f"{cost.device_seconds_per_point / 60:.3g}" if cost.device_seconds_per_point else "",
            f"{cost.cost:.4g}" if cost.cost else "",
        )
        for head, cost in zip(heads, response.costs, strict=True)
    ]
    out.print(table(("run", "device minutes", "gain", "minutes per hundredth", "cost"), rows))


def _draw(
    connection: Connection,
    response: pb.CompareRunsResponse,
    names: Sequence[str],
    html: Path | None,
    plot: Path | None,
) -> None:
    compared = Compared(response, [short(name) for name in names], _curves(connection, response, names))
    try:
        if plot:
            plot.write_bytes(picture_of(figure_of(compared), plot.suffix.lstrip(".").lower()))
        if html:
            html.write_text(page_of(compared), encoding="utf-8")
    except PlotsMissingError as missing:
        err.print(f"[red]error:[/] {escape(str(missing))}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from missing
    for path in filter(None, (plot, html)):
        err.print(f"[dim]wrote {escape(str(path))}[/]", highlight=False)


def _curves(
    connection: Connection, response: pb.CompareRunsResponse, names: Sequence[str]
) -> dict[str, list[MetricSeries]]:
    """The curves of a few metrics that have any: the one that decides, and those people look at first."""
    curved = [
        each.key
        for each in by_interest(response)
        if any(summary.point_count > 1 for summary in each.summaries)
    ]
    first = [key for key in (response.metric, *_CURVES) if key in curved]
    keys = list(dict.fromkeys([*first, *curved]))[:_MAX_CURVES]
    if not keys:
        return {}
    answer = connection.tracking.QueryMetrics(
        pb.QueryMetricsRequest(parent=connection.parent, runs=names, keys=keys)
    )
    return {key: [series for series in answer.series if series.key == key] for key in keys}


def _cell(summary: run_pb2.MetricSummary, difference: float, *, best: bool) -> str:
    if not summary.key:
        return "[dim]none[/]"
    text = measured(summary.key, summary.last_value, 5)
    if difference and not math.isnan(difference):
        sign = "+" if difference > 0 else ""
        text += f" [dim]{sign}{measured(summary.key, difference, 3)}[/]"
    if not math.isnan(summary.best_value):
        text += f" ({measured(summary.key, summary.best_value, 5)})"
    return f"[green]{text}[/]" if best else text
