"""SA-1B: a JSON file per picture. Source: https://ai.meta.com/datasets/segment-anything, and
facebookresearch/segment-anything, README (Dataset).

`image` has `image_id`, `width`, `height` and `file_name`; each of `annotations` is a mask as COCO's RLE with
its box, `predicted_iou`, `stability_score`, `point_coords` (the prompt) and `crop_box`. There are no classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Final

from finemesh.core.errors import InvalidError
from finemesh.data.faults import RowFault
from finemesh.data.images import check_size
from finemesh.data.jsonstream import loads
from finemesh.data.polygons import is_number
from finemesh.data.readers.context import ReadContext
from finemesh.data.readers.pictures import Pictures
from finemesh.data.readers.short_names import short_names
from finemesh.data.readers.storable import check_storable
from finemesh.data.readers.survey import Survey
from finemesh.data.rle import parse
from finemesh.data.rows import Candidate, json_text, make_row, masked_object
from finemesh.data.schema import ObjectRow, Row

_USED: Final = frozenset(("id", "segmentation", "bbox", "area"))


def detect(survey: Survey) -> str | None:
    return next((name for name in survey.json_files if _is_sa1b(survey, name)), None)


def _is_sa1b(survey: Survey, name: str) -> bool:
    return {"image", "annotations"} <= {*survey.json_head(name).keys}


def read(context: ReadContext) -> Iterator[Candidate]:
    """A candidate for each JSON file."""
    pictures = Pictures(context)
    names = context.survey.json_files
    context.total = len(names)
    for name, short in short_names(names).items():
        yield Candidate(short, partial(_row, context, pictures, name, short))


def _row(context: ReadContext, pictures: Pictures, name: str, row_id: str) -> Row:
    value = _load(context, name)
    image, annotations = value.get("image"), value.get("annotations")
    if not isinstance(image, dict) or not isinstance(annotations, list):
        raise RowFault("MALFORMED_ANNOTATIONS", f"{name} has no image, or no list of annotations", name)
    size = (_side(image, "width"), _side(image, "height"))
    check_size(*size, pictures.max_pixels)
    objects = [_object(item, index, size) for index, item in enumerate(annotations)]
    file_name = str(image.get("file_name") or f"{row_id}.jpg")
    return make_row(
        row_id,
        source={"file": name, "key": ""},
        pictures=[pictures.get(file_name, size, objects, key=name, field="image.file_name")],
        objects=objects,
        attributes={key: said for key, said in image.items() if key not in {"width", "height", "file_name"}},
        parents=[f"{name}#annotations[{index}]" for index in range(len(objects))],
    )


def _load(context: ReadContext, name: str) -> Mapping[str, Any]:
    try:
        value = loads(context.source.read(name), name)
    except InvalidError as error:
        raise RowFault(error.reason, error.message, name) from error
    if not isinstance(value, dict):
        raise RowFault("MALFORMED_ANNOTATIONS", f"{name} does not hold an object", name)
    check_storable(value, name)
    return value


def _side(image: Mapping[str, Any], name: str) -> int:
    value = image.get(name)
    if not is_number(value) or value < 1 or value != int(value):
        message = f"{name} is {str(value)[:40]!r}, not a positive whole number"
        raise RowFault("MALFORMED_IMAGE", message, f"image.{name}")
    return int(value)


def _object(item: Any, index: int, size: tuple[int, int]) -> ObjectRow:
    where = f"annotations[{index}]"
    if not isinstance(item, dict):
        raise RowFault("MALFORMED_ANNOTATION", "the annotation is not an object", where)
    segmentation: Any = item.get("segmentation")
    mask = parse(segmentation, f"{where}.segmentation")
    if (mask.width, mask.height) != size:
        message = f"the mask is {mask.width} x {mask.height}, its picture {size[0]} x {size[1]}"
        raise RowFault("MASK_SIZE_MISMATCH", message, f"{where}.segmentation.size")
    said, counts = item.get("id"), segmentation["counts"]
    object_id = str(said) if isinstance(said, int | str) else f"annotations[{index}]"
    made = masked_object(object_id, None, mask, counts=counts if isinstance(counts, str) else None)
    if item.get("bbox") is not None:
        made["bbox"] = _box(item["bbox"], f"{where}.bbox")
    rest = {key: value for key, value in item.items() if key not in _USED}
    if item.get("area") not in (None, mask.area):
        rest["area"] = item["area"]
    made["attributes"] = json_text(rest)
    return made


def _box(value: Any, field: str) -> list[float]:
    sound = isinstance(value, list) and len(value) == 4 and all(is_number(number) for number in value)
    if not sound or value[2] < 0 or value[3] < 0:
        raise RowFault("BBOX_INVALID", f"{str(value)[:80]} is not [x, y, width, height]", field)
    return [float(number) for number in value]
