"""From masks to outlines, without a raster: the runs of a mask are cut into intervals of columns, the ends of
the intervals are joined to closed rings, and rings are joined to one polygon where a form knows only one.

Rings run along the edges of pixels, a quarter of a pixel inside the mask. So they enclose the centres of just
the pixels of the mask, and their corners, rounded down, are just its outermost pixels: readers that ask which
centres lie inside (COCO's tools) and readers that round corners and fill up to and with the edge (OpenCV's
fillPoly, after which the YOLO trainers work) both draw the same mask again.

Coordinates are in quarters of a pixel, as whole numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from finemesh.data.rle import Mask

Ints = npt.NDArray[np.int64]
QUARTERS: Final = 4
_SHORT_BRIDGES: Final = 64
"""Up to so many rings of a mask, short bridges between them are sought."""


@dataclass(frozen=True, slots=True)
class Ring:
    """A closed outline. `corners` is int64[n, 2] of x and y, in quarters of a pixel; `hole` tells whether it
    bounds a hole.
    """

    corners: Ints
    hole: bool


@dataclass(frozen=True, slots=True)
class _Intervals:
    """Set pixels of columns: rows [top, bottom) of column `x` of mask number `mask`; no two of them touch."""

    mask: Ints
    x: Ints
    top: Ints
    bottom: Ints


def trace(masks: Sequence[Mask]) -> list[list[Ring]]:
    """The rings of every mask, in one pass over all of them: cheaper than one by one."""
    if not masks:
        return []
    cut = _intervals(masks)
    found: list[list[Ring]] = [[] for _ in masks]
    if not cut.x.size:
        return found
    corners, ring_ends, owners = _rings(cut)
    starts = np.concatenate(([0], ring_ends[:-1]))
    areas = _doubled_areas(corners, starts, ring_ends)
    for start, end, owner, area in zip(
        starts.tolist(), ring_ends.tolist(), owners.tolist(), areas.tolist(), strict=True
    ):
        found[owner].append(Ring(corners[start:end], hole=area < 0))
    return found


def _intervals(masks: Sequence[Mask]) -> _Intervals:
    runs = np.concatenate([mask.runs[: mask.runs.size // 2 * 2] for mask in masks])
    pairs = np.array([mask.runs.size // 2 for mask in masks])
    owner = np.repeat(np.arange(len(masks)), pairs)
    height = np.repeat(np.array([mask.height for mask in masks]), pairs)
    ends = np.cumsum(runs)
    first_run = np.concatenate(([0], np.cumsum(2 * pairs)))[:-1]
    offsets = np.where(first_run > 0, ends[np.maximum(first_run, 1) - 1], 0) if ends.size else first_run
    starts, stops = ends[0::2] - np.repeat(offsets, pairs), ends[1::2] - np.repeat(offsets, pairs)
    # Runs of no pixels: nothing is set, or what is set goes on behind them.
    filled = stops > starts
    starts, stops, owner, height = starts[filled], stops[filled], owner[filled], height[filled]
    if starts.size:
        goes_on = (starts[1:] == stops[:-1]) & (owner[1:] == owner[:-1])
        begins = np.concatenate(([True], ~goes_on))
        stops = stops[np.concatenate((~goes_on, [True]))]
        starts, owner, height = starts[begins], owner[begins], height[begins]
    return _cut_at_columns(owner, height, starts, stops)


def _cut_at_columns(owner: Ints, height: Ints, starts: Ints, stops: Ints) -> _Intervals:
    left, right = starts // height, (stops - 1) // height
    columns = right - left + 1
    run = np.repeat(np.arange(starts.size), columns)
    step = np.arange(run.size) - np.repeat(np.cumsum(columns) - columns, columns)
    top = np.where(step == 0, (starts - left * height)[run], 0)
    bottom = np.where(step == (columns - 1)[run], (stops - right * height)[run], height[run])
    return _Intervals(owner[run], left[run] + step, top, bottom)


def _rings(cut: _Intervals) -> tuple[Ints, Ints, Ints]:
    """Corners of all rings, where each ring ends among them, and whose mask each is.

    Every interval gives two edges: its top runs right, its bottom runs left, the mask on their right hand (y
    points down). On the line between two columns the ends of their edges, from top to bottom, belong together
    in pairs: between the two of a pair just one of the columns is set. Each pair has an edge that arrives and
    one that leaves, so it says which edge follows which.
    """
    count = cut.x.size
    top, bottom = np.arange(count), np.arange(count, 2 * count)
    # Where two intervals touch at a corner alone, what ends comes before what begins: they stay apart.
    lines = np.concatenate((cut.x, cut.x + 1, cut.x, cut.x + 1))
    ys = np.concatenate((cut.bottom, cut.bottom, cut.top, cut.top))
    edges = np.concatenate((bottom, bottom, top, top))
    leaves = np.repeat(np.array([False, True, True, False]), count)
    span_y, span_x = int(cut.bottom.max()) + 1, int(cut.x.max()) + 2
    keys = (np.tile(cut.mask, 4) * span_x + lines) * span_y + ys
    order = np.argsort(keys, kind="stable")
    one, other = order[0::2], order[1::2]
    arriving = np.where(leaves[one], other, one)
    leaving = np.where(leaves[one], one, other)

    before = edges[arriving]
    following = np.empty(2 * count, dtype=np.int64)
    following[before] = edges[leaving]
    link = np.empty((2 * count, 4), dtype=np.int64)  # x, y, x, y of the corners between an edge and the next
    down = ys[leaving] > ys[arriving]
    x = QUARTERS * lines[arriving] + np.where(down, -1, 1)
    link[before, 0] = link[before, 2] = x
    link[before, 1] = QUARTERS * ys[arriving] + np.where(before < count, 1, -1)
    link[before, 3] = QUARTERS * ys[leaving] + np.where(edges[leaving] < count, 1, -1)

    walked, ends = _walk(following)
    walk = np.array(walked)
    turns = link[walk, 1] != link[walk, 3]  # otherwise the outline goes straight on
    corners = link[walk[turns]].reshape(-1, 2)
    ring_ends = 2 * np.cumsum(turns)[np.array(ends) - 1]
    owners = np.concatenate((cut.mask, cut.mask))[walk[np.array(ends) - 1]]
    return corners, ring_ends, owners


def _walk(following: Ints) -> tuple[list[int], list[int]]:
    """All edges, ring after ring, and where each ring ends."""
    before = np.empty_like(following)
    before[following] = np.arange(following.size)
    tops = following.size // 2
    # At its leftmost point every ring turns from a bottom, which runs left, to a top.
    turning = np.flatnonzero(before[:tops] >= tops)
    after = following.tolist()
    walked: list[int] = []
    ends: list[int] = []
    walk = walked.append
    seen: set[int] = set()
    for first in turning.tolist():
        if first in seen:
            continue
        walk(first)
        edge = after[first]
        while edge != first:
            walk(edge)
            edge = after[edge]
        seen.update(walked[ends[-1] if ends else 0 :])
        ends.append(len(walked))
    return walked, ends


def _doubled_areas(corners: Ints, starts: Ints, ends: Ints) -> Ints:
    """Twice the signed area of every ring (Gauss's shoelace formula): negative for holes."""
    x, y = corners[:, 0], corners[:, 1]
    following = np.arange(1, len(corners) + 1)
    following[ends - 1] = starts
    return np.add.reduceat(x * y[following] - x[following] * y, starts)


def join(rings: Sequence[Ring]) -> Ints:
    """One polygon of several rings: from one to the next leads a bridge of no width, there and back, which
    encloses nothing. Bridges are short, as those of a minimum spanning tree (Prim), unless rings are many.
    """
    if len(rings) == 1:
        return rings[0].corners
    if len(rings) > _SHORT_BRIDGES:
        return _join_in_order(rings)
    largest = max(range(len(rings)), key=lambda index: len(rings[index].corners))
    polygon = rings[largest].corners
    waiting = [ring.corners for index, ring in enumerate(rings) if index != largest]
    nearest = [_nearest(polygon, ring) for ring in waiting]
    while waiting:
        chosen = min(range(len(waiting)), key=lambda index: nearest[index][0])
        ring, (_, at, start) = waiting.pop(chosen), nearest.pop(chosen)
        inserted = np.concatenate((ring[start:], ring[: start + 1], polygon[at : at + 1]))
        polygon = np.concatenate((polygon[: at + 1], inserted, polygon[at + 1 :]))
        moved = len(inserted)
        for index, other in enumerate(waiting):
            distance, place, own = nearest[index]
            fresh = _nearest(ring, other)
            if fresh[0] < distance:
                position = (fresh[1] - start) % len(ring) + at + 1
                nearest[index] = (fresh[0], position, fresh[2])
            elif place > at:
                nearest[index] = (distance, place + moved, own)
    return polygon


def _nearest(one: Ints, other: Ints) -> tuple[int, int, int]:
    """Squared distance of two close corners, and their indices: from one ring to the closest corner of the
    other and back, until it gets no shorter. They need not be the closest of all, for bridges need only be
    short.
    """
    at, distance = 0, -1
    while True:
        start, _ = _closest(other, one[at])
        at, shorter = _closest(one, other[start])
        if shorter == distance:
            return distance, at, start
        distance = shorter


def _closest(ring: Ints, point: Ints) -> tuple[int, int]:
    """Index of the corner closest to a point, and its squared distance."""
    x, y = ring[:, 0] - point[0], ring[:, 1] - point[1]
    squares = x * x + y * y
    index = int(squares.argmin())
    return index, int(squares[index])


def _join_in_order(rings: Sequence[Ring]) -> Ints:
    """All rings from left to right, each bridged to the one before, and the whole way back at the end."""
    ordered = sorted((ring.corners for ring in rings), key=lambda corners: tuple(corners[0]))
    there = [np.concatenate((corners, corners[:1])) for corners in ordered]
    back = [corners[:1] for corners in reversed(ordered[:-1])]
    return np.concatenate([*there, *back])


def parts(rings: Sequence[Ring]) -> list[Ints]:
    """A polygon for each connected part, its holes bridged to it."""
    outer = [ring for ring in rings if not ring.hole]
    if len(outer) == len(rings):
        return [ring.corners for ring in outer]
    members = [[ring] for ring in outer]
    for hole in rings:
        if hole.hole:
            members[_owner(hole, outer)].append(hole)
    return [join(group) for group in members]


def _owner(hole: Ring, outer: Sequence[Ring]) -> int:
    """The smallest outer ring around a hole."""
    around = [index for index, ring in enumerate(outer) if _contains(ring.corners, hole.corners[0])]
    return min(around, key=lambda index: int(np.prod(np.ptp(outer[index].corners, axis=0))), default=0)


def _contains(ring: Ints, point: Ints) -> bool:
    """Whether a point that lies on no line of the ring lies within it (ray casting to the right)."""
    x, y = ring[:, 0], ring[:, 1]
    x_next, y_next = np.roll(x, -1), np.roll(y, -1)
    upright = x == x_next
    crossed = upright & ((y > point[1]) != (y_next > point[1])) & (x > point[0])
    return bool(np.count_nonzero(crossed) % 2)
