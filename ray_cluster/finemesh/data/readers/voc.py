"""Pascal VOC: an XML file per picture. Source: the VOC2012 development kit, and its VOCdevkit layout
(Annotations, JPEGImages, ImageSets, SegmentationObject).

Boxes are given by their first and last pixels, counted from 1: `xmin` 1 and `xmax` 10 is x 0 and width 10.
Many other tools write edges counted from 0 instead; where a box begins at 0, the whole source is read so.
In SegmentationObject, pixel value i is the i-th object of the XML file, 0 is ground and 255 is no one's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePosixPath
from typing import Any, Final
from xml.etree.ElementTree import Element

from finemesh.core.spec.data import Split
from finemesh.data.faults import RowFault
from finemesh.data.readers.context import ReadContext, read_needed, stem
from finemesh.data.readers.pictures import PICTURE_SUFFIXES, Pictures, is_picture
from finemesh.data.readers.splits import split_of_path
from finemesh.data.readers.survey import Survey
from finemesh.data.readers.voc_masks import object_masks
from finemesh.data.readers.xmltree import as_value, number_of, parse_xml
from finemesh.data.rle import Mask
from finemesh.data.rows import Candidate, check_mask_size, class_name_of, make_object, make_row
from finemesh.data.schema import ObjectRow, Row

_ROOT: Final = re.compile(rb"<annotation[\s>]")
_LOOKS: Final = 32
_ANNOTATIONS: Final = "Annotations"
_AT_ZERO: Final = re.compile(rb"<[xy]min>\s*-?0+(?:\.0*)?\s*<")
_JUDGED: Final = 256
"""Files that are looked at to tell how boxes are given."""
_EDGES: Final = "boxes begin at 0: read as edges counted from 0, not as VOC's first and last pixels from 1"
_FLAGS: Final = ("difficult", "truncated", "occluded")
_LISTS: Final = ("Main", "Segmentation")
_MASKS: Final = ("SegmentationObject", "SegmentationClass")


@dataclass(slots=True)
class _Kit:
    """The source: its pictures, and the split of each XML file that a list of ImageSets names. Boxes count
    the first pixel as `first`: 1, or 0 where they are given by their edges.
    """

    context: ReadContext
    pictures: Pictures
    first: int
    splits: dict[str, Split] = field(default_factory=dict[str, Split])


def detect(survey: Survey) -> str | None:
    names = survey.with_suffix(".xml")[:_LOOKS]
    return next((name for name in names if _ROOT.search(survey.head(name))), None)


def read(context: ReadContext) -> Iterator[Candidate]:
    """Candidates of all XML files, and of what ImageSets lists without one."""
    names = context.survey.with_suffix(".xml")
    kit = _Kit(context, Pictures(context, without=_MASKS), _first_pixel(context, names))
    for root in dict.fromkeys(_root(name) for name in names):
        _read_lists(kit, root)
    missing = sorted(kit.splits.keys() - set(names))
    context.total = len(names) + len(missing)
    _warn_of_left_out(kit, names)
    for name in names:
        yield Candidate(name.removesuffix(".xml"), partial(_row, kit, name))
    for name in missing:
        yield Candidate(name.removesuffix(".xml"), partial(_missing, name))


def _first_pixel(context: ReadContext, names: list[str]) -> int:
    if not any(_AT_ZERO.search(context.survey.head(name)) for name in names[:_JUDGED]):
        return 1
    context.warn(_EDGES)
    return 0


def _root(name: str) -> str:
    """The folder that holds Annotations, JPEGImages and so on, with its slash; else the file's own."""
    parts = PurePosixPath(name).parts
    if _ANNOTATIONS in parts[:-1]:
        return "".join(f"{part}/" for part in parts[: parts.index(_ANNOTATIONS)])
    return "".join(f"{part}/" for part in parts[:-1])


def _read_lists(kit: _Kit, root: str) -> None:
    """ImageSets/Main names a picture per line; what no list there names may be in ImageSets/Segmentation."""
    for folder in _LISTS:
        for split in (Split.TRAIN, Split.VAL, Split.TEST):
            name = f"{root}ImageSets/{folder}/{split}.txt"
            if name not in kit.pictures.files:
                continue
            lines = read_needed(kit.context.source, name).decode("utf-8", "replace").splitlines()
            files = [f"{root}{_ANNOTATIONS}/{line.split()[0]}.xml" for line in lines if line.strip()]
            if again := [each for each in files if kit.splits.setdefault(each, split) != split]:
                kit.context.warn(
                    f"{name} lists {len(again)} of another split, such as {stem(again[0])}: kept there"
                )


def _warn_of_left_out(kit: _Kit, names: list[str]) -> None:
    labelled = {stem(name) for name in names}
    if left := [name for name in kit.pictures.names if stem(name) not in labelled]:
        kit.context.warn(f"{len(left)} pictures, such as {left[0]}, have no XML file of their name")
    folders = {PurePosixPath(name).parent.name for name in kit.pictures.files}
    if "SegmentationClass" in folders and "SegmentationObject" not in folders:
        kit.context.warn("SegmentationClass says no objects apart: its masks are left out")


