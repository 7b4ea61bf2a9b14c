"""Run-length masks in COCO's form, read and written without trusting them and without a raster where none is
needed.

A mask of `height` x `width` is read column by column (top to bottom, then left to right) as runs of 0 and 1
in turn, starting with 0. The compressed string holds each run in groups of 5 bits, least significant first,
as ASCII from '0' (48); bit 5 says that more follow, the last group's bit 4 is the sign, and from the fourth
run on the difference to the run two before is written. Source: cocoapi, common/maskApi.c (rleToString,
rleFrString, rleToBbox).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from finemesh.data.faults import RowFault

_MAX_PIXELS: Final = 1 << 33
_MAX_GROUPS: Final = 7  # 7 x 5 bits hold any run of such a mask, and any difference of two


@dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """A mask as runs: int64[number of runs], which sum to height x width."""

    height: int
    width: int
    runs: npt.NDArray[np.int64]

    @property
    def area(self) -> int:
        """Number of set pixels."""
        return int(self.runs[1::2].sum())

    def box(self) -> tuple[float, float, float, float]:
        """x, y, width, height in pixels of the tightest box; zeros for an empty mask."""
        ends = np.cumsum(self.runs)
        starts = ends[::2][: len(ends[1::2])]
        stops = ends[1::2]
        filled = stops > starts
        if not filled.any():
            return (0.0, 0.0, 0.0, 0.0)
        first, last = starts[filled], stops[filled] - 1
        left, right = first // self.height, last // self.height
        top, bottom = int((first % self.height).min()), int((last % self.height).max())
        if (
            left != right
        ).any():  # a run that goes on in the next column covers that column's top and this one's bottom
            top, bottom = 0, self.height - 1
        x, x_end = int(left.min()), int(right.max())
        return (float(x), float(top), float(x_end - x + 1), float(bottom - top + 1))

    def decode(self) -> npt.NDArray[np.bool_]:
        """bool[height, width]."""
        values = np.zeros(len(self.runs), dtype=np.bool_)
        values[1::2] = True
        return np.repeat(values, self.runs).reshape(self.width, self.height).T

    def counts(self) -> str:
        """The compressed string."""
        return compress(self.runs)


def from_array(pixels: npt.NDArray[np.bool_]) -> Mask:
    """The mask of bool[height, width]."""
    height, width = pixels.shape
    flat = np.asarray(pixels, dtype=np.bool_).T.reshape(-1)
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = np.concatenate(([0], changes, [flat.size]))
    runs = np.diff(edges)
    if flat.size and flat[0]:
        runs = np.concatenate(([0], runs))
    return Mask(height, width, runs.astype(np.int64))


def from_window(pixels: npt.NDArray[np.bool_], x: int, y: int, size: tuple[int, int]) -> Mask:
    """The mask in a picture of `size` (width, height) that is bool[height, width] `pixels` from `x`, `y` on,
    and 0 elsewhere. The window lies within the picture; no raster of the picture is made.
    """
    width, height = size
    rows, columns = pixels.shape
    framed = np.zeros((columns, rows + 2), dtype=np.int8)  # column by column, with a 0 at both ends
    framed[:, 1:-1] = pixels.T
    column, row = np.nonzero(np.diff(framed, axis=1))
    edges = (x + column) * height + y + row  # where runs begin and end, in turn
    # A run to the foot of a column goes on at the head of the next.
    meets = np.flatnonzero(edges[2::2] == edges[1:-1:2])
    edges = np.delete(edges, np.concatenate((2 * meets + 1, 2 * meets + 2)))
    runs = np.diff(np.concatenate(([0], edges, [width * height])))
    return Mask(height, width, (runs[:-1] if runs[-1] == 0 and len(runs) > 1 else runs).astype(np.int64))


def parse(value: object, field: str) -> Mask:
    """The mask of a COCO RLE `{"size": [height, width], "counts": string or list}`. Raises RowFault naming
    `field`.
    """
    if not isinstance(value, Mapping):
        raise RowFault(
            "RLE_INVALID", f"the mask is {type(value).__name__}, not an object with size and counts", field
        )
    mapping: Mapping[str, Any] = value
    size, counts = mapping.get("size"), mapping.get("counts")
    if not (
        isinstance(size, list) and len(size) == 2 and all(isinstance(side, int) and side > 0 for side in size)
    ):
        raise RowFault("RLE_INVALID", f"the mask's size is {size!r}, not [height, width]", f"{field}.size")
    height, width = size
    if height * width > _MAX_PIXELS:
        raise RowFault("RLE_INVALID", f"{width} x {height} is beyond any picture", f"{field}.size")
    if isinstance(counts, str | bytes):
        runs = decompress(counts, f"{field}.counts")
    elif isinstance(counts, list):
        runs = _listed_runs(counts, f"{field}.counts")
    else:
        raise RowFault(
            "RLE_INVALID", f"counts is {type(counts).__name__}, not a string or a list", f"{field}.counts"
        )
    if runs.size and (int(runs.min()) < 0 or int(runs.max()) > height * width):
        raise RowFault("RLE_INVALID", "a run is negative or longer than the mask", f"{field}.counts")
    total = int(runs.sum())
    if total != height * width:
        message = f"the runs sum to {total}, but the mask is {width} x {height} = {height * width} pixels"
        raise RowFault("RLE_INVALID", message, f"{field}.counts")
    return Mask(height, width, runs)


def parse_many(counts: Sequence[str], size: tuple[int, int], field: Callable[[int], str]) -> list[Mask]:
    """The masks of many compressed strings, all of `size` (height, width), in one pass over all of them.
    Raises RowFault, as `parse` does for the first that is wrong, naming `field` of its index.
    """
    masks = _sound_masks(tuple(counts), size)
    if masks is not None:
        return [*masks]
    listed = [*size]
    return [parse({"size": listed, "counts": each}, field(index)) for index, each in enumerate(counts)]


@lru_cache(maxsize=1)  # what a reader has judged, a writer asks for again
def _sound_masks(counts: tuple[str, ...], size: tuple[int, int]) -> tuple[Mask, ...] | None:
    """None if anything is wrong with one of them."""
    height, width = size
    try:
        runs, ends = _decompress_all(counts, "counts")
    except RowFault:
        return None
    if not ends.size:
        return None
    starts = np.concatenate(([0], ends[:-1]))
    sound = runs.min() >= 0 and bool((np.add.reduceat(runs, starts) == height * width).all())
    if not (sound and bool((starts < ends).all()) and int(runs.max()) <= height * width <= _MAX_PIXELS):
        return None
    pieces = zip(starts.tolist(), ends.tolist(), strict=True)
    return tuple(Mask(height, width, runs[start:end]) for start, end in pieces)


def decompress(counts: str | bytes, field: str) -> npt.NDArray[np.int64]:
    """The runs of a compressed string. Raises RowFault if it is not one."""
    return _decompress_all([counts], field)[0]


def _decompress_all(
    several: Sequence[str | bytes], field: str
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The runs of compressed strings, one after the other, and where those of each end."""
    try:
        texts = [counts.encode("ascii") if isinstance(counts, str) else counts for counts in several]
    except UnicodeEncodeError as error:
        raise RowFault("RLE_INVALID", "counts holds characters beyond ASCII", field) from error
    groups = np.frombuffer(b"".join(texts), dtype=np.uint8).astype(np.int64) - 48
    text_ends = np.cumsum([len(text) for text in texts])
    if groups.size == 0:
        return groups, text_ends
    if int(groups.min()) < 0 or int(groups.max()) > 63:
        raise RowFault("RLE_INVALID", "counts holds characters outside '0' to 'o'", field)
    last = (groups & 0x20) == 0
    if not last[text_ends[text_ends > 0] - 1].all():
        raise RowFault("RLE_INVALID", "counts ends in the middle of a number", field)
    ends = np.flatnonzero(last)
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    if int(lengths.max()) > _MAX_GROUPS:
        raise RowFault("RLE_INVALID", "counts holds a number beyond any mask", field)
    shift = 5 * (np.arange(groups.size) - np.repeat(starts, lengths))
    values = np.add.reduceat((groups & 0x1F) << shift, starts)
    values -= ((groups[ends] >> 4) & 1) << (5 * lengths)  # sign of the last group
    value_ends = np.searchsorted(ends, text_ends)  # each text ends with the last group of a number
    _undo_differences(values, value_ends)
    return values, value_ends


