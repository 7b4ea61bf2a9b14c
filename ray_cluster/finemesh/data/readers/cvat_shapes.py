"""CVAT's shapes as objects. Source: https://docs.cvat.ai/docs/other/xml_format, version 1.1.

Coordinates are pixels from the top left. A mask is a box and, row by row within it, runs of 0 and 1 in turn,
starting with 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from xml.etree.ElementTree import Element

import numpy as np

from finemesh.data.ellipses import ellipse_box, ellipse_mask, turned_box
from finemesh.data.faults import RowFault
from finemesh.data.polygons import outline_box, outlined_object
from finemesh.data.readers.xmltree import number_of
from finemesh.data.rle import Mask, from_window
from finemesh.data.rows import class_name_of, json_text, make_object, masked_object
from finemesh.data.schema import ObjectRow

_FLAGS: Final = ("occluded", "outside", "keyframe")
_PLACE: Final = frozenset(("label", "frame", "points", "xtl", "ytl", "xbr", "ybr", "rle", "left", "top"))
_MASK_SIZE: Final = frozenset(("width", "height"))


@dataclass(frozen=True, slots=True)
class Shape:
    """An element that says where something is.

    Attributes:
        kind: `box`, `polygon`, `polyline`, `points`, `ellipse`, `cuboid`, `mask` or `skeleton`.
        values: its XML attributes.
        attributes: what its label defines, by name.
        parts: of a skeleton.
        where: its place, for faults.
    """

    kind: str
    values: Mapping[str, str]
    attributes: Mapping[str, str]
    parts: tuple[Shape, ...]
    where: str


def shape_from(element: Element, where: str) -> Shape:
    """What an element says, so that the element can be forgotten."""
    attributes = {each.get("name", ""): (each.text or "").strip() for each in element.findall("attribute")}
    parts = [child for child in element if child.tag != "attribute"]
    return Shape(
        element.tag,
        dict(element.attrib),
        attributes,
        tuple(shape_from(part, f"{where}.{part.tag}[{index}]") for index, part in enumerate(parts)),
        where,
    )


def make_shape_object(shape: Shape, object_id: str, label: str | None, size: tuple[int, int]) -> ObjectRow:
    """The object of a shape in a picture of `size` (width, height in pixels). Raises RowFault (UNKNOWN_SHAPE,
    COORDINATE_INVALID, BBOX_INVALID, POLYGON_INVALID, RLE_INVALID, EMPTY_CLASS_NAME).
    """
    make = _MAKERS.get(shape.kind)
    if make is None:
        raise RowFault("UNKNOWN_SHAPE", f"<{shape.kind[:40]}> is no shape that is known", shape.where)
    item = make(shape, size)
    item["object_id"] = object_id
    item["class_name"] = class_name_of(label, f"{shape.where}.label")
    if shape.values.get("outside") == "1":
        item["visible"] = False
    item["attributes"] = json_text(_attributes(shape))
    return item


def _attributes(shape: Shape) -> dict[str, Any]:
    """What the box, the mask and the key points do not say."""
    used = _PLACE | (_MASK_SIZE if shape.kind == "mask" else frozenset())
    said: dict[str, Any] = {}
    for key, value in shape.values.items():
        if key not in used:
            said[key] = value == "1" if key in _FLAGS and value in {"0", "1"} else value
    if shape.kind == "box" and float(shape.values.get("rotation", "0") or 0):
        said |= {key: shape.values[key] for key in ("xtl", "ytl", "xbr", "ybr")}
    if shape.kind not in {"box", "polygon", "mask"}:
        said["shape"] = shape.kind
    if shape.kind == "polyline":
        said["points"] = shape.values.get("points", "")
    if shape.parts:
        said["parts"] = [part.values.get("label", "") for part in shape.parts]
    if shape.attributes:
        said["attributes"] = dict(shape.attributes)
    return said


def _box(shape: Shape, size: tuple[int, int]) -> ObjectRow:
    del size
    left, top, right, bottom = (_number(shape, key) for key in ("xtl", "ytl", "xbr", "ybr"))
    if right < left or bottom < top:
        message = f"it ends at {right:g}, {bottom:g}, before it begins at {left:g}, {top:g}"
        raise RowFault("BBOX_INVALID", message, shape.where)
    degrees = _rotation(shape)
    box = [left, top, right - left, bottom - top]
    return make_object("", None, bbox=_turned_about_centre(box, degrees) if degrees else box)


def _turned_about_centre(box: list[float], degrees: float) -> list[float]:
    corners = turned_box(0, 0, box[2], box[3], degrees)
    # The corner opposite to the first lies twice as far away as the centre.
    x = box[0] + box[2] / 2 - corners[4] / 2
    y = box[1] + box[3] / 2 - corners[5] / 2
    around = outline_box([corners])
    return [around[0] + x, around[1] + y, around[2], around[3]]


def _polygon(shape: Shape, size: tuple[int, int]) -> ObjectRow:
    return outlined_object("", None, [_points(shape)], size, shape.where)


def _line(shape: Shape, size: tuple[int, int]) -> ObjectRow:
    del size
    return make_object("", None, bbox=outline_box([_points(shape)]), area=0.0, visible=True)


def _keypoints(shape: Shape, size: tuple[int, int]) -> ObjectRow:
    del size
    points = _points(shape)
    keypoints = [side for x, y in zip(points[::2], points[1::2], strict=True) for side in (x, y, 2.0)]
    return make_object("", None, bbox=outline_box([points]), keypoints=keypoints, visible=True)


def _skeleton(shape: Shape, size: tuple[int, int]) -> ObjectRow:
    del size
    keypoints: list[float] = []
    for part in shape.parts:
        outside, occluded = part.values.get("outside") == "1", part.values.get("occluded") == "1"
        keypoints += [*_points(part)[:2], 0.0 if outside else 1.0 if occluded else 2.0]
    there = [keypoints[at : at + 2] for at in range(0, len(keypoints), 3) if keypoints[at + 2] > 0]
    box = outline_box(there) if there else [0.0] * 4
    return make_object("", None, bbox=box, keypoints=keypoints, visible=bool(there))


def _ellipse(shape: Shape, size: tuple[int, int]) -> ObjectRow:
    x, y, rx, ry = (_number(shape, key) for key in ("cx", "cy", "rx", "ry"))
    if rx < 0 or ry < 0:
        raise RowFault("BBOX_INVALID", f"{rx:g} and {ry:g} are no radii of an ellipse", shape.where)
    degrees = _rotation(shape)
    item = masked_object("", None, ellipse_mask(x, y, rx, ry, degrees, size))
    item["bbox"] = ellipse_box(x, y, rx, ry, degrees)
    return item


def _cuboid(shape: Shape, size: tuple[int, int]) -> ObjectRow:
    """The box around its eight corners."""
    del size
    corners = [f"{side}{face}" for face in "12" for side in ("tl", "bl", "tr", "br")]
    points = [_number(shape, f"{axis}{corner}") for corner in corners for axis in "xy"]
    return make_object("", None, bbox=outline_box([points]))


def _mask(shape: Shape, size: tuple[int, int]) -> ObjectRow:
    return masked_object("", None, _decoded(shape, size))


def _decoded(shape: Shape, size: tuple[int, int]) -> Mask:
    sides = [_number(shape, key) for key in ("left", "top", "width", "height")]
    left, top, width, height = (int(side) for side in sides)
    inside = 0 <= left < left + width <= size[0] and 0 <= top < top + height <= size[1]
    if not inside or any(side % 1 for side in sides):
        message = f"{width} x {height} at {left}, {top} is no box within the picture, {size[0]} x {size[1]}"
        raise RowFault("RLE_INVALID", message, shape.where)
    words = shape.values.get("rle", "").split(",")
    if not all(word.strip().isascii() and word.strip().isdigit() and len(word) < 20 for word in words):
        raise RowFault("RLE_INVALID", "rle is no list of whole numbers", f"{shape.where}.rle")
    runs = [int(word) for word in words]
    if sum(runs) != width * height:
        message = f"the runs sum to {sum(runs)}, but the mask's box is {width} x {height} pixels"
        raise RowFault("RLE_INVALID", message, f"{shape.where}.rle")
    values = np.arange(len(runs)) % 2 == 1
    return from_window(np.repeat(values, runs).reshape(height, width), left, top, size)


def _number(shape: Shape, key: str) -> float:
    return number_of(shape.values.get(key), f"{shape.where}.{key}")


def _rotation(shape: Shape) -> float:
    """In degrees, clockwise."""
    return _number(shape, "rotation") if shape.values.get("rotation") else 0.0


def _points(shape: Shape) -> list[float]:
    """`[x0, y0, x1, y1, ...]` of `x0,y0;x1,y1;...`."""
    field = f"{shape.where}.points"
    pairs = [pair.split(",") for pair in shape.values.get("points", "").split(";")]
    if not all(len(pair) == 2 for pair in pairs):
        raise RowFault("COORDINATE_INVALID", "points is not x,y;x,y;...", field)
    return [number_of(side, field) for pair in pairs for side in pair]


_MAKERS: Final = {
    "box": _box,
    "polygon": _polygon,
    "polyline": _line,
    "points": _keypoints,
    "skeleton": _skeleton,
    "ellipse": _ellipse,
    "cuboid": _cuboid,
    "mask": _mask,
}
