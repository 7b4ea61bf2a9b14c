"""Label Studio's regions as objects. Source: https://labelstud.io/guide/export and the tags' result examples.

Places and sizes are percents of the picture. A region is an item with a shape; further items of the same id
(the labels of a `<Labels>` tag, choices per region, a transcription) say more of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from finemesh.data.ellipses import ellipse_box, ellipse_mask, turned_box
from finemesh.data.faults import RowFault
from finemesh.data.polygons import is_number, outline_box, outlined_object
from finemesh.data.readers.label_studio_brush import brush_mask
from finemesh.data.rows import class_name_of, json_text, make_object, masked_object
from finemesh.data.schema import ObjectRow

_SHAPES: Final = ("rectangle", "polygon", "ellipse", "keypoint", "brush")
# What a value says of its place, which the object holds otherwise.
_PLACE: Final = frozenset(
    ("x", "y", "width", "height", "radiusX", "radiusY", "points", "rle", "format", "closed", "rotation")
)
_USED: Final = frozenset(("id", "from_name", "to_name", "type", "value", "original_width", "original_height"))


@dataclass(slots=True)
class Region:
    """An item with a shape, and the items that say more of it.

    Attributes:
        where: the item's place in the file, e.g. `annotations[0].result[2]`.
        shape: `rectangle`, `polygon`, `ellipse`, `keypoint` or `brush`.
    """

    where: str
    shape: str
    item: Mapping[str, Any]
    more: list[Mapping[str, Any]] = field(default_factory=list[Mapping[str, Any]])


def shape_of(item: Mapping[str, Any]) -> str | None:
    """The shape of an item of this type, e.g. `rectangle` of `rectanglelabels`; None if it has none."""
    kind = str(item.get("type", "")).removesuffix("labels")
    return kind if kind in _SHAPES else None


def value_of(item: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    value = item.get("value")
    if not isinstance(value, dict):
        raise RowFault("MALFORMED_REGION", "value is missing or not an object", f"{where}.value")
    return value


def make_region_object(region: Region, index: int, size: tuple[int, int], score: float | None) -> ObjectRow:
    """The object of a region in a picture of `size` (width, height in pixels). Raises RowFault
    (MALFORMED_REGION, COORDINATE_INVALID, BBOX_INVALID, POLYGON_INVALID, RLE_INVALID, EMPTY_CLASS_NAME).
    """
    value = value_of(region.item, region.where)
    said = region.item.get("id")
    object_id = str(said) if isinstance(said, int | str) and said != "" else f"result[{index}]"
    item = _shaped(region.shape, value, object_id, size, f"{region.where}.value")
    labels = _labels(region)
    item["class_name"] = class_name_of(labels[0], f"{region.where}.value.labels") if labels else None
    item["score"] = score
    attributes = _attributes(region, value, labels)
    if score is not None:
        attributes.pop("score", None)
    item["attributes"] = json_text(attributes)
    return item


def _labels(region: Region) -> list[Any]:
    """Of the shape's own tag, or of a `<Labels>` tag beside it."""
    for item in (region.item, *region.more):
        kind = str(item.get("type", ""))
        value = item.get("value")
        labels = value.get(kind) if isinstance(value, dict) and kind.endswith("labels") else None
        if isinstance(labels, list) and labels:
            return labels
    return []


def _attributes(region: Region, value: Mapping[str, Any], labels: list[Any]) -> dict[str, Any]:
    kind = str(region.item.get("type", ""))
    attributes = {key: said for key, said in region.item.items() if key not in _USED and said}
    attributes |= {key: said for key, said in value.items() if key not in _PLACE and key != kind}
    if region.shape == "ellipse" or value.get("rotation"):
        attributes["shape"] = {
            "type": region.shape,
            **{
                key: value[key]
                for key in ("x", "y", "width", "height", "radiusX", "radiusY", "rotation")
                if key in value
            },
        }
    if len(labels) > 1:
        attributes["labels"] = labels
    other: dict[str, list[Any]] = {}
    for item in region.more:
        said = item.get("value")
        kind = str(item.get("type", ""))
        if kind != "labels" and isinstance(said, dict):
            add_to(other, str(item.get("from_name", kind)), said.get(kind, said))
    return {**attributes, **({"result": other} if other else {})}


def add_to(table: dict[str, list[Any]], name: str, said: Any) -> None:
    """Add what an item says, one value or several, to what others of its name say."""
    table.setdefault(name, []).extend(said if isinstance(said, list) else [said])


def _shaped(
    shape: str, value: Mapping[str, Any], object_id: str, size: tuple[int, int], where: str
) -> ObjectRow:
    if shape == "rectangle":
        return make_object(object_id, None, bbox=_rectangle(value, size, where))
    if shape == "polygon":
        polygon = _points(value.get("points"), size, f"{where}.points")
        return outlined_object(object_id, None, [polygon], size, f"{where}.points")
    if shape == "ellipse":
        return _ellipse(value, object_id, size, where)
    if shape == "brush":
        return masked_object(object_id, None, brush_mask(value.get("rle"), size, f"{where}.rle"))
    x, y = _pixels(value, "x", size, where), _pixels(value, "y", size, where)
    return make_object(object_id, None, bbox=[x, y, 0.0, 0.0], keypoints=[x, y, 2.0], visible=True)


def _rectangle(value: Mapping[str, Any], size: tuple[int, int], where: str) -> list[float]:
    x, y, width, height = (_pixels(value, key, size, where) for key in ("x", "y", "width", "height"))
    if width < 0 or height < 0:
        raise RowFault("BBOX_INVALID", f"{width:g} x {height:g} is no size of a box", where)
    degrees = _number(value.get("rotation", 0), f"{where}.rotation")
    return outline_box([turned_box(x, y, width, height, degrees)]) if degrees else [x, y, width, height]


def _ellipse(value: Mapping[str, Any], object_id: str, size: tuple[int, int], where: str) -> ObjectRow:
    x, y, rx, ry = (_pixels(value, key, size, where) for key in ("x", "y", "radiusX", "radiusY"))
    if rx < 0 or ry < 0:
        raise RowFault("BBOX_INVALID", f"{rx:g} and {ry:g} are no radii of an ellipse", where)
    degrees = _number(value.get("rotation", 0), f"{where}.rotation")
    item = masked_object(object_id, None, ellipse_mask(x, y, rx, ry, degrees, size))
    item["bbox"] = ellipse_box(x, y, rx, ry, degrees)
    return item


def _points(points: Any, size: tuple[int, int], where: str) -> list[float]:
    if not isinstance(points, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in points):
        raise RowFault("POLYGON_INVALID", "points is not a list of [x, y] pairs", where)
    return [_number(pair[axis], where) / 100 * size[axis] for pair in points for axis in (0, 1)]


def _pixels(value: Mapping[str, Any], key: str, size: tuple[int, int], where: str) -> float:
    """The number under `key`, a percent of the picture's width or height, in pixels."""
    across = key in {"x", "width", "radiusX"}
    return _number(value.get(key), f"{where}.{key}") / 100 * size[0 if across else 1]


def _number(value: Any, where: str) -> float:
    if not is_number(value):
        raise RowFault("COORDINATE_INVALID", f"{str(value)[:40]} is no number", where)
    return float(value)
