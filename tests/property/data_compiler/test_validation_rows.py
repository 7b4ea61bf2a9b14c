"""Hostile rows make findings, never an exception; and columns find what a plain loop over objects finds."""

from __future__ import annotations

import io
import math
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from finemesh.core.spec.data import DatasetFormat, DatasetOrigin, ValidateOptions, ValidationLevel
from finemesh.data import ValidationReport, validate_dataset
from finemesh.data.images import STILL, check_picture
from finemesh.data.rows import make_message, make_object, make_row
from finemesh.data.schema import Row
from finemesh.data.writers import FormContext
from finemesh.data.writing import DatasetWriter
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco

WIDTH, HEIGHT = 8, 6
SIDES = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.integers(-3, 12).map(float),
    st.sampled_from([1e308, -1e308]),
)


def _rle(at: int) -> str:
    """A mask whose pixels from `at` on are set."""
    pixels = [[int(column * HEIGHT + row >= at) for column in range(WIDTH)] for row in range(HEIGHT)]
    encoded: Any = coco.encode(np.asfortranarray(np.array(pixels, dtype=np.uint8)))
    return encoded["counts"].decode()


COUNTS = st.one_of(
    st.none(),
    st.text(st.characters(max_codepoint=0x7F), max_size=6),
    st.integers(0, WIDTH * HEIGHT).map(_rle),
)
OBJECTS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from([None, "cat", "dog"]),
        st.lists(SIDES, min_size=4, max_size=4),
        COUNTS,
        st.booleans(),
    ),
    max_size=5,
)
CHECKED = (
    "BOX_INVALID",
    "BOX_OUTSIDE",
    "BOX_EMPTY",
    "OBJECT_INVISIBLE",
    "DUPLICATE_OBJECT_ID",
    "DUPLICATE_OBJECT",
)


@pytest.fixture(scope="module")
def picture() -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((WIDTH, HEIGHT)).save(buffer, "PNG")
    return buffer.getvalue()


def _row(row_id: str, data: bytes, objects: list[tuple[Any, ...]]) -> Row:
    row = make_row(row_id, source={"file": "a", "key": row_id}, pictures=[check_picture(data, STILL, 1000)])
    row["objects"] = [
        make_object(key, name, bbox=box, area=1.0, rle_counts=counts, visible=visible)
        for key, name, box, counts, visible in objects
    ]
    return row


def _validate(rows: list[Row]) -> ValidationReport:
    options = ValidateOptions(level=ValidationLevel.STRICT, max_examples=1000)
    with tempfile.TemporaryDirectory() as folder:
        with DatasetWriter(DatasetFormat.CANONICAL, FormContext(Path(folder) / "out")) as writer:
            for index, row in enumerate(rows):
                writer.take()
                writer.keep(str(index), [row])
            writer.commit(DatasetOrigin.IMPORT, options={})
        report = validate_dataset(Path(folder) / "out", options, lambda fraction, message: None)
    report.to_html()
    report.to_markdown()
    return report


@settings(max_examples=25, deadline=None)
@given(st.lists(OBJECTS, min_size=1, max_size=3))
def test_columns_find_what_a_loop_finds(picture: bytes, rows: list[list[tuple[Any, ...]]]) -> None:
    report = _validate([_row(f"row {index}", picture, objects) for index, objects in enumerate(rows)])
    expected: Counter[str] = Counter()
    for objects in rows:
        expected.update(_by_loop(objects))
    assert {kind: report.counts.get(kind, 0) for kind in CHECKED} == {
        kind: expected[kind] for kind in CHECKED
    }


def _by_loop(objects: list[tuple[Any, ...]]) -> list[str]:
    found: list[str] = []
    ids: list[str] = []
    seen: list[tuple[Any, Any, Any]] = []
    for key, name, box, counts, visible in objects:
        x, y, width, height = box
        if key in ids:
            found.append("DUPLICATE_OBJECT_ID")
        ids.append(key)
        if not visible:
            found.append("OBJECT_INVISIBLE")
        if not all(map(math.isfinite, box)) or width < 0 or height < 0:
            found.append("BOX_INVALID")
            continue
        if visible and (width == 0 or height == 0):
            found.append("BOX_EMPTY")
        if max(-x, -y, x + width - WIDTH, y + height - HEIGHT) > 1:
            found.append("BOX_OUTSIDE")
        if visible and (name, box, counts) in seen:
            found.append("DUPLICATE_OBJECT")
        if visible:
            seen.append((name, box, counts))
    return found


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_hostile_rows_are_findings(picture: bytes, data: st.DataObject) -> None:
    row = _row(data.draw(st.text(max_size=8)), picture, data.draw(OBJECTS))
    cut = data.draw(st.integers(0, len(picture)))
    spoilt = bytearray(picture[:cut] if data.draw(st.booleans()) else picture)
    for at in data.draw(st.lists(st.integers(0, len(picture) - 1), max_size=4)):
        if at < len(spoilt):
            spoilt[at] ^= data.draw(st.integers(1, 255))
    sides = st.integers(-(2**31), 2**31 - 1)
    image: Any = {"data": bytes(spoilt), "width": data.draw(sides), "height": data.draw(sides)}
    image |= {"sha256": data.draw(st.text(max_size=70)), "format": data.draw(st.text(max_size=4))}
    row["images"][0].update(image)
    row["captions"] = data.draw(st.lists(st.text(max_size=10), max_size=2))
    if data.draw(st.booleans()):
        row["messages"] = [make_message("user", [{"type": "text", "text": data.draw(st.text(max_size=10))}])]
    if data.draw(st.booleans()):
        row["images"] = []
    _validate([row, _row("sound", picture, [])])