def _missing(name: str) -> Row:
    message = f"ImageSets lists it, but the source has no {name}: put it in, or take it off the list"
    raise RowFault("ANNOTATION_MISSING", message, name)


def _row(kit: _Kit, name: str) -> Row:
    root = parse_xml(kit.context.source.read(name), name)
    if root.tag != "annotation":
        raise RowFault("MALFORMED_ANNOTATIONS", f"{name} holds <{root.tag[:40]}>, not <annotation>", name)
    path = _picture_path(kit, name, root.findtext("filename"))
    masks, stated = _masks(kit, name), _size(root)
    elements = root.findall("object")
    if masks and max(masks) > len(elements):
        message = f"its object mask has {max(masks)} objects, {name} {len(elements)}"
        raise RowFault("MASK_COUNT_MISMATCH", message, "object")
    objects = [_object(kit, i, item, masks.get(i)) for i, item in enumerate(elements, start=1)]
    if stated is None:
        picture = kit.pictures.read(kit.pictures.find(path, "filename"))
    else:
        picture = kit.pictures.get(path, stated, objects, key=name, field="size")
    for number, mask in masks.items():
        check_mask_size(mask, picture, f"object[{number - 1}]")
    rest = [child for child in root if child.tag not in {"filename", "size", "object"}]
    return make_row(
        name.removesuffix(".xml"),
        source={"file": name, "key": ""},
        pictures=[picture],
        objects=objects,
        parents=[f"{name}#object[{index}]" for index in range(len(objects))],
        attributes={child.tag: as_value(child) for child in rest},
        split=kit.splits.get(name) or split_of_path(name),
    )


def _picture_path(kit: _Kit, name: str, filename: str | None) -> str:
    """Where the picture is, or else what it is called."""
    said = (filename or "").strip().replace("\\", "/")
    own = [stem(name) + suffix for suffix in PICTURE_SUFFIXES]
    called = [said, PurePosixPath(said).name] if is_picture(said) else own
    folders = (f"{_root(name)}JPEGImages/", f"{PurePosixPath(name).parent}/".removeprefix("./"))
    paths = (folder + each for folder in folders for each in called)
    return next((path for path in paths if path in kit.pictures.files), called[0])


def _masks(kit: _Kit, name: str) -> dict[int, Mask]:
    path = f"{_root(name)}SegmentationObject/{stem(name)}.png"
    if path not in kit.pictures.files:
        return {}
    return object_masks(kit.context.source.read(path), path, kit.pictures.max_pixels)


def _size(root: Element) -> tuple[int, int] | None:
    """Width and height in pixels; None where they are left out, or 0 as some tools write it."""
    sides = [root.findtext(f"size/{side}") for side in ("width", "height")]
    if any(side is None or side.strip() in {"", "0"} for side in sides):
        return None
    width, height = (number_of(side, "size") for side in sides)
    if min(width, height) < 1 or width % 1 or height % 1:
        raise RowFault("MALFORMED_IMAGE", f"{width:g} x {height:g} is no size of a picture", "size")
    return int(width), int(height)


def _object(kit: _Kit, number: int, element: Element, mask: Mask | None) -> ObjectRow:
    where = f"object[{number - 1}]"
    box = _box(element, where, kit.first)
    if kit.first == 1 and min(box[:2]) < 0:
        kit.context.warn("boxes begin before pixel 1, where VOC counts from: they may lie one pixel off")
    return make_object(
        str(number),
        class_name_of(element.findtext("name"), f"{where}.name"),
        bbox=box,
        area=None if mask is None else float(mask.area),
        rle_counts=None if mask is None else mask.counts(),
        visible=None if mask is None else mask.area > 0,
        attributes=_attributes(element, where, kit.first),
    )


def _box(element: Element, where: str, first: int) -> list[float]:
    """`[x, y, width, height]`, counted from 0. `first`: see _Kit."""
    values = [
        number_of(element.findtext(f"bndbox/{edge}"), f"{where}.bndbox.{edge}")
        for edge in ("xmin", "ymin", "xmax", "ymax")
    ]
    left, top, right, bottom = values
    if right < left or bottom < top:
        message = f"it ends at {right:g}, {bottom:g}, before it begins at {left:g}, {top:g}"
        raise RowFault("BBOX_INVALID", message, f"{where}.bndbox")
    return [left - first, top - first, right - left + first, bottom - top + first]


def _attributes(element: Element, where: str, first: int) -> dict[str, Any]:
    attributes: dict[str, Any] = {}
    for child in element:
        if child.tag in {"name", "bndbox", "part"}:
            continue
        value = as_value(child)
        attributes[child.tag] = value == "1" if child.tag in _FLAGS and value in {"0", "1"} else value
    parts = [
        {"name": (part.findtext("name") or "").strip(), "bbox": _box(part, f"{where}.part[{index}]", first)}
        for index, part in enumerate(element.findall("part"))
    ]
    return attributes | ({"part": parts} if parts else {})
