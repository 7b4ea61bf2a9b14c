"""Boxes in the words of the model families: the published examples, and what is written is read back."""

from __future__ import annotations

import pytest
from finemesh.core.spec.boxes import BoxConvention, read_box, write_box
from hypothesis import given
from hypothesis import strategies as st

SIDE = st.integers(28, 4000)
SHARE = st.floats(0, 1)


@pytest.mark.parametrize(
    ("convention", "text"),
    [
        (BoxConvention.UNIT, "[0.25, 0.20, 0.75, 0.60]"),
        (BoxConvention.THOUSANDTHS, "<|box_start|>(250,200),(750,600)<|box_end|>"),
        (BoxConvention.PIXELS, "[160, 96, 480, 288]"),
        (BoxConvention.LOCATIONS, "<loc0204><loc0256><loc0614><loc0768>"),
    ],
)
def test_a_box_in_the_words_of_each_family(convention: BoxConvention, text: str) -> None:
    assert write_box([160, 96, 320, 192], 640, 480, convention) == text


@given(SIDE, SIDE, SHARE, SHARE, SHARE, SHARE, st.sampled_from(BoxConvention))
def test_what_is_written_is_read_back(
    width: int, height: int, x: float, y: float, across: float, down: float, convention: BoxConvention
) -> None:
    bbox = [x * width, y * height, across * (1 - x) * width, down * (1 - y) * height]
    text = f"It is at {write_box(bbox, width, height, convention)}."
    read = read_box(text, width, height, convention)
    assert read is not None
    bins = {BoxConvention.UNIT: 100, BoxConvention.THOUSANDTHS: 1000, BoxConvention.LOCATIONS: 1024}
    expected = (bbox[0], bbox[1], bbox[0] + bbox[2], bbox[1] + bbox[3])
    for got, wanted, side in zip(read, expected, (width, height, width, height), strict=True):
        assert abs(got - wanted) <= 1.001 * side / bins.get(convention, side) + 1e-6


def test_a_box_is_clipped_to_its_picture() -> None:
    assert write_box([-10, 50, 900, 100], 100, 100, BoxConvention.PIXELS) == "[0, 50, 100, 100]"


@pytest.mark.parametrize("convention", BoxConvention)
def test_text_without_a_box_has_none(convention: BoxConvention) -> None:
    assert read_box("there is none [1, 2]", 10, 10, convention) is None
