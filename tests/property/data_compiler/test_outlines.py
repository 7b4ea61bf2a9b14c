"""Outlines drawn again, by readers that are not ours, are the masks they were traced from."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from finemesh.data.outlines import QUARTERS, join, parts, trace
from finemesh.data.rle import from_array, parse
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

# pycocotools 2.0.11 on numpy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

Pixels = npt.NDArray[np.bool_]


@st.composite
def pictures(draw: st.DrawFn) -> Pixels:
    """Noise, or rectangles with holes and islands in them."""
    height, width = draw(st.integers(1, 14)), draw(st.integers(1, 14))
    if draw(st.booleans()):
        bits = draw(st.binary(min_size=height * width, max_size=height * width))
        return (np.frombuffer(bits, dtype=np.uint8) % 2 == 1).reshape(height, width)
    pixels = np.zeros((height, width), dtype=np.bool_)
    for _ in range(draw(st.integers(0, 5))):
        y, x = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
        y_end, x_end = draw(st.integers(y, height)), draw(st.integers(x, width))
        pixels[y:y_end, x:x_end] = draw(st.booleans())
    return pixels


def by_coco(polygon: npt.NDArray[np.int64], height: int, width: int) -> Pixels:
    """As COCO's tools draw it: the pixels whose centres lie inside."""
    flat: Any = [(polygon / QUARTERS).reshape(-1).tolist()]
    return coco_mask.decode(coco_mask.frPyObjects(flat, height, width))[:, :, 0].astype(bool)


@given(pictures())
def test_all_rings_joined_are_the_mask_again(pixels: Pixels) -> None:
    rings = trace([from_array(pixels)])[0]
    assert bool(rings) == bool(pixels.any())
    if rings:
        assert (by_coco(join(rings), *pixels.shape) == pixels).all()


@given(pictures())
def test_union_of_the_parts_is_the_mask_again(pixels: Pixels) -> None:
    union = np.zeros_like(pixels)
    for part in parts(trace([from_array(pixels)])[0]):
        drawn = by_coco(part, *pixels.shape)
        assert not (union & drawn).any()
        union |= drawn
    assert (union == pixels).all()


@given(st.lists(pictures(), max_size=4))
def test_many_masks_at_once_are_each_as_alone(several: list[Pixels]) -> None:
    masks = [from_array(pixels) for pixels in several]
    together = trace(masks)
    for mask, rings in zip(masks, together, strict=True):
        alone = trace([mask])[0]
        assert [ring.corners.tolist() for ring in rings] == [ring.corners.tolist() for ring in alone]


@given(pictures())
def test_rings_rounded_down_and_filled_with_their_edge_are_the_mask_again(pixels: Pixels) -> None:
    """As OpenCV's fillPoly and Pillow fill: outer rings are drawn, then the inside of holes is taken out."""
    for mask_rings in trace([from_array(pixels)]):
        canvas = Image.new("1", pixels.shape[::-1])
        draw = ImageDraw.Draw(canvas)
        for ring in mask_rings:
            if not ring.hole:
                draw.polygon(
                    [tuple(corner) for corner in (ring.corners // QUARTERS).tolist()], fill=1, outline=1
                )
        drawn = np.asarray(canvas)
        assert (drawn | pixels == drawn).all()
        if not any(ring.hole for ring in mask_rings):
            assert (drawn == pixels).all()


def test_runs_of_no_pixels_are_passed_over() -> None:
    mask = parse({"size": [3, 4], "counts": [1, 1, 0, 1, 2, 0, 1, 2, 0, 2, 0, 2]}, "mask")
    rings = trace([mask])[0]
    pixels = np.asarray(mask.decode())
    assert (by_coco(join(rings), 3, 4) == pixels).all()


def test_a_mask_of_thousands_of_specks_is_joined_in_bounded_time() -> None:
    pixels = np.zeros((200, 200), dtype=np.bool_)
    pixels[::2, ::2] = True
    polygon = join(trace([from_array(pixels)])[0])
    assert (by_coco(polygon, 200, 200) == pixels).all()
