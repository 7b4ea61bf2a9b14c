"""YOLO detection, segmentation and pose. Source: https://docs.ultralytics.com/datasets/.

`data.yaml` names the classes and the pictures of each split. The labels of `.../images/a.jpg` stand in
`.../labels/a.txt`, else in `a.txt` beside the picture; a picture without a file of labels shows nothing. A
line is `class x y w h` (of the centre and the sides), `class x0 y0 x1 y1 ...` for an outline, or, where
`kpt_shape` is given, a box and its key points; all shares of the picture's width and height. A number more
than that is a prediction's score.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Final

from finemesh.data.faults import RowFault
from finemesh.data.polygons import outlined_object
from finemesh.data.readers.context import ReadContext
from finemesh.data.readers.pictures import Pictures
from finemesh.data.readers.survey import Survey
from finemesh.data.readers.yolo_config import DARKNET, Config, Listed, listed_pictures, load_config
from finemesh.data.rows import Candidate, make_object, make_row
from finemesh.data.schema import ObjectRow, Row

_NAMES: Final = re.compile(rb"^names\s*:", re.MULTILINE)
_SPLITS: Final = re.compile(rb"^(train|val|test)\s*:", re.MULTILINE)
_DARKNET_NAMES: Final = re.compile(rb"^\s*names\s*=", re.MULTILINE)
_DARKNET_SPLITS: Final = re.compile(rb"^\s*(train|valid|test)\s*=", re.MULTILINE)
_WITHOUT_LABELS: Final = ("classes.txt", "README.txt", "README.roboflow.txt", "README.dataset.txt")
# Whatever lies outside [0, 1] by less has been rounded.
_ROUNDING: Final = 1e-5
_ROUNDED_PIXELS: Final = 0.01


@dataclass(frozen=True, slots=True)
class _Labels:
    """A file of labels of one picture, of `size` (width, height) in pixels."""

    config: Config
    name: str
    size: tuple[int, int]


def detect(survey: Survey) -> str | None:
    return next(iter(_configs(survey)), None)


def _configs(survey: Survey) -> list[str]:
    """Each data.yaml, or, without any, each obj.data of darknet, as CVAT exports it."""
    for suffixes, names, splits in (
        ((".yaml", ".yml"), _NAMES, _SPLITS),
        ((DARKNET,), _DARKNET_NAMES, _DARKNET_SPLITS),
    ):
        heads = ((name, survey.head(name)) for name in survey.with_suffix(*suffixes))
        if found := [name for name, head in heads if names.search(head) and splits.search(head)]:
            return found
    return []


def read(context: ReadContext) -> Iterator[Candidate]:
    """Candidates of all pictures that a data.yaml names, and of labels that have no picture. Raises
    InvalidError (MALFORMED_YAML, MALFORMED_ANNOTATIONS).
    """
    pictures = Pictures(context)
    seen: set[str] = set()
    for name in _configs(context.survey):
        config = load_config(context, name)
        found = listed_pictures(context, config, pictures)
        listed = [item for item in found if item.name not in seen]
        if len(listed) < len(found):
            context.warn(
                f"{len(found) - len(listed)} pictures of {name} are in another data.yaml: left out here"
            )
        seen.update(item.name for item in listed)
        orphans = _orphans(context, listed, pictures)
        context.total += len(listed) + len(orphans)
        for item in listed:
            yield Candidate(item.name, partial(_row, context, config, item, pictures))
        for orphan in orphans:
            yield Candidate(orphan, partial(_orphan, orphan))


def label_names(picture: str) -> tuple[str, str]:
    """Where the labels of a picture may stand: in `labels` for the last `images` of its path, and beside it.

    >>> label_names("train/images/a.jpg")
    ('train/labels/a.txt', 'train/images/a.txt')
    """
    beside = PurePosixPath(picture).with_suffix(".txt")
    parts = list(beside.parts)
    for index in range(len(parts) - 2, -1, -1):
        if parts[index] == "images":
            parts[index] = "labels"
            break
    return str(PurePosixPath(*parts)), str(beside)


def _orphans(context: ReadContext, listed: list[Listed], pictures: Pictures) -> list[str]:
    """Files of labels, in the folders where labels of the listed pictures may stand, that have no picture."""
    folders = {PurePosixPath(label_names(item.name)[0]).parent for item in listed if item.fault is None}
    owned = {label for picture in pictures.names for label in label_names(picture)}
    owned |= {item.listed_in for item in listed}
    return [
        name
        for name in context.survey.with_suffix(".txt")
        if PurePosixPath(name).parent in folders
        and name not in owned
        and PurePosixPath(name).name not in _WITHOUT_LABELS
    ]


def _orphan(name: str) -> Row:
    message = f"{name} labels a picture that the source does not hold: put it in, or remove the labels"
    raise RowFault("IMAGE_MISSING", message, name)


def _row(context: ReadContext, config: Config, item: Listed, pictures: Pictures) -> Row:
    if item.fault is not None:
        raise item.fault
    picture = pictures.read(item.name)
    label = next((name for name in label_names(item.name) if name in pictures.files), None)
    objects: list[ObjectRow] = []
    if label is not None:
        labels = _Labels(config, label, (picture.width, picture.height))
        objects = [_object(labels, number, line) for number, line in _lines(context, label)]
    return make_row(
        item.name,
        source={"file": label or item.name, "key": ""},
        pictures=[picture],
        objects=objects,
        parents=[f"{label}#{item['object_id']}" for item in objects],
        split=item.split,
    )


def _lines(context: ReadContext, name: str) -> Iterator[tuple[int, list[str]]]:
    """The words of each line that is not blank, with its number from 1."""
    try:
        text = context.source.read(name).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"{name} is not UTF-8 at byte {error.start}: save it as plain text"
        raise RowFault("MALFORMED_LABEL", message, name) from error
    for number, line in enumerate(text.splitlines(), start=1):
        if words := line.split():
            yield number, words


def _object(labels: _Labels, number: int, words: list[str]) -> ObjectRow:
    where = f"{labels.name}:{number}"
    class_name = _class_name(labels.config, words[0], where)
    values = _numbers(words[1:], where)
    shape = labels.config.keypoint_shape
    if shape is not None:
        return _posed(labels, str(number), class_name, values, shape, where)
    if len(values) in {4, 5}:
        score = _score(values[4], where) if len(values) == 5 else None
        return make_object(str(number), class_name, bbox=_box(labels, values[:4], where), score=score)
    if len(values) < 6:
        message = f"{where} holds {len(values)} numbers after the class: 4 make a box, 6 or more an outline"
        raise RowFault("MALFORMED_LABEL", message, where)
    score = _score(values.pop(), where) if len(values) % 2 else None
    return _outlined(labels, str(number), class_name, values, score, where)


def _outlined(
    labels: _Labels, object_id: str, class_name: str, values: list[float], score: float | None, where: str
) -> ObjectRow:
    width, height = labels.size
    _check_shares(values, where)
    polygon = [value * (width, height)[index % 2] for index, value in enumerate(values)]
    item = outlined_object(object_id, class_name, [polygon], labels.size, where)
    item["score"] = score
    return item


def _posed(
    labels: _Labels,
    object_id: str,
    class_name: str,
    values: list[float],
    shape: tuple[int, int],
    where: str,
) -> ObjectRow:
    count, dimensions = shape
    expected = 4 + count * dimensions
    if len(values) not in {expected, expected + 1}:
        message = f"{where} holds {len(values)} numbers after the class; kpt_shape asks for {expected}"
        raise RowFault("MALFORMED_LABEL", message, where)
    width, height = labels.size
    keypoints: list[float] = []
    for start in range(4, expected, dimensions):
        x, y = values[start : start + 2]
        # Without a third number a point that is not there is written as negative.
        visibility = values[start + 2] if dimensions == 3 else 2.0 * (x >= 0 and y >= 0)
        if visibility > 0:
            _check_shares([x, y], where)
        keypoints += [x * width, y * height, visibility]
    score = _score(values[expected], where) if len(values) > expected else None
    box = _box(labels, values[:4], where)
    return make_object(object_id, class_name, bbox=box, keypoints=keypoints, score=score)


def _class_name(config: Config, word: str, where: str) -> str:
    # Some tools write the number as 0.0.
    number = int(word.partition(".")[0]) if re.fullmatch(r"\d{1,9}(\.0*)?", word) else None
    if number is None or number not in config.names:
        message = f"{where}: class {word} is not among the {len(config.names)} names of {config.file}"
        raise RowFault("UNKNOWN_CATEGORY", message, where)
    return config.names[number]


def _numbers(words: list[str], where: str) -> list[float]:
    try:
        values = [float(word) for word in words]
    except ValueError as error:
        message = f"{where} holds something that is no number: {str(error)[:80]}"
        raise RowFault("MALFORMED_LABEL", message, where) from error
    if not all(abs(value) < 1e9 for value in values):  # also false for what is not a number at all
        raise RowFault("MALFORMED_LABEL", f"{where} holds a number that is not finite", where)
    return values


def _box(labels: _Labels, values: list[float], where: str) -> list[float]:
    """`[x, y, width, height]` in pixels of the box with this centre and these sides."""
    _check_shares(values, where)
    x, y, w, h = values
    left, width = _span(x, w, labels.size[0])
    top, height = _span(y, h, labels.size[1])
    return [left, top, width, height]


def _span(centre: float, length: float, side: int) -> tuple[float, float]:
    """Start and length in pixels. What lies outside by the rounding of six decimals alone is cut off."""
    start, end = (centre - length / 2) * side, (centre + length / 2) * side
    inner = max(start, 0.0) if start > -_ROUNDED_PIXELS else start
    outer = min(end, float(side)) if end < side + _ROUNDED_PIXELS else end
    return inner, length * side if (inner, outer) == (start, end) else outer - inner


def _check_shares(values: list[float], where: str) -> None:
    for value in values:
        if not -_ROUNDING <= value <= 1 + _ROUNDING:
            message = f"{where}: {value:g} is no share of the picture, 0 to 1: divide pixels by its sides"
            raise RowFault("COORDINATE_INVALID", message, where)


def _score(value: float, where: str) -> float:
    if not 0 <= value <= 1:
        raise RowFault("MALFORMED_LABEL", f"{where}: {value:g} is no score, 0 to 1", where)
    return value
