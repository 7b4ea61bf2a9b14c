"""From stored points to series that can be sent: resolved, cut to a range of steps, downsampled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from finemesh.tracking.domain import MAX_STEP, Curve, Series, joined, resolve
from finemesh.tracking.downsample import Ranges, downsample, thinned
from finemesh.tracking.point_reads import MAX_READ_POINTS, Snapshot
from finemesh.tracking.ports import PointReader

MAX_MESSAGE_POINTS: Final = 50_000


def series_of(
    run: str,
    curves: Mapping[str, Curve],
    *,
    max_points: int | None = None,
    min_step: int = 0,
    max_step: int = 0,
) -> list[Series]:
    """One series per metric that has points from `min_step` up to `max_step` (0: no limit), by key."""
    found: list[Series] = []
    for key in sorted(curves):
        curve = between(resolve(curves[key]), min_step, max_step)
        if len(curve):
            drawn = curve if max_points is None else downsample(curve, max_points)
            found.append(Series(run, key, drawn, len(curve)))
    return found


def drawn(
    points: PointReader,
    runs: Sequence[str],
    keys: Sequence[str] | None,
    *,
    max_points: int,
    min_step: int = 0,
    max_step: int = 0,
) -> list[Series]:
    """The same for many runs, in their order, with as many points in memory at once as MAX_READ_POINTS.

    Blocks: call it in a thread. Raises UnavailableError.
    """
    first, last = min_step, max_step or MAX_STEP
    with points.snapshot() as snapshot:
        left_out = snapshot.thinned(runs)

        def of_group(group: Sequence[str]) -> list[Series] | None:
            curves = snapshot.curves(group, keys, first, last, at_most=MAX_READ_POINTS)
            if curves is None:
                return None
            return [s for run in group for s in series_of(run, curves.get(run, {}), max_points=max_points)]

        found = of_group(runs)
        if found is None:
            found = []
            for group in _together(runs, snapshot.sizes(runs, keys, first, last)):
                of_one = of_group(group)
                found += of_one or _of_long_run(snapshot, group[0], keys, max_points, first, last)
        return [replace(series, thinned_points=left_out.get(series.run, 0)) for series in found]


def _together(runs: Sequence[str], sizes: Mapping[str, int]) -> Iterator[list[str]]:
    """Runs in groups that can be read at once; one that is too large for that is alone."""
    group: list[str] = []
    points = 0
    for run in runs:
        if group and points + sizes.get(run, 0) > MAX_READ_POINTS:
            yield group
            group, points = [], 0
        group.append(run)
        points += sizes.get(run, 0)
    if group:
        yield group


def _of_long_run(
    snapshot: Snapshot, run: str, keys: Sequence[str] | None, max_points: int, first: int, last: int
) -> list[Series]:
    """A metric at a time, of a long one some ranges at a time: what `series_of` would give."""
    found: list[Series] = []
    for key, extent in snapshot.extents(run, keys, first, last).items():
        ranges = Ranges.between(extent.first_step, extent.last_step, max_points)
        span = extent.last_step - extent.first_step + 1
        parts = -(-extent.points // MAX_READ_POINTS)
        window = -(-span // parts // ranges.width) * ranges.width
        pieces: list[Curve] = []
        total = 0
        for start in range(extent.first_step, extent.last_step + 1, window):
            end = min(start + window - 1, extent.last_step)
            curve = snapshot.read(run, [key], start, end).get(key)
            if curve is not None:
                pieces.append(resolve(curve))
                total += len(pieces[-1])
                if total > max_points:
                    pieces = [thinned(piece, ranges) for piece in pieces]
        found.append(Series(run, key, joined(pieces), total))
    return found


def in_messages(series: Series) -> Iterator[Series]:
    """A series in parts that fit into a message."""
    for start in range(0, len(series.curve), MAX_MESSAGE_POINTS):
        part = series.curve.take(slice(start, start + MAX_MESSAGE_POINTS))
        yield Series(series.run, series.key, part, len(part))


def between(curve: Curve, min_step: int, max_step: int) -> Curve:
    """The points of a resolved curve from `min_step` up to `max_step` (0: no limit)."""
    start = int(np.searchsorted(curve.steps, min_step, side="left"))
    end = int(np.searchsorted(curve.steps, max_step, side="right")) if max_step else len(curve)
    return curve.take(slice(start, end))
