"""Runs in pictures: curves over each other, parallel coordinates, results over costs. By matplotlib."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from finemesh.v1.metric_pb2 import MetricSeries
from finemesh.v1.tracking_service_pb2 import CompareRunsResponse, MetricComparison

MISSING: Final = "pictures need matplotlib: pip install 'finemesh-client[plots]'"
FORMATS: Final = ("png", "svg")
# Okabe and Ito, told apart by most eyes (https://jfly.uni-koeln.de/color/), legible on white and on black.
_COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c8c00", "#7f5fbf")
_INK: Final = "#7a7a7a"
_STYLES: Final = ("-", "--", ":", "-.")
_MAX_AXES: Final = 8
_MAX_LABELLED: Final = 20


_SYSTEM: Final = "system/"  # what metrics of the machine begin with


class PlotsMissingError(Exception):
    """matplotlib is not installed; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Compared:
    """What is drawn.

    Attributes:
        answer: of CompareRuns.
        names: ids of the runs, in its order.
        curves: per metric, a series for each run that has it.
    """

    answer: CompareRunsResponse
    names: Sequence[str]
    curves: Mapping[str, Sequence[MetricSeries]]

    @property
    def drawn(self) -> list[str]:
        """The metrics with points; those of runs that ended long ago may have been removed."""
        return [key for key, series in self.curves.items() if any(each.steps for each in series)]

    @property
    def values(self) -> list[float]:
        """The metric that decides, per run: over common items where there are some, otherwise its last."""
        metric = next((each for each in self.answer.metrics if each.key == self.answer.metric), None)
        if metric is None:
            return [math.nan] * len(self.names)
        last = [each.last_value if each.key else math.nan for each in metric.summaries]
        means = {
            run.rpartition("/")[2]: mean
            for group in self.answer.items.groups
            for run, mean in zip(group.runs, group.run_means, strict=True)
        }
        return [means.get(name, value) for name, value in zip(self.names, last, strict=True)]


def by_interest(answer: CompareRunsResponse) -> list[MetricComparison]:
    """The metrics as people look for them: the one that decides, the others by name, the machine's last."""
    return sorted(
        answer.metrics, key=lambda each: (each.key != answer.metric, each.key.startswith(_SYSTEM), each.key)
    )


def figure_of(compared: Compared) -> Any:
    """All pictures of a comparison in one figure. Raises PlotsMissingError."""
    rows = -(-len(compared.drawn) // 2)
    figure = _figure(10, 3.2 * rows + 6.4)
    grid = figure.add_gridspec(rows + 2, 2)
    for index, key in enumerate(compared.drawn):
        draw_curves(figure.add_subplot(grid[index // 2, index % 2]), compared, key)
    draw_parallel(figure.add_subplot(grid[rows, :]), compared)
    draw_scatter(figure.add_subplot(grid[rows + 1, :]), compared)
    return figure


def picture_of(figure: Any, kind: str) -> bytes:
    """A figure as PNG or SVG, the same bytes for the same figure."""
    import matplotlib as mpl

    content = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "finemesh", "svg.fonttype": "none"}):
        metadata = {"Date": None} if kind == "svg" else None
        figure.savefig(content, format=kind, dpi=120, metadata=metadata, transparent=kind == "svg")
    return content.getvalue()


def single(draw: Any, compared: Compared, *more: Any) -> Any:
    """A figure with one picture."""
    figure = _figure(8, 3.4)
    draw(figure.add_subplot(), compared, *more)
    return figure


def draw_curves(axes: Any, compared: Compared, key: str) -> None:
    """One metric of all runs over their steps; gaps and non-finite values stay open."""
    for series in compared.curves[key]:
        index = compared.names.index(series.run.rpartition("/")[2])
        marker = "o" if len(series.steps) < 20 else None
        axes.plot(
            series.steps, series.values, label=compared.names[index], marker=marker, ms=3, **_look(index)
        )
    _label(axes, key, "step")
    if 1 < len(compared.names) <= _MAX_LABELLED:
        axes.legend(fontsize=7, frameon=False, labelcolor=_INK)


def draw_parallel(axes: Any, compared: Compared) -> None:
    """A line per run through what differs in the runs and through the metric that decides."""
    fields = {each.field: list(each.values) for each in compared.answer.config_differences}
    columns = [(name, _scaled(values)) for name, values in list(fields.items())[: _MAX_AXES - 1]]
    columns.append((compared.answer.metric, _scaled([f"{each:.4g}" for each in compared.values])))
    for index in range(len(compared.names)):
        heights = [places[index] for _, (places, _) in columns]
        axes.plot(range(len(columns)), heights, marker="o", ms=4, **_look(index))
    for place, (_, (_, ticks)) in enumerate(columns):
        axes.axvline(place, color=_INK, lw=0.6)
        for height, text in ticks:
            axes.annotate(
                text, (place, height), xytext=(4, 2), textcoords="offset points", fontsize=7, color=_INK
            )
    _label(axes, "what differs, and what came of it", "")
    names = [name.replace(".", ".\n") for name, _ in columns]  # neighbours would touch
    axes.set_xticks(range(len(columns)), names, fontsize=7, color=_INK)
    axes.set_yticks([])
    axes.margins(x=0.08)


def draw_scatter(axes: Any, compared: Compared) -> None:
    """The metric that decides over what each run took."""
    for index, (cost, value) in enumerate(zip(compared.answer.costs, compared.values, strict=False)):
        minutes = cost.device_seconds / 60
        axes.scatter([minutes], [value], color=_look(index)["color"], s=36, zorder=3)
        if len(compared.names) <= _MAX_LABELLED:
            name = compared.names[index]
            axes.annotate(
                name, (minutes, value), xytext=(6, 3), textcoords="offset points", fontsize=8, color=_INK
            )
    _label(axes, f"{compared.answer.metric or 'no metric'} over what it took", "device minutes")
    axes.margins(0.12)


def _figure(width: float, height: float) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PlotsMissingError(MISSING) from error
    return Figure(figsize=(width, height), layout="constrained")


def _look(index: int) -> dict[str, str]:
    style = _STYLES[index // len(_COLOURS) % len(_STYLES)]
    return {"color": _COLOURS[index % len(_COLOURS)], "linestyle": style}


def _label(axes: Any, title: str, below: str) -> None:
    axes.set_title(title, fontsize=9, color=_INK, loc="left")
    axes.set_xlabel(below, fontsize=8, color=_INK)
    axes.tick_params(labelsize=7, colors=_INK)
    axes.grid(alpha=0.25)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("bottom", "left"):
        axes.spines[side].set_color(_INK)


def _scaled(values: Sequence[str]) -> tuple[list[float], list[tuple[float, str]]]:
    """Heights from 0 to 1, by size for numbers and by name otherwise; and which texts stand where."""
    numbers = [_number(value) for value in values]
    told = [each for each in numbers if not math.isnan(each)]
    are_numbers = bool(told) and all(
        not math.isnan(number) or value in {"", "nan"} for number, value in zip(numbers, values, strict=True)
    )
    if not are_numbers:
        names = sorted(set(values))
        step = 1 / max(1, len(names) - 1)
        heights = {name: index * step for index, name in enumerate(names)}
        return [heights[value] for value in values], [(heights[name], name or "none") for name in names]
    low, high = min(told), max(told)
    span = (high - low) or 1.0
    places = [(each - low) / span for each in numbers]
    ticks = {place: value for place, value in zip(places, values, strict=True) if not math.isnan(place)}
    return places, list(ticks.items())


def _number(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        return math.nan
    return number if math.isfinite(number) else math.nan
