"""The `objects` of a record: lists side by side, as `datasets` has them, or a list of objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from finemesh.data.faults import RowFault
from finemesh.data.polygons import is_number
from finemesh.data.rows import class_name_of, make_object
from finemesh.data.schema import ObjectRow

OBJECTS: Final = "objects"
_CATEGORY: Final = ("categories", "category", "labels", "label")
_USED: Final = frozenset(("bbox", "id", "area", "iscrowd", *_CATEGORY))


def make_objects(value: Any, field: str) -> list[ObjectRow]:
    """Raises RowFault (OBJECTS_INVALID, BBOX_INVALID, EMPTY_CLASS_NAME)."""
    if value is None:
        return []
    each = _side_by_side(value, field) if isinstance(value, dict) else value
    if not isinstance(each, list) or not all(isinstance(item, dict) for item in each):
        raise RowFault(
            "OBJECTS_INVALID", "objects are neither lists side by side nor a list of objects", field
        )
    return [_object(item, index, f"{field}[{index}]") for index, item in enumerate(each)]


def class_names_of(feature: Any) -> list[str]:
    """The names of the classes that the `datasets` feature of such objects states, as JSON; none without."""
    fields = _inner(feature)
    found = [_inner(fields[key]) for key in _CATEGORY if key in fields]
    names = found[0].get("names") if found else None
    return [str(name) for name in names] if isinstance(names, list) else []


def _inner(feature: Any) -> Mapping[str, Any]:
    """What a feature of lists holds."""
    while isinstance(feature, dict) and "_type" in feature and "feature" in feature:
        feature = feature["feature"]
    return feature if isinstance(feature, dict) else {}


def name_classes(value: Any, names: Sequence[str]) -> Any:
    """Objects with names in place of the numbers of their classes; a number beyond `names` stays."""

    def named(said: Any) -> Any:
        known = isinstance(said, int) and not isinstance(said, bool) and 0 <= said < len(names)
        return names[said] if known else said

    if isinstance(value, list):
        return [name_classes(item, names) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: (list(map(named, said)) if isinstance(said, list) else named(said)) if key in _CATEGORY else said
        for key, said in value.items()
    }


def _side_by_side(value: Mapping[str, Any], field: str) -> list[dict[str, Any]]:
    columns = {key: column for key, column in value.items() if column is not None}
    lengths = {len(column) if isinstance(column, list) else -1 for column in columns.values()}
    if len(lengths) > 1 or lengths == {-1}:
        message = f"the lists of {', '.join(sorted(map(str, columns)))} are not of one length"
        raise RowFault("OBJECTS_INVALID", message, field)
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _object(item: Mapping[str, Any], index: int, field: str) -> ObjectRow:
    box = item.get("bbox")
    sound = isinstance(box, list) and len(box) == 4 and all(is_number(side) for side in box)
    if not isinstance(box, list) or not sound or box[2] < 0 or box[3] < 0:
        raise RowFault("BBOX_INVALID", f"{str(box)[:80]} is not [x, y, width, height]", f"{field}.bbox")
    category = next((item[key] for key in _CATEGORY if item.get(key) is not None), None)
    said, area = item.get("id"), item.get("area")
    return make_object(
        str(index) if said is None else str(said),
        None if category is None else name_of_class(category, f"{field}.category"),
        bbox=[float(side) for side in box],
        area=float(area) if is_number(area) and area >= 0 else None,
        iscrowd=item.get("iscrowd") in (1, True),
        attributes={key: value for key, value in item.items() if key not in _USED and value is not None},
    )


def name_of_class(value: Any, field: str) -> str:
    """A class name, also of a number. Raises RowFault (EMPTY_CLASS_NAME)."""
    number = isinstance(value, int) and not isinstance(value, bool)
    return str(value) if number else class_name_of(value, field)
