"""From an image of a COCO file and its annotations to a row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from finemesh.data.faults import RowFault
from finemesh.data.images import check_size
from finemesh.data.polygons import is_number, rasterise
from finemesh.data.readers.coco.join import CocoFile, Numbered, drop_keys, is_id
from finemesh.data.readers.context import ReadContext, stem
from finemesh.data.readers.pictures import Pictures
from finemesh.data.readers.splits import split_of_file
from finemesh.data.rle import Mask, parse, parse_many
from finemesh.data.rows import class_name_of, make_object, make_row
from finemesh.data.schema import ObjectRow, Row

NOTES: Final = "coco"
"""The attribute, of rows and objects, with what COCO says otherwise than canonical rows do."""
_OF_IMAGE: Final = frozenset({"id", "file_name", "width", "height"})
_OF_OBJECT: Final = frozenset(
    {"id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation", "keypoints", "score"}
)
_OF_CAPTION: Final = frozenset({"image_id", "caption"})


class RowMaker:
    """Makes the rows of one file."""

    def __init__(self, context: ReadContext, file: CocoFile) -> None:
        self._context, self._file = context, file
        self._pictures = Pictures(context)
        self._subset = stem(file.name).partition("_")[2] or stem(file.name)
        named = Counter(name for name in file.categories.values() if isinstance(name, str))
        self._split = split_of_file(file.name)
        self._shared_names = {name for name, count in named.items() if count > 1}
        self._plain_names = {
            identity: name.strip()
            for identity, name in file.categories.items()
            if isinstance(name, str) and name.strip() and name not in self._shared_names
        }

    @property
    def has_pictures(self) -> bool:
        return bool(self._pictures.names)

    def row(self, row_id: str, index: int, image: Any, annotations: list[Numbered]) -> Row:
        """Raises RowFault naming the field of the file that is wrong."""
        if not isinstance(image, dict) or not is_id(image.get("id")):
            raise RowFault("MALFORMED_IMAGE", "the image is not an object with an id", f"images[{index}]")
        size = (_side(image, "width", index), _side(image, "height", index))
        check_size(*size, self._pictures.max_pixels)
        masks = self._compressed(annotations, size) if self._context.needs.masks else {}
        objects, captions, notes = list[ObjectRow](), list[str](), list[dict[str, Any]]()
        for position, annotation in annotations:
            if "caption" in annotation and "category_id" not in annotation:
                captions.append(_caption(annotation, position))
                notes.append(drop_keys(annotation, _OF_CAPTION))
            else:
                objects.append(self._object(position, annotation, size, masks.get(position)))
        told: dict[str, Any] = {"id": image["id"]}
        if "file_name" in image:
            told["file_name"] = image["file_name"]
        if notes:
            told["captions"] = notes
        picture = self._pictures.get(
            str(image.get("file_name", "")),
            size,
            objects,
            key=f"{self._file.name}/{image['id']}",
            field=f"images[{index}].file_name",
            folder=self._subset,
        )
        return make_row(
            row_id,
            source={"file": self._file.name, "key": f"images[{index}]"},
            pictures=[picture],
            objects=objects,
            captions=captions,
            attributes={**drop_keys(image, _OF_IMAGE), NOTES: told},
            parents=[f"{self._file.name}#annotations[{position}]" for position, _ in annotations],
            split=self._split,
        )

    def _compressed(self, annotations: list[Numbered], size: tuple[int, int]) -> dict[int, Mask]:
        """The masks of all annotations that come as compressed run lengths of the right size, by position."""
        expected = [size[1], size[0]]
        counts = {
            position: segmentation["counts"]
            for position, annotation in annotations
            if isinstance(segmentation := annotation.get("segmentation"), dict)
            and segmentation.get("size") == expected
            and isinstance(segmentation.get("counts"), str)
        }
        where = [f"annotations[{position}].segmentation" for position in counts]
        parsed = parse_many(list(counts.values()), (size[1], size[0]), where.__getitem__)
        return dict(zip(counts, parsed, strict=True))

    def _object(
        self, position: int, annotation: Mapping[str, Any], size: tuple[int, int], mask: Mask | None
    ) -> ObjectRow:
        where = f"annotations[{position}]"
        identity = annotation.get("id", position)
        if not is_id(identity):
            raise RowFault("MALFORMED_ANNOTATION", f"id is {identity!r}", f"{where}.id")
        notes: dict[str, Any] = {} if isinstance(identity, int) else {"id": identity}
        class_name = self._class_name(annotation, where, notes)
        box = _box(annotation["bbox"], f"{where}.bbox") if annotation.get("bbox") is not None else None
        if mask is None and (self._context.needs.masks or box is None):
            mask = self._mask(annotation, size, where, notes)
        if mask is None and box is None:
            raise RowFault("BBOX_INVALID", "there is neither a box nor a mask", f"{where}.bbox")
        area, drawn = annotation.get("area"), None if mask is None else mask.area
        stated = float(area) if is_number(area) and area >= 0 else None
        if drawn is not None:
            if area is not None and stated != drawn:
                notes["area"] = area
            stated = float(drawn)
        segmentation = annotation.get("segmentation")
        return make_object(
            str(identity),
            class_name,
            bbox=list(mask.box()) if box is None and mask is not None else box or [],
            area=stated,
            rle_counts=None if mask is None else _counts(mask, segmentation),
            polygons=segmentation if mask is not None and isinstance(segmentation, list) else None,
            keypoints=_keypoints(annotation, where),
            score=_score(annotation, where),
            visible=None if drawn is None else drawn > 0,
            iscrowd=annotation.get("iscrowd", 0) == 1,
            attributes=_attributes(annotation, notes),
        )

    def _class_name(self, annotation: Mapping[str, Any], where: str, notes: dict[str, Any]) -> str:
        category, names = annotation.get("category_id"), self._file.categories
        if is_id(category) and (plain := self._plain_names.get(category)) is not None:
            return plain
        if not is_id(category) or category not in names:
            raise RowFault("UNKNOWN_CATEGORY", f"category {category!r} is not listed", f"{where}.category_id")
        name = names[category]
        if isinstance(name, str) and name in self._shared_names:
            notes["category_id"] = category
        return class_name_of(name, f"{where}.category_id")

    def _mask(
        self, annotation: Mapping[str, Any], size: tuple[int, int], where: str, notes: dict[str, Any]
    ) -> Mask | None:
        segmentation, field = annotation.get("segmentation"), f"{where}.segmentation"
        if not segmentation:
            if "segmentation" in annotation:
                notes["segmentation"] = segmentation
            return None
        if isinstance(segmentation, list):
            return rasterise(segmentation, size, field)
        mask = parse(segmentation, field)
        if (mask.width, mask.height) != size:
            message = f"the mask is {mask.width} x {mask.height}, its picture {size[0]} x {size[1]}"
            raise RowFault("MASK_SIZE_MISMATCH", message, f"{field}.size")
        if isinstance(segmentation["counts"], list):
            notes["counts"] = "list"
        return mask


def _attributes(annotation: Mapping[str, Any], notes: dict[str, Any]) -> dict[str, Any]:
    if not notes and annotation.keys() <= _OF_OBJECT:
        return notes
    rest = drop_keys(annotation, _OF_OBJECT)
    return {**rest, NOTES: notes} if notes else rest


def _counts(mask: Mask, segmentation: Any) -> str:
    """Compressed run lengths; those of the source where it has them."""
    if isinstance(segmentation, dict) and isinstance(segmentation["counts"], str):
        return segmentation["counts"]
    return mask.counts()


def _side(image: Mapping[str, Any], name: str, index: int) -> int:
    value = image.get(name)
    if not is_number(value) or value < 1 or value != int(value):
        message = f"{name} is {value!r}, not a positive whole number"
        raise RowFault("MALFORMED_IMAGE", message, f"images[{index}].{name}")
    return int(value)


def _caption(annotation: Mapping[str, Any], position: int) -> str:
    caption = annotation["caption"]
    if not isinstance(caption, str) or not caption.strip():
        raise RowFault("EMPTY_TEXT", "the caption says nothing", f"annotations[{position}].caption")
    return caption


def _box(value: Any, field: str) -> list[float]:
    if isinstance(value, list) and len(value) == 4 and all(map(is_number, value)):
        x, y, width, height = map(float, value)
        if width >= 0 and height >= 0:
            return [x, y, width, height]
    raise RowFault("BBOX_INVALID", f"{value!r} is not [x, y, width, height]", field)


def _keypoints(annotation: Mapping[str, Any], where: str) -> list[float] | None:
    value = annotation.get("keypoints")
    if value is None:
        return None
    if not isinstance(value, list) or len(value) % 3 or not all(is_number(number) for number in value):
        message = "keypoints is not a list of x, y, visibility"
        raise RowFault("KEYPOINTS_INVALID", message, f"{where}.keypoints")
    return [float(number) for number in value]


def _score(annotation: Mapping[str, Any], where: str) -> float | None:
    score = annotation.get("score")
    if score is not None and not is_number(score):
        raise RowFault("SCORE_INVALID", f"score is {score!r}, not a number", f"{where}.score")
    return None if score is None else float(score)
