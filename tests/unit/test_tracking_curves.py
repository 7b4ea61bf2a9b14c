"""Resolving attempts and drawing a curve with fewer points, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from finemesh.tracking.curves import series_of
from finemesh.tracking.domain import Curve, resolve
from finemesh.tracking.downsample import MIN_POINTS, downsample
from hypothesis import given
from hypothesis import strategies as st


def curve(steps: list[int], values: list[float] | None = None, attempts: list[int] | None = None) -> Curve:
    return Curve(
        np.array(steps, np.int64),
        np.array(values if values is not None else steps, np.float64),
        np.array(steps, np.int64) * 1000,
        np.array(attempts or [1] * len(steps), np.int16),
    )


def test_a_step_of_several_attempts_shows_the_latest_one() -> None:
    # Attempt 1 came to step 5 and was killed; attempt 2 resumed from the checkpoint at step 3.
    raw = curve([1, 2, 3, 4, 5, 4, 5, 6], [1, 2, 3, 4, 5, 40, 50, 60], [1, 1, 1, 1, 1, 2, 2, 2])
    resolved = resolve(raw)
    assert resolved.steps.tolist() == [1, 2, 3, 4, 5, 6]
    assert resolved.values.tolist() == [1, 2, 3, 40, 50, 60]
    assert resolved.attempts.tolist() == [1, 1, 1, 2, 2, 2]


def test_an_old_attempts_late_points_do_not_replace_newer_ones() -> None:
    raw = curve([1, 2, 2, 1], [10, 20, 2, 1], [2, 2, 1, 1])
    assert resolve(raw).values.tolist() == [10, 20]


def test_within_an_attempt_the_last_value_of_a_step_counts() -> None:
    assert resolve(curve([1, 1, 2], [7, 8, 9])).values.tolist() == [8, 9]


def test_a_curve_that_fits_is_left_alone() -> None:
    whole = curve(list(range(100)))
    assert downsample(whole, 100) is whole


def test_a_line_keeps_its_ends_and_a_spike_its_height() -> None:
    values = np.zeros(10_000)
    values[4321], values[1234] = 1.0, -1.0
    drawn = downsample(curve(list(range(10_000)), values.tolist()), 50)
    assert len(drawn) <= 50
    assert (drawn.steps[0], drawn.steps[-1]) == (0, 9999)
    assert drawn.steps[drawn.values == 1.0].tolist() == [4321]
    assert drawn.steps[drawn.values == -1.0].tolist() == [1234]


def test_a_gap_keeps_both_its_edges_and_stays_empty() -> None:
    steps = [*range(2_500), *range(7_500, 10_000)]
    drawn = downsample(curve(steps), 100)
    before, after = drawn.steps[drawn.steps < 5_000], drawn.steps[drawn.steps > 5_000]
    assert (before[-1], after[0]) == (2_499, 7_500)


def test_non_finite_values_stay_visible() -> None:
    values = np.arange(1_000.0)
    values[[100, 500]] = np.nan, np.inf
    drawn = downsample(curve(list(range(1_000)), values.tolist()), 20)
    assert {100, 500} <= set(drawn.steps.tolist())
    assert drawn.values[np.isfinite(drawn.values)].max() == 999


@given(
    steps=st.lists(st.integers(0, 2**53), unique=True, min_size=1, max_size=400),
    seed=st.integers(0, 2**32),
    max_points=st.integers(MIN_POINTS, 60),
)
def test_any_curve_is_bounded_and_keeps_its_ends_and_extremes(
    steps: list[int], seed: int, max_points: int
) -> None:
    values = np.random.default_rng(seed).choice([0.0, 1.0, -3.5, np.nan, np.inf, -np.inf], len(steps))
    whole = curve(sorted(steps), values.tolist())
    drawn = downsample(whole, max_points)
    assert len(drawn) <= max_points
    assert np.all(np.diff(drawn.steps) > 0)
    assert (drawn.steps[0], drawn.steps[-1]) == (whole.steps[0], whole.steps[-1])
    source = dict(zip(whole.steps.tolist(), whole.values.tolist(), strict=True))
    for step, value in zip(drawn.steps.tolist(), drawn.values.tolist(), strict=True):
        assert np.array_equal([source[step]], [value], equal_nan=True)
    finite, kept = values[np.isfinite(values)], drawn.values[np.isfinite(drawn.values)]
    if len(finite):
        assert (kept.min(), kept.max()) == (finite.min(), finite.max())


def test_too_few_points_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 10"):
        downsample(curve([1, 2]), 3)


def test_a_range_of_steps_includes_both_its_ends() -> None:
    [series] = series_of("r", {"a": curve(list(range(100)))}, max_points=1000, min_step=10, max_step=20)
    assert series.curve.steps.tolist() == list(range(10, 21))
    assert series.total_points == 11
    assert series_of("r", {"a": curve([1, 2])}, min_step=5) == []
