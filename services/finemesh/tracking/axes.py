"""Where the points of a curve lie on an axis, smoothing along it, and curves on places that they share.

Smoothing is the mean of the values so far, with weights that halve every `half_life` along the axis:

    smoothed_i = sum_{j <= i} 2^(-(x_i - x_j)/h) y_j  /  sum_{j <= i} 2^(-(x_i - x_j)/h)

over the finite values y at the places x. The division corrects the bias towards zero at the start (Kingma
and Ba 2015, https://arxiv.org/abs/1412.6980, section 3); for equal distances it is the debiased moving
average with the weight 2^(-distance/h). Beside a value that is not finite stands the mean so far, NaN if
there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np

from finemesh.core.errors import PreconditionError
from finemesh.tracking.domain import Curve, Floats

# A block of smoothing spans at most so many half lives: its weights then are far from overflow.
_BLOCK_HALF_LIVES: Final = 256


class AxisKind(StrEnum):
    STEP = "STEP"
    TIME = "TIME"
    METRIC = "METRIC"


@dataclass(frozen=True, slots=True)
class Axis:
    """What curves are drawn over; `metric` is the one of METRIC."""

    kind: AxisKind = AxisKind.STEP
    metric: str = ""


STEPS: Final = Axis()


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """A resolved curve and where each of its points lies, in ascending order.

    Attributes:
        left_out: points of the curve that have no place.
    """

    curve: Curve
    places: Floats
    left_out: int = 0


def placed(curve: Curve, axis: Axis, start_us: int, measure: Curve | None) -> Placed:
    """A resolved curve on an axis.

    TIME: seconds since `start_us`; where a clock was set back, time stands still. METRIC: `measure`, a
    resolved curve, by straight lines between its finite values; points before its first and behind its last
    have no place.
    """
    match axis.kind:
        case AxisKind.STEP:
            return Placed(curve, curve.steps.astype(np.float64))
        case AxisKind.TIME:
            return Placed(curve, np.maximum.accumulate((curve.times_us - start_us) / 1e6))
        case AxisKind.METRIC:
            return _measured(curve, measure)


def check_ascending(measure: Curve, run: str, key: str) -> None:
    """Raises PreconditionError, reason AXIS_NOT_ASCENDING: such a metric gives a point no one place."""
    finite = np.isfinite(measure.values)
    steps, values = measure.steps[finite], measure.values[finite]
    falls = np.flatnonzero(np.diff(values) < 0)
    if len(falls):
        at = int(falls[0])
        raise PreconditionError(
            f"{key} of {run} falls from {values[at]:g} at step {steps[at]} to {values[at + 1]:g} at step"
            f" {steps[at + 1]}, so it cannot be an axis: choose a metric that only grows, or steps or time",
            reason="AXIS_NOT_ASCENDING",
        )


def _measured(curve: Curve, measure: Curve | None) -> Placed:
    finite = np.isfinite(measure.values) if measure is not None else np.zeros(0, np.bool_)
    if measure is None or not finite.any():
        return Placed(curve.take(slice(0, 0)), np.zeros(0), len(curve))
    steps, values = measure.steps[finite], measure.values[finite]
    start = int(np.searchsorted(curve.steps, steps[0], side="left"))
    end = int(np.searchsorted(curve.steps, steps[-1], side="right"))
    inside = curve.take(slice(start, end))
    return Placed(inside, np.interp(inside.steps, steps, values), len(curve) - len(inside))


def smoothed(places: Floats, values: Floats, half_life: float) -> Floats:
    """The smoothed values, by the formula above. `places` ascend."""
    finite = np.isfinite(values)
    if not finite.any():
        return np.full(len(values), np.nan)
    means = _smoothed_finite(places[finite], values[finite], half_life)
    before = np.cumsum(finite) - 1
    return np.where(before >= 0, means[np.maximum(before, 0)], np.nan)


def _smoothed_finite(places: Floats, values: Floats, half_life: float) -> Floats:
    """Block by block: within one, weights are relative to its start, so that sums run over all of it."""
    means = np.empty(len(values))
    total, weight, at = 0.0, 0.0, float(places[0])  # of the points before, as of the place `at`
    start = 0
    while start < len(values):
        first = float(places[start])
        reach = first + _BLOCK_HALF_LIVES * half_life
        end = max(start + 1, int(np.searchsorted(places, reach, side="right")))
        block = slice(start, end)
        fading = 2.0 ** -((first - at) / half_life)
        growth = 2.0 ** ((places[block] - first) / half_life)
        totals = total * fading + np.cumsum(values[block] * growth)
        weights = weight * fading + np.cumsum(growth)
        means[block] = totals / weights
        total, weight, at = totals[-1] / growth[-1], weights[-1] / growth[-1], float(places[end - 1])
        start = end
    return means


def grid(curves: Sequence[Floats], count: int) -> Floats:
    """`count` equally spaced places from the first to the last of all curves; none if there are no points."""
    ends = [(places[0], places[-1]) for places in curves if len(places)]
    if not ends:
        return np.zeros(0)
    return np.linspace(min(first for first, _ in ends), max(last for _, last in ends), count)


def at_places(wanted: Floats, places: Floats, values: Floats) -> Floats:
    """Values at `wanted` places, by straight lines; of several values at one place the last counts.

    NaN before the first and behind the last place, and beside a value that is not finite.
    """
    if not len(places):
        return np.full(len(wanted), np.nan)
    is_last = np.append(np.diff(places) > 0, True)
    finite = np.where(np.isfinite(values), values, np.nan)
    return np.interp(wanted, places[is_last], finite[is_last], left=np.nan, right=np.nan)
