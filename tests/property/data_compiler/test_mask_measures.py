"""Many masks measured at once are what pycocotools and PIL's way of looking at each say they are."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from finemesh.data.faults import RowFault
from finemesh.data.rle import parse
from finemesh.data.validation.masks import measure
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pycocotools import mask as coco

RASTERS = arrays.arrays(np.bool_, arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24))


def _string(raster: npt.NDArray[np.bool_]) -> str:
    encoded = cast("Any", coco.encode(np.asfortranarray(raster.astype(np.uint8))))
    return encoded["counts"].decode()


def _box(raster: npt.NDArray[np.bool_]) -> list[int]:
    ys, xs = np.nonzero(raster)
    if not len(xs):
        return [0, 0, 0, 0]
    return [int(xs.min()), int(ys.min()), int(np.ptp(xs)) + 1, int(np.ptp(ys)) + 1]


@settings(deadline=None)
@given(st.lists(RASTERS, max_size=12))
def test_areas_and_boxes(rasters: list[npt.NDArray[np.bool_]]) -> None:
    counts = pa.array(["", *map(_string, rasters)], pa.string())[1:]  # with an offset
    found = measure(counts, np.array([raster.shape[0] for raster in rasters], np.int64))
    assert not found.broken.any()
    assert found.pixels.tolist() == [raster.size for raster in rasters]
    assert found.area.tolist() == [int(raster.sum()) for raster in rasters]
    assert found.boxes.tolist() == [_box(raster) for raster in rasters]


@settings(deadline=None)
@given(st.lists(st.text(st.characters(max_codepoint=0x17F), max_size=12), max_size=8), RASTERS)
def test_hostile_strings_are_told_from_sound_ones(strings: list[str], raster: npt.NDArray[np.bool_]) -> None:
    mixed = [text for each in strings for text in (each, _string(raster))]
    height, width = raster.shape
    found = measure(pa.array(mixed, pa.string()), np.full(len(mixed), height, np.int64))
    for index, text in enumerate(mixed):
        try:
            mask = parse({"size": [height, width], "counts": text}, "mask")
        except RowFault:
            assert found.broken[index] or found.pixels[index] != height * width
            continue
        assert not found.broken[index]
        assert (found.pixels[index], found.area[index]) == (height * width, mask.area)
        assert found.boxes[index].tolist() == [int(side) for side in mask.box()]


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**32))
def test_more_masks_than_a_block_holds(seed: int) -> None:
    draw = np.random.default_rng(seed)
    rasters = [draw.random((100, 90)) < 0.4 for _ in range(100)]
    found = measure(pa.array([_string(raster) for raster in rasters]), np.full(100, 100, np.int64))
    assert found.area.tolist() == [int(raster.sum()) for raster in rasters]
    assert found.boxes.tolist() == [_box(raster) for raster in rasters]