def _undo_differences(values: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> None:
    """From the fourth run of a mask on, a value is the difference to the run two before: a sum over every
    second value, from the second and from the third run of each mask on.
    """
    starts = np.concatenate(([0], ends[:-1]))
    lengths = ends - starts
    # In pairs of values, each mask from a pair of its own on, both sums run down the columns.
    first_pair = np.concatenate(([0], np.cumsum((lengths + 1) // 2)))
    shift = np.repeat(2 * first_pair[:-1] - starts, lengths)
    place = np.arange(values.size) + shift
    pairs = np.zeros((int(first_pair[-1]), 2), dtype=np.int64)
    flat = pairs.reshape(-1)
    flat[place] = values
    filled = lengths > 0
    first_runs = values[starts[filled]]
    flat[2 * first_pair[:-1][filled]] = 0
    sums = np.cumsum(pairs, axis=0)
    before = np.concatenate((np.zeros((1, 2), dtype=np.int64), sums))[first_pair[:-1]]
    sums -= np.repeat(before, np.diff(first_pair), axis=0)
    values[:] = sums.reshape(-1)[place]
    values[starts[filled]] = first_runs


def compress(runs: npt.NDArray[np.int64]) -> str:
    """The compressed string of runs."""
    values = runs.astype(np.int64)
    values[3:] -= runs[1:-2]
    # A group is the last one when what is left is only its sign.
    shifted = values[:, None] >> (5 * np.arange(_MAX_GROUPS))
    groups, rest = shifted & 0x1F, shifted >> 5
    done = rest == np.where(groups & 0x10, -1, 0)
    first_done = done.argmax(axis=1)
    position = np.arange(_MAX_GROUPS)
    more = position < first_done[:, None]
    used = position <= first_done[:, None]
    return (groups + 0x20 * more + 48)[used].astype(np.uint8).tobytes().decode("ascii")


def _listed_runs(counts: list[Any], field: str) -> npt.NDArray[np.int64]:
    if not all(isinstance(run, int) and not isinstance(run, bool) and abs(run) < 1 << 62 for run in counts):
        raise RowFault("RLE_INVALID", "counts holds something that is not a whole number", field)
    return np.asarray(counts, dtype=np.int64)
