"""COCO instances. Source: https://cocodataset.org/#format-data, and cocoapi for what its tools accept.

A segmentation is a list of polygons, an RLE with counts as list or string, or empty (then the box is all
there is).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePosixPath
from typing import Any, Final, TypeGuard

from finemesh.data.faults import RowFault
from finemesh.data.images import STILL, SUFFIXES, Picture, check_picture, check_size
from finemesh.data.jsonio import malformed_annotations
from finemesh.data.readers.context import ReadContext, load_object, stem
from finemesh.data.readers.survey import Survey
from finemesh.data.render import Renderer
from finemesh.data.rle import Mask, parse
from finemesh.data.rows import Candidate, check_mask_size, class_name_of, make_object, make_row, masked_object
from finemesh.data.schema import ObjectRow, Row

_MARKS: Final = ("images", "annotations", "categories")


@dataclass(slots=True)
class _File:
    """One COCO file: categories and annotations by id, and the pictures of the source by name."""

    name: str
    categories: dict[Any, Any]
    images: list[Any]
    orphans: list[dict[str, Any]]
    by_image: dict[Any, list[tuple[int, dict[str, Any]]]] = field(default_factory=dict[Any, Any])


def detect(survey: Survey) -> str | None:
    return next(iter(survey.json_with_keys(*_MARKS)), None)


def read(context: ReadContext) -> Iterator[Candidate]:
    """Candidates of all COCO files of a source: its images, and annotations whose image is not listed."""
    names = context.survey.json_with_keys(*_MARKS)
    files = [_load(context, name) for name in names]
    context.total = sum(len(file.images) + len(file.orphans) for file in files)
    pictures = _Pictures(context)
    for file in files:
        for index, image in enumerate(file.images):
            identity = image.get("id") if isinstance(image, dict) else None
            row_id = f"{stem(file.name)}/{f'images[{index}]' if identity is None else identity}"
            yield Candidate(row_id, partial(_row, row_id, file, index, pictures))
        for orphan in file.orphans:
            yield Candidate(f"{stem(file.name)}/annotation/{orphan.get('id')}", partial(_orphan, orphan))


def _load(context: ReadContext, name: str) -> _File:
    value = load_object(context.source, name)
    tables: dict[str, list[Any]] = {}
    for key in ("images", "annotations", "categories"):
        table = value.get(key)
        if not isinstance(table, list):
            raise malformed_annotations(name, key, "is missing or not a list")
        tables[key] = table
    for key in ("annotations", "categories"):
        for index, item in enumerate(tables[key]):
            if not isinstance(item, dict) or not isinstance(item.get("id"), int | str):
                raise malformed_annotations(name, f"{key}[{index}]", "is not an object with an id")
    file = _File(name, {item["id"]: item.get("name") for item in tables["categories"]}, tables["images"], [])
    known = {image.get("id") for image in file.images if isinstance(image, dict) and _is_id(image.get("id"))}
    for index, annotation in enumerate(tables["annotations"]):
        image_id = annotation.get("image_id")
        if _is_id(image_id) and image_id in known:
            file.by_image.setdefault(image_id, []).append((index, annotation))
        else:
            file.orphans.append(annotation)
    return file


def _is_id(value: object) -> bool:
    return isinstance(value, int | str)


def _orphan(annotation: Mapping[str, Any]) -> Row:
    message = (
        f"annotation {annotation['id']} belongs to image {annotation.get('image_id')!r}, which is not listed"
    )
    raise RowFault("UNKNOWN_IMAGE", message, "image_id")


class _Pictures:
    """The pictures of a source by COCO's file_name: whole path, or its end. Rendered if the source has none
    at all.
    """

    def __init__(self, context: ReadContext) -> None:
        self._context = context
        self.max_pixels = context.options.max_image_pixels
        self._by_base: dict[str, list[str]] = {}
        for name in context.source.names:
            if name.lower().endswith(SUFFIXES):
                self._by_base.setdefault(PurePosixPath(name).name, []).append(name)

    def get(
        self, file: _File, image: Mapping[str, Any], size: tuple[int, int], masks: list[tuple[str, Mask]]
    ) -> Picture:
        width, height = size
        if not self._by_base:
            self._context.warn("images missing: rendered from masks")
            renderer = Renderer(self._context.options.seed, f"{file.name}/{image['id']}", width, height)
            return renderer.picture(masks)
        name = self._find(str(image.get("file_name", "")), stem(file.name).removeprefix("instances_"))
        picture = check_picture(self._context.source.read(name), STILL, self.max_pixels, name=name)
        if (picture.width, picture.height) != size:
            message = f"the picture is {picture.width} x {picture.height}, but {width} x {height} is declared"
            raise RowFault("IMAGE_SIZE_MISMATCH", message, "width")
        return picture

    def _find(self, file_name: str, subset: str) -> str:
        """By path; else by base name, in the folder of the subset where several pictures share the name."""
        candidates = self._by_base.get(PurePosixPath(file_name).name, [])
        exact = [
            name for name in candidates if name == file_name or name.endswith("/" + file_name)
        ] or candidates
        within = [name for name in exact if subset in PurePosixPath(name).parts[:-1]]
        chosen = exact if len(exact) == 1 else within
        if len(chosen) == 1:
            return chosen[0]
        if exact:
            raise RowFault(
                "IMAGE_AMBIGUOUS", f"{file_name} may be any of {', '.join(exact[:4])}", "file_name"
            )
        raise RowFault("IMAGE_MISSING", f"the source has no picture {file_name!r}", "file_name")


def _row(row_id: str, file: _File, index: int, pictures: _Pictures) -> Row:
    image = file.images[index]
    if not isinstance(image, dict) or not _is_id(image.get("id")):
        raise RowFault("MALFORMED_IMAGE", "the image is not an object with an id", f"images[{index}]")
    size = (_side(image, "width", index), _side(image, "height", index))
    check_size(*size, pictures.max_pixels)
    annotations = file.by_image.get(image["id"], [])
    objects: list[ObjectRow] = []
    masks: list[tuple[str, Mask, str]] = []
    for position, annotation in annotations:
        item, mask = _object(file, position, annotation, size)
        objects.append(item)
        if mask is not None:
            masks.append((item["object_id"], mask, f"annotations[{position}].segmentation"))
    picture = pictures.get(file, image, size, [(object_id, mask) for object_id, mask, _ in masks])
    for _, mask, where in masks:
        check_mask_size(mask, picture, where)
    return make_row(
        row_id,
        source={"file": file.name, "key": f"images[{index}]"},
        pictures=[picture],
        objects=objects,
        parents=[f"{file.name}#annotations[{position}]" for position, _ in annotations],
    )


def _side(image: Mapping[str, Any], name: str, index: int) -> int:
    value = image.get(name)
    if not _is_number(value) or value < 1 or value != int(value):
        message = f"{name} is {value!r}, not a positive whole number"
        raise RowFault("MALFORMED_IMAGE", message, f"images[{index}].{name}")
    return int(value)


def _object(
    file: _File, position: int, annotation: Mapping[str, Any], size: tuple[int, int]
) -> tuple[ObjectRow, Mask | None]:
    where = f"annotations[{position}]"
    category = annotation.get("category_id")
    if not _is_id(category) or category not in file.categories:
        raise RowFault("UNKNOWN_CATEGORY", f"category {category!r} is not listed", f"{where}.category_id")
    class_name = class_name_of(file.categories[category], f"{where}.category_id")
    crowd = annotation.get("iscrowd", 0) == 1
    object_id = str(annotation["id"])
    segmentation = annotation.get("segmentation")
    if not segmentation:
        return _boxed_object(object_id, class_name, annotation, crowd, where), None
    if isinstance(segmentation, list):
        mask = _polygons(segmentation, size, f"{where}.segmentation")
    else:
        mask = parse(segmentation, f"{where}.segmentation")
    item = masked_object(object_id, class_name, mask, iscrowd=crowd)
    if annotation.get("bbox") is not None:
        item["bbox"] = _box(annotation["bbox"], f"{where}.bbox")
    return item, mask


def _boxed_object(
    object_id: str, class_name: str, annotation: Mapping[str, Any], crowd: bool, where: str
) -> ObjectRow:
    box = _box(annotation.get("bbox"), f"{where}.bbox")
    area = annotation.get("area")
    stated = float(area) if _is_number(area) and area >= 0 else None
    return make_object(object_id, class_name, bbox=box, area=stated, iscrowd=crowd)


def _is_number(value: Any) -> TypeGuard[int | float]:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and abs(value) < 1e15
        and math.isfinite(value)
    )


def _box(value: Any, field: str) -> list[float]:
    sound = isinstance(value, list) and len(value) == 4 and all(_is_number(number) for number in value)
    if not sound or value[2] < 0 or value[3] < 0:
        raise RowFault("BBOX_INVALID", f"{value!r} is not [x, y, width, height]", field)
    return [float(number) for number in value]


def _polygons(polygons: list[Any], size: tuple[int, int], field: str) -> Mask:
    """The union of polygons `[x0, y0, x1, y1, …]` as COCO's own tools rasterise it. Raises RowFault
    (POLYGON_INVALID).
    """
    from pycocotools import mask as coco_mask

    width, height = size
    reach = (
        4 * max(width, height) + 64
    )  # rasterising takes memory for every pixel of the outline, also outside
    for index, polygon in enumerate(polygons):
        where = f"{field}[{index}]"
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise RowFault("POLYGON_INVALID", "a polygon is a list of at least three x, y pairs", where)
        if not all(_is_number(number) and abs(number) <= reach for number in polygon):
            raise RowFault(
                "POLYGON_INVALID", "a coordinate is not a number, or far outside the picture", where
            )
    # Four numbers would be read as a box, hence the check above.
    parts = [coco_mask.frPyObjects([polygon], height, width)[0] for polygon in polygons]
    return parse(coco_mask.merge(parts), field)
