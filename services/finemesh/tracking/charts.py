"""Curves of many runs over an axis that they share, smoothed where that is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from finemesh.chassis.auth import Principal, Role
from finemesh.core.errors import InvalidError, ResourceExhaustedError
from finemesh.tracking.axes import STEPS, Axis, AxisKind, at_places, check_ascending, grid, placed, smoothed
from finemesh.tracking.curves import between
from finemesh.tracking.domain import Curve, Floats, Series, resolve
from finemesh.tracking.downsample import downsample
from finemesh.tracking.point_reads import Snapshot
from finemesh.tracking.ports import PointReader, RunStore
from finemesh.tracking.service import DEFAULT_CURVE_POINTS, MAX_RESPONSE_POINTS, CurveQuery

MAX_ALIGNED_POINTS: Final = 10_000
# Of one run, read whole: about 260 MB while it is being sorted into curves.
_MAX_RUN_POINTS: Final = 4_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartQuery(CurveQuery):
    """Which curves, over what. `half_life` 0 means not smoothed; `aligned_points` 0 means not aligned."""

    axis: Axis = STEPS
    half_life: float = 0.0
    aligned_points: int = 0

    @property
    def is_plain(self) -> bool:
        """Whether curves alone are asked for."""
        return self.axis.kind is AxisKind.STEP and not self.half_life and not self.aligned_points

    def check(self) -> None:
        """Raises InvalidError naming the field."""
        CurveQuery.check(self)
        if (self.axis.kind is AxisKind.METRIC) != bool(self.axis.metric):
            raise InvalidError.of("axis_metric", "belongs to AXIS_METRIC: give both, or neither")
        if not 0 <= self.half_life < np.inf:
            raise InvalidError.of("half_life", "must be positive, along the axis, or 0 for no smoothing")
        if self.aligned_points and not 2 <= self.aligned_points <= MAX_ALIGNED_POINTS:
            raise InvalidError.of("aligned_points", f"use 2 to {MAX_ALIGNED_POINTS}, or 0 for none")


@dataclass(frozen=True, slots=True, eq=False)
class ChartSeries:
    """A series, where its points lie, and beside its values the smoothed ones, if asked for.

    One that is aligned has values alone, at places that all share. `left_out` counts points without a place.
    """

    series: Series
    places: Floats
    smoothed: Floats | None
    left_out: int


class Charts:
    """Reads through the projects of its caller."""

    def __init__(self, store: RunStore, points: PointReader) -> None:
        self._store = store
        self._points = points

    async def query(self, principal: Principal, project: str, query: ChartQuery) -> list[ChartSeries]:
        """One series per run and metric with points. Raises ResourceExhaustedError, PreconditionError."""
        principal.require_role(Role.VIEWER)
        principal.require_project(project)
        query.check()
        await self._store.get(principal, query.runs)
        found = await asyncio.to_thread(self._drawn, query)
        if sum(len(each.places) for each in found) > MAX_RESPONSE_POINTS:
            raise ResourceExhaustedError(
                f"more than {MAX_RESPONSE_POINTS} points: ask for fewer runs, keys or points of each",
                reason="TOO_MANY_POINTS",
            )
        return found

    def _drawn(self, query: ChartQuery) -> list[ChartSeries]:
        with self._points.snapshot() as snapshot:
            found = [each for run in query.runs for each in _of_run(snapshot, str(run), query)]
        if not query.aligned_points:
            return [_thinner(each, query.max_points or DEFAULT_CURVE_POINTS) for each in found]
        shared = grid([each.places for each in found], query.aligned_points)
        return [_aligned(each, shared) for each in found]


def _of_run(snapshot: Snapshot, run: str, query: ChartQuery) -> Iterator[ChartSeries]:
    """Whole curves of a run, by key: what lies before the range that is asked for counts in a mean."""
    keys = [*query.keys, query.axis.metric] if query.keys and query.axis.metric else query.keys or None
    read = snapshot.curves([run], keys, at_most=_MAX_RUN_POINTS)
    if read is None:
        raise ResourceExhaustedError(
            f"{run} has more than {_MAX_RUN_POINTS} points of these metrics: name fewer keys",
            reason="TOO_MANY_POINTS",
        )
    curves = {key: resolve(curve) for key, curve in sorted(read.get(run, {}).items())}
    measure = curves.get(query.axis.metric)
    if measure is not None:
        check_ascending(measure, run, query.axis.metric)
    start_us = snapshot.starts([run]).get(run, 0) if query.axis.kind is AxisKind.TIME else 0
    thinned = snapshot.thinned([run]).get(run, 0)
    for key, curve in curves.items():
        if not query.keys or key in query.keys:
            made = _series(Series(run, key, curve, len(curve), thinned), start_us, measure, query)
            if len(made.places) or made.left_out:
                yield made


def _series(series: Series, start_us: int, measure: Curve | None, query: ChartQuery) -> ChartSeries:
    whole = placed(series.curve, query.axis, start_us, measure)
    means = smoothed(whole.places, whole.curve.values, query.half_life) if query.half_life else None
    curve = between(whole.curve, query.min_step, query.max_step)
    kept = _indices(whole.curve, curve)
    series = replace(series, curve=curve, total_points=len(curve))
    return ChartSeries(series, whole.places[kept], None if means is None else means[kept], whole.left_out)


def _thinner(whole: ChartSeries, max_points: int) -> ChartSeries:
    curve = whole.series.curve
    drawn = downsample(curve, max_points)
    kept = _indices(curve, drawn)
    means = None if whole.smoothed is None else whole.smoothed[kept]
    return replace(
        whole, series=replace(whole.series, curve=drawn), places=whole.places[kept], smoothed=means
    )


def _aligned(whole: ChartSeries, shared: Floats) -> ChartSeries:
    curve = whole.series.curve
    none = np.zeros(0, np.int64)
    values = at_places(shared, whole.places, curve.values)
    series = replace(whole.series, curve=Curve(none, values, none, none.astype(np.int16)))
    means = None if whole.smoothed is None else at_places(shared, whole.places, whole.smoothed)
    return replace(whole, series=series, places=shared, smoothed=means)


def _indices(curve: Curve, part: Curve) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Where the points of a part of a resolved curve are in it."""
    return np.searchsorted(curve.steps, part.steps)
