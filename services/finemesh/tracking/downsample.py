"""Fewer points that draw the same line.

M4 (Jugel, Jerzak, Hackenbroich, Markl: "M4: A Visualization-Oriented Time Series Data Aggregation", VLDB
2014): equal ranges of steps, of each the first, the last, the smallest and the largest value. A line chart as
wide as the ranges are many shows no difference. A range without points stays empty, so gaps remain, with both
their edges.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from finemesh.tracking.domain import Curve, Floats, Int64s

MIN_POINTS: Final = 10
_POINTS_PER_RANGE: Final = 5  # first, last, smallest, largest, first non-finite


def downsample(curve: Curve, max_points: int) -> Curve:
    """At most `max_points` of a resolved curve, in order. Each range also keeps its first non-finite value.

    `max_points` is at least MIN_POINTS. A curve that fits is returned as it is.
    """
    if max_points < MIN_POINTS:
        raise ValueError(f"max_points is {max_points}: at least {MIN_POINTS} are needed")
    if len(curve) <= max_points:
        return curve
    starts, ends = _ranges(curve.steps, max_points // _POINTS_PER_RANGE)
    finite = np.isfinite(curve.values)
    kept = [
        starts,
        ends - 1,
        _first_smallest(np.where(finite, curve.values, np.inf), starts, ends),
        _first_smallest(np.where(finite, -curve.values, np.inf), starts, ends),
    ]
    if not finite.all():
        kept.append(_first_smallest(finite.astype(np.float64), starts, ends))
    return curve.take(np.unique(np.concatenate(kept)))


def _ranges(steps: Int64s, count: int) -> tuple[Int64s, Int64s]:
    """Bounds `[start, end)`, in points, of up to `count` ranges of equally many steps; no empty ones."""
    span = int(steps[-1]) - int(steps[0]) + 1
    width = -(-span // count)
    changes = np.flatnonzero(np.diff((steps - steps[0]) // width)) + 1
    return np.append(0, changes), np.append(changes, len(steps))


def _first_smallest(values: Floats, starts: Int64s, ends: Int64s) -> Int64s:
    """Per range, the index of the first of its smallest values."""
    smallest = np.minimum.reduceat(values, starts)
    hits = np.flatnonzero(values == np.repeat(smallest, ends - starts))
    return hits[np.searchsorted(hits, starts)]
