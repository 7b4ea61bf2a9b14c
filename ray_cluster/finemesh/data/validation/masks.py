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
_BLOCK_BYTES: Final = 1 << 16  # of counts at once: the arrays made of them stay in the processor's cache


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
    values, numbers, broken = _numbers(raw, offsets)
    runs = _undo_differences(values, numbers)
    owners = np.repeat(np.arange(len(numbers)), numbers)
    firsts = np.cumsum(numbers) - numbers
    sums = np.concatenate(([0], np.cumsum(runs)))
    pixels = sums[firsts + numbers] - sums[firsts]
    negative = np.zeros(len(numbers), np.bool_)
    negative[owners[runs < 0]] = True
    filled = (_places(numbers) % 2 == 1) & (runs > 0)
    if negative.any():
        filled &= ~negative[owners]
    owners, lengths = owners[filled], runs[filled]
    ends = sums[1:][filled] - sums[firsts][owners]  # within the mask, in pixels
    boxes = _boxes(owners, ends - lengths, ends - 1, heights)
    area = np.bincount(owners, lengths, len(heights)).astype(np.int64)
    return Measured(broken | negative, pixels, area, boxes)


def _numbers(raw: npt.NDArray[np.uint8], offsets: Ints) -> tuple[Ints, Ints, Bools]:
    """The numbers of all masks, how many each mask has, and whether it cannot be read (its numbers then have
    no meaning).
    """
    broken = np.zeros(len(offsets) - 1, np.bool_)
    groups = raw - np.uint8(48)  # what is below becomes large
    broken[_owners(offsets, np.flatnonzero(groups > 63))] = True
    last = (groups & 0x20) == 0
    finals = offsets[1:][offsets[1:] > offsets[:-1]] - 1  # the last character of each mask
    broken[_owners(offsets, finals[~last[finals]])] = True
    last[finals] = True  # so that no number reaches into the next mask
    ends = np.flatnonzero(last)
    starts = np.concatenate(([0], ends + 1))[: len(ends)]
    lengths = ends - starts + 1
    broken[_owners(offsets, ends[lengths > _GROUP_LIMIT])] = True
    values = (groups[starts] & 0x1F).astype(np.int64)
    longer = np.flatnonzero(lengths > 1)
    for place in range(1, _GROUP_LIMIT):
        longer = longer[lengths[longer] > place]
        values[longer] |= (groups[starts[longer] + place] & 0x1F).astype(np.int64) << 5 * place
    negative = np.flatnonzero(groups[ends] & 0x10)
    values[negative] -= 1 << 5 * np.minimum(lengths[negative], _GROUP_LIMIT)
    return values, np.diff(np.searchsorted(ends, offsets)), broken


def _owners(offsets: Ints, letters: Ints) -> Ints:
    """The masks that characters belong to."""
    return np.searchsorted(offsets, letters, side="right") - 1


def _places(numbers: Ints) -> Ints:
    """0, 1, 2 and so on within each mask."""
    return np.arange(numbers.sum()) - np.repeat(np.cumsum(numbers) - numbers, numbers)


def _undo_differences(values: Ints, numbers: Ints) -> Ints:
    """From the fourth number of a mask on, the difference to the one two before was written."""
    place = _places(numbers)
    odd = place % 2 == 1
    runs = values.copy()
    # Of n numbers, n // 2 have an odd place; those of an even one are a chain without the very first.
    for chain, counts in ((odd, numbers // 2), (~odd & (place > 0), np.maximum(numbers - 1, 0) // 2)):
        index = np.flatnonzero(chain)
        sums = np.concatenate(([0], np.cumsum(values[index])))
        runs[index] = sums[1:] - np.repeat(sums[np.cumsum(counts) - counts], counts)
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
    begins = np.flatnonzero(np.diff(owners, prepend=-1))
    filled = owners[begins]
    x, y = np.minimum.reduceat(left, begins), np.minimum.reduceat(top, begins)
    boxes[filled, 0], boxes[filled, 1] = x, y
    boxes[filled, 2] = np.maximum.reduceat(right, begins) - x + 1
    boxes[filled, 3] = np.maximum.reduceat(bottom, begins) - y + 1
    return boxes
