"""Pictures of what was found: the offending rows, small, with boxes and masks, to be seen in a report."""

from __future__ import annotations

import base64
import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

from finemesh.data.faults import RowFault
from finemesh.data.images import DECODER_ERRORS, STILL, check_picture
from finemesh.data.rle import parse
from finemesh.data.storage import load_manifest
from finemesh.data.validation.findings import Finding, Findings

PER_KIND: Final = 6
MAX_SHOWN: Final = 60
"""Findings that are shown, each of some 15 kB."""
MAX_BYTES: Final = 3_000_000
"""Of all pictures together."""

_SIDE: Final = 320  # longest side in pixels of what is shown
_QUALITY: Final = 72
_MAX_PIXELS: Final = 64_000_000
_MAX_OUTLINES: Final = 60
_MAX_DATA_URL: Final = 60_000
_OFFENDER: Final = (255, 59, 92)
_OTHER: Final = (255, 255, 255)
_SHADOW: Final = (20, 24, 30)
_VEIL: Final = 120  # of 255: how much of its colour a mask has
_INDEX: Final = re.compile(r"(images|objects)\[(\d+)\]")

Picture = tuple[int, int]
"""Number of a row, and place of a picture in it."""


@dataclass(frozen=True, slots=True)
class Exhibit:
    """The pictures of a finding, as `data:` URLs: its own, and the one that it is compared with.

    Attributes:
        finding: its place among the findings of the report.
    """

    finding: int
    pictures: tuple[str, ...]

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Exhibit:
        return cls(value["finding"], tuple(value["pictures"]))


@dataclass(frozen=True, slots=True)
class _Wish:
    """A picture to be drawn: which, and the object in it that is to stand out, or -1."""

    picture: Picture
    object_index: int


def show(dataset: Path, findings: Findings, twins: Mapping[tuple[int, str], Picture]) -> tuple[Exhibit, ...]:
    """Pictures of the first findings of each kind, if it is about pictures or objects.

    `twins` has the other picture of findings that are about two, by row and field.
    """
    wishes = dict(_wishes(findings.placed, twins))
    drawn = _draw_all(dataset, {wish for each in wishes.values() for wish in each}) if wishes else {}
    exhibits: list[Exhibit] = []
    room = MAX_BYTES
    for place, each in wishes.items():
        pictures = tuple(drawn[wish] for wish in each if wish in drawn)
        room -= sum(map(len, pictures))
        if pictures and room >= 0:
            exhibits.append(Exhibit(place, pictures))
    return tuple(exhibits)


def _wishes(
    placed: Sequence[tuple[Finding, int]], twins: Mapping[tuple[int, str], Picture]
) -> Iterator[tuple[int, list[_Wish]]]:
    shown: Counter[str] = Counter()
    for place, (finding, row) in enumerate(placed):
        match = _INDEX.match(finding.field)
        if row < 0 or match is None or shown[finding.id] >= PER_KIND or shown.total() >= MAX_SHOWN:
            continue
        shown[finding.id] += 1
        index, about_object = int(match.group(2)), match.group(1) == "objects"
        wishes = [_Wish((row, 0 if about_object else index), index if about_object else -1)]
        if (row, finding.field) in twins:
            wishes.append(_Wish(twins[row, finding.field], -1))
        yield place, wishes


def _draw_all(dataset: Path, wishes: set[_Wish]) -> dict[_Wish, str]:
    """The wishes that can be drawn; a row group is read once, and no other than needed."""
    drawn: dict[_Wish, str] = {}
    waiting = sorted(wishes, key=lambda wish: wish.picture)
    first = 0
    for shard in load_manifest(dataset).shards:
        with pq.ParquetFile(dataset / shard.path) as file:
            for group in range(file.num_row_groups):
                end = first + file.metadata.row_group(group).num_rows
                here = [wish for wish in waiting if first <= wish.picture[0] < end]
                if here:
                    table = file.read_row_group(group, ["images", "objects"])
                    for wish in here:
                        picture = _draw(table.slice(wish.picture[0] - first, 1).to_pylist()[0], wish)
                        if picture:
                            drawn[wish] = picture
                first = end
    return drawn


def _draw(row: Mapping[str, Any], wish: _Wish) -> str:
    """A `data:` URL of the picture with its objects, or "" if it cannot be decoded."""
    try:
        image = _open(row["images"][wish.picture[1]])
    except (RowFault, *DECODER_ERRORS):
        return ""
    if wish.picture[1] == 0 and row["objects"]:
        stated = row["images"][0]["width"], row["images"][0]["height"]
        image = _with_objects(image, stated, row["objects"], wish.object_index)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY)
    url = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
    return url if len(url) <= _MAX_DATA_URL else ""


def _open(stored: Mapping[str, Any]) -> Image.Image:
    """The picture, small. Raises RowFault, or what decoders raise."""
    check_picture(stored["data"], STILL, _MAX_PIXELS, decode=False)
    with Image.open(io.BytesIO(stored["data"])) as image:
        image.draft("RGB", (_SIDE, _SIDE))
        small = image.convert("RGB")
    small.thumbnail((_SIDE, _SIDE))
    return small


def _with_objects(
    image: Image.Image, stated: tuple[int, int], objects: Sequence[Mapping[str, Any]], marked: int
) -> Image.Image:
    """Outlines of the objects; of the marked one, if there is one, the mask as well."""
    scale = image.width / max(stated[0], 1), image.height / max(stated[1], 1)
    if 0 <= marked < len(objects):
        image = _with_mask(image, stated, objects[marked].get("rle_counts"))
    pen = ImageDraw.Draw(image)
    for index, item in enumerate(objects[:_MAX_OUTLINES]):
        if index != marked:
            _outline(pen, item["bbox"], scale, _OTHER, 1)
    if 0 <= marked < len(objects):
        _outline(pen, objects[marked]["bbox"], scale, _OFFENDER, 3)
    return image


def _outline(
    pen: ImageDraw.ImageDraw,
    box: Sequence[float],
    scale: tuple[float, float],
    colour: tuple[int, int, int],
    width: int,
) -> None:
    x, y, w, h = np.clip(np.nan_to_num(np.asarray(box, np.float64)), -1e6, 1e6)
    left, top = x * scale[0], y * scale[1]
    right, bottom = left + max(w, 0) * scale[0], top + max(h, 0) * scale[1]
    pen.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=_SHADOW, width=width + 2)
    pen.rectangle((left, top, right, bottom), outline=colour, width=width)


def _with_mask(image: Image.Image, stated: tuple[int, int], counts: str | None) -> Image.Image:
    if counts is None or stated[0] * stated[1] > _MAX_PIXELS:
        return image
    try:
        pixels = parse({"size": [stated[1], stated[0]], "counts": counts}, "mask").decode()
    except RowFault:
        return image
    ys = np.arange(image.height) * stated[1] // image.height
    xs = np.arange(image.width) * stated[0] // image.width
    veil = Image.fromarray(np.where(pixels[np.ix_(ys, xs)], _VEIL, 0).astype(np.uint8))
    return Image.composite(Image.new("RGB", image.size, _OFFENDER), image, veil)
