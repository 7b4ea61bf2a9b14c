"""Masks of objects, out of COCO's compressed run lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from finemesh.core.spec.ledger import LedgerEntry
from finemesh.finetune.pictures import PictureRow, lost


@dataclass(frozen=True, slots=True)
class ObjectMask:
    """The mask of one object, its class as an index. `area` counts its pixels."""

    label: int
    rle_counts: str
    area: int
    iscrowd: bool


def masks_of(
    row: PictureRow, size_px: tuple[int, int], labels: Mapping[str, int]
) -> tuple[ObjectMask, ...] | LedgerEntry:
    """The masks of a row, the largest first, or why it cannot be used. Empty masks are left out.

    A picture of which one object is unknown is put aside: the model would be told that nothing is there.

    Args:
        row: whose objects they are.
        size_px: height and width of its picture.
        labels: indices of classes by name.
    """
    found: list[ObjectMask] = []
    for index, thing in enumerate(row.objects):
        where = f"objects[{index}]"
        label = labels.get(thing.class_name or "")
        if label is None:
            message = f"{thing.class_name or 'no class'!r} is none of the dataset's classes"
            return lost(row, "OBJECT_WITHOUT_CLASS", message, f"{where}.class_name")
        if thing.rle_counts is None:
            message = "it has a box alone: segmentation learns masks"
            return lost(row, "OBJECT_WITHOUT_MASK", message, f"{where}.rle_counts")
        try:
            area = int(decode(thing.rle_counts, size_px).sum())
        except ValueError as error:
            return lost(row, "MASK_SIZE_MISMATCH", str(error), f"{where}.rle_counts")
        if area:
            found.append(ObjectMask(label, thing.rle_counts, area, thing.iscrowd))
    return tuple(sorted(found, key=lambda each: -each.area))


def paint(masks: Sequence[ObjectMask], size_px: tuple[int, int], uncovered: int) -> npt.NDArray[np.uint8]:
    """One map of classes, (height, width): the last mask lies on top; what none covers is `uncovered`."""
    map_HW = np.full(size_px, uncovered, np.uint8)
    for each in masks:
        map_HW[decode(each.rle_counts, size_px)] = each.label
    return map_HW


def decode(rle_counts: str, size_px: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """The mask of a picture of a height and width, bool[height, width].

    Its pixels are counted column by column, in runs of 0 and 1 in turn. Each run is written in groups of 5
    bits from '0' (48) on, the least significant first; bit 5 says that more follow, bit 4 of the last is the
    sign. From the fourth run on it is the difference to the run two before. Source: cocoapi,
    common/maskApi.c, rleFrString; pycocotools itself decodes masks of other sizes to something.

    Raises:
        ValueError: it is not a mask of that size.
    """
    height, width = size_px
    runs: list[int] = []
    value = shift = 0
    for character in rle_counts:
        bits = ord(character) - 48
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift or min(runs, default=0) < 0 or sum(runs) != height * width:
        raise ValueError(f"it is not a mask of {width} x {height} pixels")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T
