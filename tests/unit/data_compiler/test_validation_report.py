"""A report says the same as JSON, Markdown and a page; the page is safe, small, and shows what was found."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, cast
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from finemesh.core.spec.data import ClassCount, DatasetFormat, DatasetOrigin, ValidateOptions, ValidationLevel
from finemesh.data import Progress, ValidationReport, iter_rows, validate_dataset
from finemesh.data.schema import Row
from finemesh.data.validation import charts
from finemesh.data.validation.measures import Histogram, whole_numbers
from finemesh.data.writers import FormContext
from finemesh.data.writing import DatasetWriter
from markdown_it import MarkdownIt
from PIL import Image

STRICT = ValidateOptions(level=ValidationLevel.STRICT)
HOSTILE = (
    "<script>alert(1)</script>|x",
    '"><img src=x onerror=alert(1)>',
    "</style></svg><b>",
    "# [a](javascript:1) `*",
    "\u202eevil\n\n| new | row |",
)


class Page(HTMLParser):
    """The elements of a page, their attributes and all text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str | None]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def _write(rows: Sequence[Row], out: Path) -> Path:
    with DatasetWriter(DatasetFormat.CANONICAL, FormContext(out)) as writer:
        for index, row in enumerate(rows):
            writer.take()
            writer.keep(str(index), [row])
        writer.commit(DatasetOrigin.IMPORT, options={})
    return out


@pytest.fixture
def spoilt(divided: Path, tmp_path: Path, silent: Progress) -> ValidationReport:
    """The report of a dataset with hostile words, a bad box, and a smaller copy of a picture."""
    rows = list(iter_rows(divided))
    for row, name in zip(rows, HOSTILE, strict=False):
        for item in row["objects"]:
            item["class_name"] = name
        row["row_id"] = name
    rows[7]["objects"][0]["bbox"] = [500.0, 0.0, 90.0, 90.0]
    image = Image.open(io.BytesIO(rows[9]["images"][0]["data"]))
    buffer = io.BytesIO()
    image.resize((image.width // 2, image.height // 2)).save(buffer, "PNG")
    size: Any = {"width": image.width // 2, "height": image.height // 2, "format": "PNG"}
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    copy: Any = {**rows[9]["images"][0], **size, "data": buffer.getvalue(), "sha256": digest}
    twin: Any = {"row_id": "twin", "video_id": None, "objects": [], "images": [copy], "split": "val"}
    rows.append(cast("Row", {**rows[9], **twin}))
    return validate_dataset(_write(rows, tmp_path / "spoilt"), STRICT, silent)


def test_json_has_all_of_it(spoilt: ValidationReport) -> None:
    assert ValidationReport.from_json(json.loads(json.dumps(spoilt.to_json()))) == spoilt


def test_page_needs_nothing_and_runs_nothing(spoilt: ValidationReport) -> None:
    html = spoilt.to_html()
    page = Page(html)
    assert not page.tags.keys() & {"script", "link", "iframe", "object", "base"}
    assert not [name for _, name, _ in page.attributes if name.startswith("on") or name == "href"]
    assert "://" not in re.sub('base64,[^"]*', "", html)
    sources = [value or "" for _, name, value in page.attributes if name == "src"]
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert "default-src 'none'" in html
    for name in HOSTILE:
        assert name in page.text


def test_page_is_accessible_in_its_structure(spoilt: ValidationReport) -> None:
    page = Page(spoilt.to_html())
    assert page.tags["h1"] == page.tags["main"] == 1
    named = Counter(tag for tag, name, value in page.attributes if name in ("alt", "aria-label") and value)
    assert (named["img"], named["svg"]) == (page.tags["img"], page.tags["svg"])
    assert ("html", "lang", "en") in page.attributes


def test_offending_rows_and_look_alikes_are_shown(spoilt: ValidationReport) -> None:
    shown = {spoilt.findings[exhibit.finding].id: exhibit for exhibit in spoilt.exhibits}
    assert len(shown["NEAR_DUPLICATE_IMAGE"].pictures) == 2
    assert spoilt.findings[shown["NEAR_DUPLICATE_IMAGE"].finding].row_id == "twin"
    [url] = shown["BOX_MASK_DISAGREE"].pictures
    image = Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/jpeg;base64,"))))
    assert max(image.size) <= 320
    pixels = np.asarray(image.convert("RGB")).astype(int)
    red = (pixels[..., 0] > 200) & (pixels[..., 1] < 130) & (pixels[..., 2] < 160)
    assert red.any(), "the mask of the offending object is tinted"


def test_markdown_is_tables_that_no_word_breaks(spoilt: ValidationReport) -> None:
    text = spoilt.to_markdown()
    html = MarkdownIt("commonmark").enable("table").render(text)
    page = Page(html)
    assert page.tags["h1"] == 1
    assert not page.tags.keys() & {"script", "img", "a"}
    assert page.tags["table"] == text.count("\n\n| ")
    assert "alert(1)" in page.text
    assert "What to do first" in page.text


def test_page_stays_small_however_much_is_found(spoilt: ValidationReport) -> None:
    classes = tuple(ClassCount(f"class {i} " + "x" * 500, 2000 - i, 5, {"train": 5}) for i in range(2000))
    report = dataclasses.replace(spoilt, classes=classes, findings=spoilt.findings * 500)
    assert len(report.to_html()) < 5_000_000


@pytest.mark.parametrize("most", [0, 1, 7, 999, 123_456])
def test_plots_are_well_formed_and_within_their_frame(most: int) -> None:
    hostile = ClassCount(HOSTILE[0], most, most, {"train": most // 2, "test": most - most // 2})
    drawn = [
        charts.histogram(whole_numbers(np.array([0, most, 3])), "a & b", "<unit>", cut=1),
        charts.histogram(Histogram((0.0, 0.5, 1.0), (most, 0)), "share", "%", percent=True),
        charts.class_bars([hostile] * 40, "classes"),
        charts.sizes([(640, 480, most), (1, 4000, 1)], "sizes"),
        charts.sizes([], "none"),
    ]
    for svg in drawn:
        root = ET.fromstring(svg)
        width, height = map(float, root.attrib["viewBox"].split()[2:])
        for bar in root.iter("rect"):
            x, y, w, h = (float(bar.attrib[name]) for name in ("x", "y", "width", "height"))
            assert -1 <= x <= x + w <= width + 2
            assert -1 <= y <= y + h <= height + 1


def test_bins_hold_all_numbers() -> None:
    counts = np.arange(1000)
    found = whole_numbers(counts)
    assert len(found.counts) <= 40
    assert found.total == counts.sum()
    width = found.edges[1]
    assert found.counts[3] == counts[int(3 * width) : int(4 * width)].sum()
