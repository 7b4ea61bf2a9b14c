"""Axes, smoothing and alignment against their formulas, summed one by one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from finemesh.core.errors import PreconditionError
from finemesh.tracking.axes import Axis, AxisKind, at_places, check_ascending, grid, placed, smoothed
from finemesh.tracking.domain import Curve
from hypothesis import given
from hypothesis import strategies as st

VALUES = st.one_of(st.floats(-1e6, 1e6), st.sampled_from([math.nan, math.inf, -math.inf]))
STEPS = st.lists(st.integers(0, 10_000), min_size=1, max_size=60, unique=True).map(sorted)


def curve(steps: list[int], values: list[float], times_us: list[int] | None = None) -> Curve:
    times = np.array(times_us or steps, np.int64)
    return Curve(np.array(steps), np.array(values, np.float64), times, np.ones(len(steps), np.int16))


@given(
    points=st.lists(st.tuples(st.floats(0, 1e5), VALUES), min_size=1, max_size=60),
    half_life=st.sampled_from([0.01, 1.0, 7.5, 1e4]),
)
def test_smoothing_is_the_sum_of_its_formula(points: list[tuple[float, float]], half_life: float) -> None:
    points.sort(key=lambda each: each[0])
    places, values = np.array(points).T
    found = smoothed(places, values, half_life)
    for index, mean in enumerate(found):
        before = [(x, y) for x, y in points[: index + 1] if math.isfinite(y)]
        if not before:
            assert math.isnan(mean)
            continue
        # Relative to the last finite place, where one weight is 1: no sum vanishes.
        weights = [2 ** -((before[-1][0] - x) / half_life) for x, _ in before]
        expected = math.fsum(w * y for w, (_, y) in zip(weights, before, strict=True)) / math.fsum(weights)
        scale = max(abs(y) for _, y in before)
        assert mean == pytest.approx(expected, rel=1e-9, abs=1e-9 * scale + 1e-12)


def test_smoothing_in_closed_form() -> None:
    steps = np.arange(2000.0)
    assert smoothed(steps, np.full(2000, 3.5), 5) == pytest.approx(3.5)  # no bias, from the first point on
    decay = 2 ** (-1 / 5)
    impulse = smoothed(steps, (steps == 0).astype(float), 5)
    assert impulse == pytest.approx(decay**steps * (1 - decay) / (1 - decay ** (steps + 1)))
    line = smoothed(steps, steps, 5)  # lags by the mean age of its weights
    assert line[-1] == pytest.approx(1999 - decay / (1 - decay))


@given(steps=STEPS, data=st.data())
def test_a_metric_is_an_axis_by_straight_lines(steps: list[int], data: st.DataObject) -> None:
    known = data.draw(STEPS)
    tokens = sorted(data.draw(st.lists(st.integers(0, 10**9), min_size=len(known), max_size=len(known))))
    measure = curve(known, [float(each) for each in tokens])
    found = placed(curve(steps, [1.0] * len(steps)), Axis(AxisKind.METRIC, "t"), 0, measure)
    inside = [step for step in steps if known[0] <= step <= known[-1]]
    assert found.curve.steps.tolist() == inside
    assert found.left_out == len(steps) - len(inside)
    for step, place in zip(inside, found.places, strict=True):
        right = next(index for index, each in enumerate(known) if each >= step)
        left = right if known[right] == step else right - 1
        share = (step - known[left]) / (known[right] - known[left]) if right != left else 0
        assert place == pytest.approx(tokens[left] + share * (tokens[right] - tokens[left]), rel=1e-12)
    assert np.all(np.diff(found.places) >= 0)


def test_time_stands_still_where_a_clock_was_set_back() -> None:
    times = [5_000_000, 7_000_000, 6_000_000, 9_500_000]
    found = placed(curve([0, 1, 2, 3], [0.0] * 4, times), Axis(AxisKind.TIME), 4_000_000, None)
    assert found.places.tolist() == [1, 3, 3, 5.5]


def test_a_metric_that_falls_is_no_axis() -> None:
    check_ascending(curve([0, 1, 2, 3], [0, 5, math.nan, 5]), "r", "tokens")
    with pytest.raises(PreconditionError, match="falls from 5 at step 1 to 4 at step 3"):
        check_ascending(curve([0, 1, 2, 3], [0, 5, math.nan, 4]), "r", "tokens")


def test_a_run_without_the_metric_has_no_places() -> None:
    found = placed(curve([1, 2], [0.5, 0.25]), Axis(AxisKind.METRIC, "epoch"), 0, None)
    assert (len(found.places), found.left_out) == (0, 2)


def test_aligned_values_lie_on_straight_lines_and_nowhere_else() -> None:
    first, second = np.array([0.0, 4.0]), np.array([2.0, 3.0, 3.0, 6.0, 7.0])
    shared = grid([first, second, np.zeros(0)], 8)
    assert shared.tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    ours = at_places(shared, first, np.array([0.0, 8.0]))
    assert ours.tolist()[:5] == [0, 2, 4, 6, 8]
    assert np.isnan(ours[5:]).all()
    values = np.array([1.0, 9.0, 2.0, 5.0, math.inf])
    theirs = at_places(shared, second, values)  # of two values at one place the last one counts
    assert theirs[2:7].tolist() == [1, 2, 3, 4, 5]
    assert np.isnan(theirs[[0, 1, 7]]).all()
