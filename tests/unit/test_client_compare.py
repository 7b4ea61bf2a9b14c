"""The answer of a comparison as tables, pictures and a page that needs nothing else."""

from __future__ import annotations

import io
import math
import re
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from finemesh.client import plots
from finemesh.client.cli.compare import print_comparison
from finemesh.client.cli.context import out
from finemesh.client.comparison_page import page_of
from finemesh.client.plots import Compared, PlotsMissingError, figure_of, picture_of
from finemesh.v1 import comparison_pb2, run_pb2
from finemesh.v1.metric_pb2 import MetricSeries
from finemesh.v1.tracking_service_pb2 import CompareRunsResponse
from PIL import Image

NAMES = [f"projects/p/runs/{run}" for run in ("small", "large")]


def answer() -> CompareRunsResponse:
    response = CompareRunsResponse(
        metric="test/accuracy",
        better_run=NAMES[1],
        verdict="cannot tell yet on test/accuracy: <script>",
        recommendations=["To tell more, evaluate on about 210 more items like these."],
    )
    response.config_differences.add(field="rank", values=["4", "16"])
    response.config_differences.add(field="kind", values=["", "x & y"])
    summaries = [
        run_pb2.MetricSummary(key="test/accuracy", last_value=value, best_value=value)
        for value in (0.5, 0.625)
    ]
    response.metrics.add(
        key="test/accuracy", goal=run_pb2.GOAL_MAXIMIZE, summaries=summaries, last_differences=[0.0, 0.125]
    )
    for name, seconds in zip(NAMES, (60.0, 600.0), strict=True):
        response.items.groups.add(runs=[name], mean=0.5, run_means=[0.5])
        response.costs.add(run=name, seconds=seconds, device_seconds=seconds, gain=0.125)
    response.items.item_count = 64
    response.items.differences.append(
        comparison_pb2.GroupDifference(second=1, estimate=-0.125, low=-0.3, high=0.05, items_needed=210)
    )
    return response


def compared() -> Compared:
    values = [1.0, float("nan"), float("inf"), 0.5]
    series = [MetricSeries(run=name, key="val/loss", steps=range(4), values=values) for name in NAMES]
    return Compared(answer(), ["small", "large"], {"val/loss": series})


class Links(HTMLParser):
    """What a page would load, and the words on it."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.tags: set[str] = set()
        self.words = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        names = ("src", "href", "xlink:href", "data")
        self.loaded += [value or "" for name, value in attrs if name in names]

    def handle_data(self, data: str) -> None:
        self.words += data


def test_the_page_loads_nothing_and_says_what_the_answer_says() -> None:
    page = page_of(compared())
    seen = Links()
    seen.feed(page)
    assert all(link.startswith("#") for link in seen.loaded)
    assert not re.search(r"url\((?!#)", page)
    assert "script" not in seen.tags
    assert page.count("<svg") == 3
    assert "prefers-color-scheme: dark" in page
    for words in ("cannot tell yet", "<script>", "x & y", "210", "64 items", "rank", "To tell more"):
        assert words in seen.words


def test_the_page_shows_bytes_with_the_unit_of_their_size() -> None:
    one = compared()
    summaries = [
        run_pb2.MetricSummary(key="system/memory_bytes", last_value=value, best_value=math.nan)
        for value in (6.5e8, 6.1e8)
    ]
    one.answer.metrics.add(key="system/memory_bytes", summaries=summaries, last_differences=[0.0, -4e7])
    assert "<td>650.0 MB</td><td>610.0 MB (-40.0 MB)</td>" in page_of(one)


def test_long_names_of_parameters_stay_apart_under_their_axes() -> None:
    one = compared()
    one.answer.config_differences.add(field="checkpoint.every_steps", values=["20", "50"])
    ticks = [tick.get_text() for axes in figure_of(one).axes for tick in axes.get_xticklabels()]
    assert "checkpoint.\nevery_steps" in ticks


def test_metrics_whose_points_were_removed_get_no_empty_picture() -> None:
    gone = Compared(answer(), ["small", "large"], {"val/loss": []})
    assert page_of(gone).count("<svg") == len(figure_of(gone).axes) == 2


def test_pictures_are_what_their_name_says_and_the_same_each_time() -> None:
    png, svg = (picture_of(figure_of(compared()), kind) for kind in ("png", "svg"))
    with Image.open(io.BytesIO(png)) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 10
    assert ET.fromstring(svg).tag.endswith("svg")
    assert b"large" in svg
    assert picture_of(figure_of(compared()), "svg") == svg


def test_without_matplotlib_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(PlotsMissingError, match=r"pip install 'finemesh-client\[plots\]'"):
        figure_of(compared())
    assert plots.FORMATS == ("png", "svg")


def test_the_tables_show_differences_intervals_and_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(out, "_width", 200)  # `width` is a property, whose setting would not be undone
    with out.capture() as captured:
        print_comparison(answer(), NAMES)
    for words in ("+0.125", "-0.3 to +0.05", "not yet", "210", "cannot tell yet", "To tell more"):
        assert words in captured.get()


def test_why_items_were_not_compared_is_said_in_the_terminal_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(out, "_width", 200)
    response = answer()
    response.ClearField("items")
    response.items_problem = "accuracy is not told item by item of: a[0]"
    with out.capture() as captured:
        print_comparison(response, NAMES)
    assert "not compared item by item: accuracy is not told item by item of: a[0]" in captured.get()
