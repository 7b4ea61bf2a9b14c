"""Conversations from objects: which objects are asked about, and what is shown.

Planning reads annotations only and decides the fate of every object; making the pictures is a second pass.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from finemesh.core.spec.data import ConvertOptions, InstructionTask
from finemesh.data.images import encode_jpeg
from finemesh.data.rle import Mask, from_array, parse
from finemesh.data.rows import make_row, masked_object, picture_size, question_and_answer
from finemesh.data.schema import ObjectRow, Row

CELLS: Final = (
    ("top left", "top", "top right"),
    ("left", "center", "right"),
    ("bottom left", "bottom", "bottom right"),
)
QUESTIONS: Final = {
    InstructionTask.CLASSIFY_REGION: "What is the object in the center of the picture?",
    InstructionTask.LOCATE_OBJECT: "Where in the picture is the outlined object?",
}
OUTLINE_RGB: Final = (255, 0, 255)
PLAN_COLUMNS: Final = (
    "row_id",
    "images.list.element.width",
    "images.list.element.height",
    "objects",
    "split",
)


@dataclass(frozen=True, slots=True)
class Item:
    """An object that could be asked about."""

    item_id: str
    object_id: str
    answer: str
    split: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an object is not asked about."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The fate of every input by its id, in order: an item to be made, or a refusal."""

    fates: dict[str, Item | Refusal]


def item_id(row_id: str, object_id: str) -> str:
    """The id of an object within a dataset."""
    return f"{row_id}#{object_id}"


def plan(rows: Iterable[Row], options: ConvertOptions) -> Plan:
    """Decide for every object, and for every row without objects, from rows with PLAN_COLUMNS."""
    assert options.instruction is not None
    answer_of = _TASKS[options.instruction].answer
    fates: dict[str, Item | Refusal] = {}
    for row in rows:
        if not row["objects"]:
            fates[row["row_id"]] = Refusal("NO_OBJECTS", "the row has no objects to ask about")
        for item in row["objects"]:
            fates[item_id(row["row_id"], item["object_id"])] = _judge(row, item, answer_of, options)
    _balance(fates, options)
    return Plan(fates)


def _judge(
    row: Row, item: ObjectRow, answer_of: Callable[[Row, ObjectRow], str | None], options: ConvertOptions
) -> Item | Refusal:
    if not item["visible"]:
        return Refusal("INVISIBLE", "the object is hidden in this frame")
    if item["iscrowd"]:
        return Refusal("CROWD", "the mask covers a group, not one object")
    if item["area"] < options.min_object_px:
        return Refusal(
            "TOO_SMALL", f"{item['area']:.0f} pixels are visible, fewer than {options.min_object_px}"
        )
    x, y, width, height = item["bbox"]
    row_width, row_height = picture_size(row)
    if min(x + width, row_width) - max(x, 0) < 1 or min(y + height, row_height) - max(y, 0) < 1:
        return Refusal("OUTSIDE", "the box lies outside the picture")
    answer = answer_of(row, item)
    if answer is None:
        return Refusal("NO_CLASS_NAME", "the object has no class name")
    return Item(item_id(row["row_id"], item["object_id"]), item["object_id"], answer, row["split"])


def _balance(fates: dict[str, Item | Refusal], options: ConvertOptions) -> None:
    """Refuse items of answers that are too frequent in their split, then, evenly over answers, what exceeds
    max_items.
    """
    groups: defaultdict[tuple[str, str], list[Item]] = defaultdict(list)
    for fate in fates.values():
        if isinstance(fate, Item):
            groups[fate.split, fate.answer].append(fate)
    for group in groups.values():
        group.sort(key=lambda item: hashlib.sha256(f"{options.seed}\0{item.item_id}".encode()).digest())
    if options.max_answer_ratio:
        by_split: defaultdict[str, list[int]] = defaultdict(list)
        for (split, _), group in groups.items():
            by_split[split].append(len(group))
        for (split, answer), group in groups.items():
            limit = math.ceil(options.max_answer_ratio * median(by_split[split]))
            for item in group[limit:]:
                fates[item.item_id] = Refusal(
                    "BALANCE", f"{answer!r} is answered more than {limit} times in its split"
                )
            del group[limit:]
    if options.max_items:
        limits = _water_level([len(group) for group in groups.values()], options.max_items)
        for group, limit in zip(groups.values(), limits, strict=True):
            for item in group[limit:]:
                fates[item.item_id] = Refusal("MAX_ITEMS", f"{options.max_items} items were chosen before it")


