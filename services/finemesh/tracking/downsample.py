"""Fewer points that draw the same line.

M4 (Jugel, Jerzak, Hackenbroich, Markl: "M4: A Visualization-Oriented Time Series Data Aggregation", VLDB
2014): equal ranges of steps, of each the first, the last, the smallest and the largest value. A line chart as
wide as the ranges are many shows no difference. A range without points stays empty, so gaps remain, with both
their edges.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from finemesh.tracking.domain import Curve, Int64s

MIN_POINTS: Final = 10
_POINTS_PER_RANGE: Final = 5  # first, last, smallest, largest, first non-finite


@dataclass(frozen=True, slots=True)
class Ranges:
    """Equal ranges of steps: from `first` on, `width` steps each."""

    first: int
    width: int

    @classmethod
    def between(cls, first: int, last: int, max_points: int) -> Ranges:
        """Ranges from step `first` to `last` whose kept points are at most `max_points`.

        Raises ValueError for fewer than MIN_POINTS.
        """
        if max_points < MIN_POINTS:
            raise ValueError(f"max_points is {max_points}: at least {MIN_POINTS} are needed")
        return cls(first, -(-(last - first + 1) // (max_points // _POINTS_PER_RANGE)))


def downsample(curve: Curve, max_points: int) -> Curve:
    """At most `max_points` of a resolved curve, in order. Each range also keeps its first non-finite value.

    `max_points` is at least MIN_POINTS. A curve that fits is returned as it is.
    """
    ends = (int(curve.steps[0]), int(curve.steps[-1])) if len(curve) else (0, 0)
    ranges = Ranges.between(*ends, max_points)
    return curve if len(curve) <= max_points else thinned(curve, ranges)


def thinned(curve: Curve, ranges: Ranges) -> Curve:
    """Of each range the points that draw it. `curve` has at least one point; no step lies before them."""
    edges = np.arange(ranges.first, int(curve.steps[-1]) + 1, ranges.width)
    starts = _ascending(np.searchsorted(curve.steps, edges))
    ends = np.append(starts[1:], len(curve))
    finite = np.isfinite(curve.values)
    if finite.all():
        highest, lowest = curve.values, curve.values
    else:
        highest, lowest = np.where(finite, curve.values, -np.inf), np.where(finite, curve.values, np.inf)
    kept = [
        starts,
        ends - 1,
        _first_equal(lowest, np.minimum.reduceat(lowest, starts), starts, ends),
        _first_equal(highest, np.maximum.reduceat(highest, starts), starts, ends),
    ]
    if not finite.all():
        kept.append(_first_equal(finite, np.logical_and.reduceat(finite, starts), starts, ends))
    return curve.take(_ascending(np.sort(np.concatenate(kept))))


def _ascending(indices: Int64s) -> Int64s:
    """Those of an ordered column, each once."""
    return indices[np.append(True, indices[1:] > indices[:-1])]


def _first_equal(values: npt.NDArray[Any], wanted: npt.NDArray[Any], starts: Int64s, ends: Int64s) -> Int64s:
    """Per range, the index of the first value that is the one wanted of it."""
    hits = np.flatnonzero(values == np.repeat(wanted, ends - starts))
    return hits[np.searchsorted(hits, starts)]
