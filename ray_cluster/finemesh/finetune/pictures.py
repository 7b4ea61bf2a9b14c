"""Rows about one picture, with its objects or its class: for detection, segmentation and classification."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy.typing as npt

from finemesh.core.errors import InvalidError
from finemesh.core.spec.ledger import Disposition, LedgerEntry
from finemesh.finetune.array_file import ArrayFile
from finemesh.finetune.rows import Location, no_rows, read_values
from finemesh.finetune.sight import PIXEL_CACHE_BYTES, decode_image

if TYPE_CHECKING:
    from PIL import Image

_OBJECT: Final = ("class_name", "bbox", "rle_counts", "visible", "iscrowd")
_COLUMNS: Final = (
    "row_id",
    "video_id",
    "images.list.element.data",
    "class_name",
    *(f"objects.list.element.{name}" for name in _OBJECT),
)

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class PictureObject:
    """One object of a picture.

    Attributes:
        class_name: None where the source names none.
        bbox_px: x, y of the upper left corner, width, height; may reach over the picture's edge.
        rle_counts: COCO's compressed run lengths of a mask of the picture's size, where there is one.
        iscrowd: a group that was not told apart.
    """

    class_name: str | None
    bbox_px: tuple[float, float, float, float]
    rle_counts: str | None
    iscrowd: bool


@dataclass(frozen=True, slots=True)
class PictureRow:
    """One picture as its row says, without its pixels.

    Attributes:
        group: the video it came from, or the row itself: what an interval resamples.
        class_name: of the whole picture, or None.
        objects: those that can be seen in it.
    """

    row_id: str
    group: str
    location: Location
    class_name: str | None
    objects: tuple[PictureObject, ...]


def sound_pictures(
    dataset: Path, split: str, limit: int = 0, only: Collection[str] | None = None
) -> Iterator[tuple[PictureRow, Image.Image | LedgerEntry]]:
    """The rows of a split, or its first `limit`, with their decoded pictures, or why there is none; if
    there are ids in `only`, those alone.

    A row with no picture or one that does not decode is quarantined (NO_PICTURE, IMAGE_UNREADABLE,
    IMAGE_TOO_LARGE); one with several is dropped (SEVERAL_PICTURES), since nothing says which one is meant.

    Raises:
        PreconditionError: SPLIT_EMPTY.
    """
    rows = read_values(dataset, split, _COLUMNS)
    empty = True
    for values, location in islice(rows, limit or None):
        empty = False
        if only is None or values["row_id"] in only:
            yield _row(values, location), _picture(values)
    if empty:
        raise no_rows(dataset, split)


def lost(row: PictureRow, reason: str, message: str, where: str = "") -> LedgerEntry:
    """A row that is put aside for a fault."""
    return LedgerEntry(row.row_id, Disposition.QUARANTINED, reason, message, where)


def kept(row: PictureRow) -> LedgerEntry:
    return LedgerEntry(row.row_id, Disposition.KEPT, children=(row.row_id,))


class ArrayCache:
    """What is made of a row alike each time: kept while there is room, otherwise made again.

    Args:
        make: from a row's place, and what else `load` is told of it, to its arrays.
        max_bytes: room for arrays.
    """

    def __init__(self, make: Callable[..., Arrays], max_bytes: int = PIXEL_CACHE_BYTES) -> None:
        self._make = make
        self._kept: ArrayFile[Location] = ArrayFile(max_bytes)

    def load(self, location: Location, *details: Any) -> Arrays:
        kept = self._kept.get(location)
        return self.keep(location, self._make(location, *details)) if kept is None else kept

    def keep(self, location: Location, made: Arrays) -> Arrays:
        """Keep what was made of a row, if there is room. Returns it, as `load` would."""
        return self._kept.put(location, made)


def _row(values: dict[str, Any], location: Location) -> PictureRow:
    row_id = values["row_id"]
    return PictureRow(
        row_id=row_id,
        group=values["video_id"] or row_id,
        location=location,
        class_name=values["class_name"],
        objects=tuple(
            PictureObject(each["class_name"], tuple(each["bbox"]), each["rle_counts"], each["iscrowd"])
            for each in values["objects"]
            if each["visible"]
        ),
    )


def _picture(values: dict[str, Any]) -> Image.Image | LedgerEntry:
    row_id, images = values["row_id"], values["images"]
    if len(images) > 1:
        message = f"{len(images)} pictures: nothing says which of them the labels are of"
        return LedgerEntry(row_id, Disposition.DROPPED, "SEVERAL_PICTURES", message, "images")
    if not images or not images[0]["data"]:  # of some only the size is known
        message = "its picture is not in the dataset: import it with its pictures"
        return LedgerEntry(row_id, Disposition.QUARANTINED, "NO_PICTURE", message, "images")
    try:
        return decode_image(images[0]["data"])
    except InvalidError as error:
        return LedgerEntry(row_id, Disposition.QUARANTINED, error.reason, error.message, "images[0]")
