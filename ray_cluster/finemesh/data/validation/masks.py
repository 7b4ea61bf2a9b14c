"""Many compressed masks at once: their runs, areas and boxes without a raster and without a loop over masks.

The form is that of `finemesh.data.rle`; there one mask is read and refused with a sentence, here thousands
are measured and the faulty ones are told apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_GROUP_LIMIT: Final = 7  # as in finemesh.data.rle
_BLOCK_BYTES: Final = 1 << 18  # of counts at once: the arrays made of them stay in the processor's cache


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """Masks, measured; all arrays are of their number.

    Attributes:
        broken: the string is no run lengths, or a run is negative.
        pixels: sum of the runs.
        area: set pixels.
        boxes: int64[N, 4], x, y, width, height in pixels of the tightest box; zeros for an empty mask.
    """

    broken: Bools
    pixels: Ints
    area: Ints
    boxes: Ints


def measure(counts: pa.StringArray, heights: Ints) -> Measured:
    """Measure masks of the given heights in pixels. `counts` has no nulls."""
    parts = [_measure_block(*block) for block in _blocks(counts, heights)]
    if not parts:
        none = np.zeros(0, np.int64)
        return Measured(none.astype(np.bool_), none, none, none.reshape(0, 4))
    return Measured(
        np.concatenate([part.broken for part in parts]),
        np.concatenate([part.pixels for part in parts]),
        np.concatenate([part.area for part in parts]),
        np.concatenate([part.boxes for part in parts]),
    )


def _blocks(counts: pa.StringArray, heights: Ints) -> Iterator[tuple[npt.NDArray[np.uint8], Ints, Ints]]:
    """Characters, offsets of the masks in them, and heights, of some masks after the other."""
    _, places, letters = counts.buffers()
    if not len(counts) or places is None:
        return
    offsets = np.frombuffer(places, np.int32, len(counts) + 1, 4 * counts.offset).astype(np.int64)
    raw = np.frombuffer(letters, np.uint8) if letters is not None else np.zeros(0, np.uint8)
    begin = 0
    while begin < len(counts):
        room = np.searchsorted(offsets, offsets[begin] + _BLOCK_BYTES, side="right") - 1
        end = max(int(room), begin + 1)
        here = offsets[begin : end + 1]
        yield raw[here[0] : here[-1]], here - here[0], heights[begin:end]
        begin = end


def _measure_block(raw: npt.NDArray[np.uint8], offsets: Ints, heights: Ints) -> Measured:
    """Masks whose strings lie one after the other in `raw`."""
    owners, runs, broken = _runs(raw, offsets)
    firsts = np.searchsorted(owners, np.arange(len(heights) + 1))
    sums = np.concatenate(([0], np.cumsum(runs)))
    ends = sums[1:] - sums[firsts[owners]]  # of each run within its mask, in pixels
    pixels = sums[firsts[1:]] - sums[firsts[:-1]]
    negative = np.zeros(len(heights), np.bool_)
    negative[owners[runs < 0]] = True
    filled = ((np.arange(len(runs)) - firsts[owners]) % 2 == 1) & (runs > 0) & ~negative[owners]
    owners, ends, lengths = owners[filled], ends[filled], runs[filled]
    boxes = _boxes(owners, ends - lengths, ends - 1, heights)
    area = np.bincount(owners, lengths, len(heights)).astype(np.int64)
    return Measured(broken | negative, pixels, area, boxes)


def _runs(raw: npt.NDArray[np.uint8], offsets: Ints) -> tuple[Ints, Ints, Bools]:
    """The mask of each run, the runs, and whether a mask cannot be read (it then has runs of no meaning)."""
    count = len(offsets) - 1
    groups = raw.astype(np.int64) - 48
    broken = np.zeros(count, np.bool_)
    strange = np.flatnonzero((groups < 0) | (groups > 63))
    broken[np.searchsorted(offsets, strange, side="right") - 1] = True
    groups &= 63
    last = (groups & 0x20) == 0
    finals = offsets[1:][offsets[1:] > offsets[:-1]] - 1  # the last character of each mask
    broken[np.searchsorted(offsets, finals[~last[finals]], side="right") - 1] = True
    last[finals] = True  # so that no number reaches into the next mask
    ends = np.flatnonzero(last)
    starts = np.concatenate(([0], ends[:-1] + 1))[: len(ends)]
    lengths = ends - starts + 1
    owners = np.searchsorted(offsets, ends, side="right") - 1
    broken[owners[lengths > _GROUP_LIMIT]] = True
    place = np.minimum(np.arange(len(groups)) - np.repeat(starts, lengths), _GROUP_LIMIT)
    values = np.add.reduceat((groups & 0x1F) << (5 * place), starts) if len(starts) else np.zeros(0, np.int64)
    values -= ((groups[ends] >> 4) & 1) << (5 * np.minimum(lengths, _GROUP_LIMIT))
    return owners, _undo_differences(values, owners, count), broken


def _undo_differences(values: Ints, owners: Ints, count: int) -> Ints:
    """From the fourth run of a mask on, the difference to the run two before was written."""
    firsts = np.searchsorted(owners, np.arange(count))
    place = np.arange(len(values)) - firsts[owners]
    runs = values.copy()
    for chain in ((place % 2 == 1), (place % 2 == 0) & (place >= 2)):
        index = np.flatnonzero(chain)
        sums = np.cumsum(values[index])
        begins = np.searchsorted(owners[index], np.arange(count))
        before = np.concatenate(([0], sums))[begins]
        runs[index] = sums - before[owners[index]]
    return runs


def _boxes(owners: Ints, first: Ints, last: Ints, heights: Ints) -> Ints:
    """int64[N, 4] of the set runs from pixel `first` to pixel `last`, in order of their masks."""
    boxes = np.zeros((len(heights), 4), np.int64)
    if not len(owners):
        return boxes
    height = np.maximum(heights[owners], 1)
    left, right = first // height, last // height
    # A run that goes on in the next column covers that column's top and this one's bottom.
    over = left != right
    top = np.where(over, 0, first - left * height)
    bottom = np.where(over, height - 1, last - right * height)
    filled, begins = np.unique(owners, return_index=True)
    x, y = np.minimum.reduceat(left, begins), np.minimum.reduceat(top, begins)
    boxes[filled, 0], boxes[filled, 1] = x, y
    boxes[filled, 2] = np.maximum.reduceat(right, begins) - x + 1
    boxes[filled, 3] = np.maximum.reduceat(bottom, begins) - y + 1
    return boxes
