"""Run lengths against pycocotools, the reader that the field trusts, and against garbage."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from finemesh.data.faults import RowFault
from finemesh.data.rle import compress, decompress, from_array, from_window, parse
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

# pycocotools 2.0.11 itself sets off numpy 2.4
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@st.composite
def masks(draw: st.DrawFn) -> npt.NDArray[np.bool_]:
    """bool[height, width]: noise, or a few rectangles, so that runs are short or long."""
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    if draw(st.booleans()):
        return random.random((height, width)) < draw(st.floats(0, 1))
    pixels = np.zeros((height, width), dtype=np.bool_)
    for _ in range(draw(st.integers(0, 3))):
        y, x = random.integers(0, height), random.integers(0, width)
        pixels[y : y + random.integers(1, height + 1), x : x + random.integers(1, width + 1)] ^= True
    return pixels


@given(masks(), st.tuples(*[st.integers(0, 5)] * 4))
def test_a_window_is_the_picture_around_it(
    pixels: npt.NDArray[np.bool_], around: tuple[int, int, int, int]
) -> None:
    left, top, right, bottom = around
    whole = np.pad(pixels, ((top, bottom), (left, right)))
    ours = from_window(pixels, left, top, (whole.shape[1], whole.shape[0]))
    theirs: Any = coco_mask.encode(np.asfortranarray(whole.astype(np.uint8)))
    assert ours.counts() == theirs["counts"].decode()


@given(masks())
def test_writing_equals_pycocotools(pixels: npt.NDArray[np.bool_]) -> None:
    ours = from_array(pixels)
    theirs: Any = coco_mask.encode(np.asfortranarray(pixels.astype(np.uint8)))
    assert ours.counts() == theirs["counts"].decode()
    assert ours.area == int(coco_mask.area(theirs))
    assert list(ours.box()) == coco_mask.toBbox(theirs).tolist()


@given(masks())
def test_reading_equals_pycocotools(pixels: npt.NDArray[np.bool_]) -> None:
    height, width = pixels.shape
    theirs: Any = coco_mask.encode(np.asfortranarray(pixels.astype(np.uint8)))
    read = parse({"size": [height, width], "counts": theirs["counts"]}, "mask")
    assert np.array_equal(read.decode(), pixels)
    listed = parse({"size": [height, width], "counts": [int(run) for run in read.runs]}, "mask")
    assert np.array_equal(listed.decode(), pixels)


@given(st.lists(st.integers(0, 2**33), max_size=40))
def test_compression_loses_nothing(runs: list[int]) -> None:
    values = np.asarray(runs, dtype=np.int64)
    assert np.array_equal(decompress(compress(values), "counts"), values)


@given(st.one_of(st.text(max_size=30), st.binary(max_size=30)), st.integers(1, 20), st.integers(1, 20))
def test_garbage_is_a_fault_or_a_mask_of_its_size(counts: str | bytes, height: int, width: int) -> None:
    try:
        mask = parse({"size": [height, width], "counts": counts}, "mask")
    except RowFault as fault:
        assert (fault.reason, fault.field[:4]) == ("RLE_INVALID", "mask")
    else:
        assert mask.decode().shape == (height, width)
        assert mask.decode().sum() == mask.area


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["size", "counts"]), inner),
    max_leaves=8,
)


@given(json_values)
def test_any_json_value_is_a_fault_or_a_mask(value: object) -> None:
    try:
        parse(value, "mask")
    except RowFault as fault:
        assert fault.reason == "RLE_INVALID"
