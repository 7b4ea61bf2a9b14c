"""Outlines `[x0, y0, x1, y1, ...]` in pixels: checked, and drawn as masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeGuard

import numpy as np

from finemesh.data.faults import RowFault
from finemesh.data.rle import Mask, parse
from finemesh.data.rows import masked_object
from finemesh.data.schema import ObjectRow

_MAX_OUTLINE: Final = 2_000_000
"""Pixels. Rasterising takes some 100 bytes for each, also for those outside the picture."""


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether it is a finite number that a coordinate may be."""
    kind = type(value)
    return (kind is float or kind is int) and -1e15 < value < 1e15  # not so NaN, nor the infinite


def rasterise(polygons: Sequence[Any], size: tuple[int, int], field: str) -> Mask:
    """The union of `polygons` in a picture of `size` (width, height), as COCO's own tools rasterise it: what
    lies outside the picture is cut off. Raises RowFault (POLYGON_INVALID) naming the polygon below `field`.
    """
    return parse(_drawn(polygons, size, field), field)


def outlined_object(
    object_id: str, class_name: str | None, polygons: list[list[float]], size: tuple[int, int], field: str
) -> ObjectRow:
    """An object known by its outlines, in a picture of `size` (width, height): its mask is theirs, its box is
    around all their points. Raises RowFault as rasterise.
    """
    rle = _drawn(polygons, size, field)
    item = masked_object(object_id, class_name, parse(rle, field), counts=rle["counts"].decode())
    item["bbox"], item["polygons"] = outline_box(polygons), polygons
    return item


def _drawn(polygons: Sequence[Any], size: tuple[int, int], field: str) -> Any:
    """COCO's compressed RLE of the union."""
    from pycocotools import mask as coco_mask

    width, height = size
    for index, polygon in enumerate(polygons):
        _check(polygon, size, f"{field}[{index}]")
    # One by one: in a list of several, four numbers would be read as a box.
    parts = [coco_mask.frPyObjects([polygon], height, width)[0] for polygon in polygons]
    return parts[0] if len(parts) == 1 else coco_mask.merge(parts)


def _check(polygon: Any, size: tuple[int, int], where: str) -> None:
    if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
        raise RowFault("POLYGON_INVALID", "a polygon is a list of at least three x, y pairs", where)
    reach = 4 * max(size) + 64
    if not ({*map(type, polygon)} <= {int, float} and all(-reach <= number <= reach for number in polygon)):
        raise RowFault("POLYGON_INVALID", "a coordinate is no number, or far outside the picture", where)
    if len(polygon) * reach > _MAX_OUTLINE and _length(polygon) > _MAX_OUTLINE:
        raise RowFault("POLYGON_INVALID", f"its outline is longer than {_MAX_OUTLINE} pixels", where)


def _length(polygon: list[float]) -> float:
    """Of the closed outline, in steps of a pixel to any side."""
    points = np.array(polygon, np.float64).reshape(-1, 2)
    return float(np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum())


def outline_box(polygons: Sequence[Sequence[float]]) -> list[float]:
    """`[x, y, width, height]` of the tightest box around all points."""
    xs = [x for polygon in polygons for x in polygon[0::2]]
    ys = [y for polygon in polygons for y in polygon[1::2]]
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