def _water_level(sizes: Sequence[int], budget: int) -> list[int]:
    """How many to take of each group so that all take alike, the small ones whole, and the sum is at most
    `budget`.
    """
    taken = [0] * len(sizes)
    left = budget
    open_groups = [index for index, size in enumerate(sizes) if size]
    while open_groups and left:
        share = max(left // len(open_groups), 1)
        for index in open_groups:
            more = min(share, sizes[index] - taken[index], left)
            taken[index] += more
            left -= more
        open_groups = [index for index in open_groups if taken[index] < sizes[index]]
    return taken


def make_items(row: Row, image: Image.Image, items: Mapping[str, Item], options: ConvertOptions) -> list[Row]:
    """The conversations about those objects of a row that are among `items` (by id). `image` is the row's
    picture in RGB.
    """
    assert options.instruction is not None
    task = _TASKS[options.instruction]
    made: list[Row] = []
    for item in row["objects"]:
        chosen = items.get(item_id(row["row_id"], item["object_id"]))
        if chosen is not None:
            picture, shown = task.show(row, item, image, options)
            made.append(
                make_row(
                    chosen.item_id,
                    source=row["source"],
                    pictures=[encode_jpeg(picture, row["images"][0]["media"])],
                    objects=[shown],
                    parents=[chosen.item_id],
                    video_id=row["video_id"],
                    frame_index=row["frame_index"],
                    messages=question_and_answer(QUESTIONS[options.instruction], chosen.answer),
                    split=row["split"],
                )
            )
    return made


def _mask_of(row: Row, item: ObjectRow) -> Mask | None:
    if item["rle_counts"] is None:
        return None
    width, height = picture_size(row)
    return parse({"size": [height, width], "counts": item["rle_counts"]}, "rle_counts")


def _resized_object(row: Row, item: ObjectRow, window: tuple[int, int, int, int], size_px: int) -> ObjectRow:
    """The object as it lies in `window` (left, top, right, bottom) of the picture, resized to a square."""
    left, top, right, bottom = window
    mask = _mask_of(row, item)
    if mask is not None:
        pixels = Image.fromarray(mask.decode().astype(np.uint8) * 255).crop(window)
        resized = np.asarray(pixels.resize((size_px, size_px), Image.Resampling.BILINEAR)) > 127
        return masked_object(item["object_id"], item["class_name"], from_array(resized))
    x, y, width, height = item["bbox"]
    scale_x, scale_y = size_px / (right - left), size_px / (bottom - top)
    box = [(x - left) * scale_x, (y - top) * scale_y, width * scale_x, height * scale_y]
    return {**item, "bbox": box, "area": box[2] * box[3]}


def _crop(
    row: Row, item: ObjectRow, image: Image.Image, options: ConvertOptions
) -> tuple[Image.Image, ObjectRow]:
    """A square around the object with a margin, moved (and at last shrunk) to lie within the picture."""
    x, y, width, height = item["bbox"]
    row_width, row_height = picture_size(row)
    side = min(max(width, height) * (1 + 2 * options.context_fraction), row_width, row_height)
    side_px = max(round(side), 1)
    left = min(max(round(x + width / 2 - side / 2), 0), row_width - side_px)
    top = min(max(round(y + height / 2 - side / 2), 0), row_height - side_px)
    window = (left, top, left + side_px, top + side_px)
    size = (options.image_size_px, options.image_size_px)
    picture = image.resize(size, Image.Resampling.BICUBIC, box=window, reducing_gap=2.0)
    return picture, _resized_object(row, item, window, options.image_size_px)


def _outline(
    row: Row, item: ObjectRow, image: Image.Image, options: ConvertOptions
) -> tuple[Image.Image, ObjectRow]:
    """The whole picture as a square, the object's mask (or box) outlined."""
    size = options.image_size_px
    picture = image.resize((size, size), Image.Resampling.BICUBIC, reducing_gap=2.0)
    shown = _resized_object(row, item, (0, 0, *picture_size(row)), size)
    if shown["rle_counts"] is None:
        x, y, width, height = shown["bbox"]
        ImageDraw.Draw(picture).rectangle((x, y, x + width, y + height), outline=OUTLINE_RGB, width=2)
        return picture, shown
    mask = parse({"size": [size, size], "counts": shown["rle_counts"]}, "rle_counts")
    filled = Image.fromarray(mask.decode().astype(np.uint8) * 255)
    grown = filled.filter(ImageFilter.MaxFilter(5))
    edge = np.asarray(grown) > np.asarray(filled)
    picture.paste(OUTLINE_RGB, mask=Image.fromarray(edge.astype(np.uint8) * 255))
    return picture, shown


def _class_answer(row: Row, item: ObjectRow) -> str | None:
    del row
    return item["class_name"]


def _cell_answer(row: Row, item: ObjectRow) -> str:
    """The cell of the 3 x 3 grid that holds the middle of the object's box."""
    x, y, width, height = item["bbox"]
    row_width, row_height = picture_size(row)
    column = min(max(int(3 * (x + width / 2) / row_width), 0), 2)
    line = min(max(int(3 * (y + height / 2) / row_height), 0), 2)
    return CELLS[line][column]


@dataclass(frozen=True, slots=True)
class _Task:
    answer: Callable[[Row, ObjectRow], str | None]
    show: Callable[[Row, ObjectRow, Image.Image, ConvertOptions], tuple[Image.Image, ObjectRow]]


_TASKS: Final = {
    InstructionTask.CLASSIFY_REGION: _Task(_class_answer, _crop),
    InstructionTask.LOCATE_OBJECT: _Task(_cell_answer, _outline),
}
