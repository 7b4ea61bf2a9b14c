"""Outlines `[x0, y0, x1, y1, ...]` in pixels: checked, and drawn as masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeGuard

from finemesh.data.faults import RowFault
from finemesh.data.rle import Mask, parse


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether it is a finite number that a coordinate may be."""
    kind = type(value)
    return (kind is float or kind is int) and -1e15 < value < 1e15  # not so NaN, nor the infinite


def rasterise(polygons: Sequence[Any], size: tuple[int, int], field: str) -> Mask:
    """The union of `polygons` in a picture of `size` (width, height), as COCO's own tools rasterise it: what
    lies outside the picture is cut off. Raises RowFault (POLYGON_INVALID) naming the polygon below `field`.
    """
    from pycocotools import mask as coco_mask

    width, height = size
    for index, polygon in enumerate(polygons):
        _check(polygon, size, f"{field}[{index}]")
    # One by one: in a list of several, four numbers would be read as a box.
    parts = [coco_mask.frPyObjects([polygon], height, width)[0] for polygon in polygons]
    return parse(coco_mask.merge(parts), field)


def _check(polygon: Any, size: tuple[int, int], where: str) -> None:
    if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
        raise RowFault("POLYGON_INVALID", "a polygon is a list of at least three x, y pairs", where)
    # Rasterising takes memory for every pixel of the outline, also of what lies outside.
    reach = 4 * max(size) + 64
    if not all(is_number(number) and abs(number) <= reach for number in polygon):
        raise RowFault("POLYGON_INVALID", "a coordinate is no number, or far outside the picture", where)


def outline_box(polygons: Sequence[Sequence[float]]) -> list[float]:
    """`[x, y, width, height]` of the tightest box around all points."""
    xs = [x for polygon in polygons for x in polygon[0::2]]
    ys = [y for polygon in polygons for y in polygon[1::2]]
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
