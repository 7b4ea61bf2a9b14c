"""Intervals that cover and claims that hold, against closed forms, scipy and enumeration."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from finemesh.tracking.statistics import (
    LEVEL,
    POWER,
    Difference,
    Floats,
    Sample,
    differences,
    holm,
    items_needed,
)
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

TRIALS = 250
# Of a share of 0.05 among so many trials, 1 in 1,000 is further off than this.
SLACK = 3.1 * math.sqrt(0.05 * 0.95 / TRIALS)


def sample(values_IS: Floats, groups: Sequence[Sequence[int]] = ((0,), (1,)), per_cluster: int = 1) -> Sample:
    items = len(values_IS)
    return Sample(values_IS, np.ones(items), np.arange(items) // per_cluster, groups)


def shares(draw: Callable[[np.random.Generator], Sample], truth: float = 0.0) -> tuple[float, float]:
    """How often a claim is made, and how often the first interval holds `truth`."""
    rng = np.random.default_rng(5)
    found = [differences(draw(rng), seed=trial, resamples=400) for trial in range(TRIALS)]
    claims = sum(any(each.is_real for each in pairs) for pairs in found)
    return claims / TRIALS, sum(pairs[0].low <= truth <= pairs[0].high for pairs in found) / TRIALS


@pytest.mark.parametrize("items", [8, 40, 2000])
def test_normal_differences_have_the_interval_and_the_p_value_of_student(items: int) -> None:
    values_IS = np.random.default_rng(items).normal(size=(items, 2)) + [3 / math.sqrt(items), 0]
    [found] = differences(sample(values_IS), resamples=20_000)
    closed = stats.ttest_rel(*values_IS.T)
    low, high = closed.confidence_interval(LEVEL)
    assert found.estimate == pytest.approx(values_IS[:, 0].mean() - values_IS[:, 1].mean())
    assert found.item_error == pytest.approx(stats.sem(values_IS[:, 0] - values_IS[:, 1]))
    # A sample of 8 is not normal itself: its bootstrap is not quite Student's.
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.09 * (high - low))
    assert found.p_value == pytest.approx(closed.pvalue, abs=0.02)


def test_skewed_losses_have_the_interval_of_scipys_paired_bootstrap() -> None:
    rng = np.random.default_rng(1)
    one_I, other_I = rng.lognormal(sigma=0.7, size=(2, 300))
    [found] = differences(sample(np.stack([one_I, other_I], axis=1)), resamples=20_000)
    reference = stats.bootstrap(
        (one_I, other_I),
        lambda one, other, axis: (one - other).mean(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=5_000,
        batch=500,
        method="percentile",
        rng=rng,
    ).confidence_interval
    width = reference.high - reference.low
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high), abs=0.03 * width)


def test_a_p_value_is_never_below_that_of_all_exchanges() -> None:
    """Nine answers of ten differ not at all: where a bootstrap alone would claim too much."""
    right_IS = np.zeros((60, 2))
    right_IS[:5, 0] = 1
    [found] = differences(sample(right_IS), resamples=40_000)
    exact = stats.permutation_test((right_IS[:5, 0],), np.mean, permutation_type="samples").pvalue
    assert exact == 2 / 2**5
    assert found.p_value == pytest.approx(exact, abs=0.005)
    assert not found.is_real


def test_intervals_cover_and_claims_are_rare_where_models_are_alike() -> None:
    claims, covered = shares(lambda rng: sample(rng.normal(size=(25, 2))))
    assert claims <= 0.05 + SLACK
    assert abs(covered - LEVEL) <= SLACK


def test_frames_of_one_video_count_as_one() -> None:
    def draw(rng: np.random.Generator) -> Sample:
        values_IS = np.repeat(rng.normal(size=(20, 2)), 6, axis=0) + 0.2 * rng.normal(size=(120, 2))
        weights_I = rng.integers(1, 9, 120).astype(np.float64)
        return Sample(values_IS, weights_I, np.arange(120) // 6, ((0,), (1,)))

    claims, covered = shares(draw)
    assert claims <= 0.05 + SLACK
    assert abs(covered - LEVEL) <= SLACK + 0.01  # a mean of unequal clusters is nearly normal, not quite


def test_of_five_equal_models_none_is_said_to_be_better() -> None:
    groups = [(index,) for index in range(5)]
    claims, _ = shares(lambda rng: sample(rng.normal(size=(40, 1)) + rng.normal(size=(40, 5)), groups))
    assert claims <= 0.05 + SLACK


def test_seeds_are_noise_that_more_items_do_not_take_away() -> None:
    def draw(rng: np.random.Generator) -> Sample:
        values_IS = rng.normal(size=(80, 1)) + 0.3 * rng.normal(size=6) + 0.5 * rng.normal(size=(80, 6))
        return sample(values_IS, ((0, 1, 2), (3, 4, 5)))

    claims, covered = shares(draw)
    assert claims <= 0.05 + SLACK
    assert covered >= LEVEL - SLACK


def test_as_many_items_as_it_asks_for_show_the_difference_as_often_as_it_says() -> None:
    """200 items with a true difference of 0.1 and a spread of 1: what is missing is added, and tested."""
    more = items_needed(200, 0.1, 1 / math.sqrt(200), 0.0, 1 - LEVEL)
    closed = (stats.norm.ppf(0.975) + stats.norm.ppf(POWER)) ** 2 / 0.1**2
    assert 200 + more == math.ceil(closed)
    rng = np.random.default_rng(2)
    spread = 1 / math.sqrt(2)  # of each of two, so that the difference has 1
    found = [
        differences(sample(rng.normal(size=(200 + more, 2)) * spread + [0.1, 0]), seed=n, resamples=300)[0]
        for n in range(150)
    ]
    assert sum(each.is_real for each in found) / 150 == pytest.approx(POWER, abs=0.1)


def test_where_seeds_differ_more_than_models_no_number_of_items_helps() -> None:
    assert items_needed(100, 0.1, 0.05, 0.2, 0.05) == -1
    assert items_needed(100, 0.0, 0.05, 0.0, 0.05) == -1


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_the_step_down_procedure(p_values: list[float]) -> None:
    """Rejected at a level: the smallest while each is at most the level over the number of those left."""
    for level in (0.05, 0.3):
        rejected: set[int] = set()
        for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
            if (len(p_values) - rank) * p_values[index] >= level:
                break
            rejected.add(index)
        assert {index for index, each in enumerate(holm(p_values)) if each < level} == rejected


@given(st.integers(2, 30), st.integers(2, 4), st.integers(0, 2**32))
def test_what_holds_of_any_sample(items: int, runs: int, seed: int) -> None:
    """Exchanged runs change signs alone, a shift of all values changes nothing, and equal runs are equal."""
    values_IS = np.random.default_rng(seed).normal(size=(items, runs)).round(1)
    groups = [(index,) for index in range(runs)]
    found = differences(sample(values_IS, groups), seed=1, resamples=200)
    shifted = differences(sample(values_IS + 100, groups), seed=1, resamples=200)
    again = differences(sample(values_IS, groups), seed=1, resamples=200)
    assert found == again
    for one, other in zip(found, shifted, strict=True):
        assert _figures(one) == pytest.approx(_figures(other), abs=1e-6)
        assert one.low <= one.high
        assert 0 < one.p_value <= one.adjusted_p_value <= 1
    [same] = differences(sample(values_IS[:, [0, 0]]), resamples=200)
    assert (same.estimate, same.low, same.high, same.p_value, same.items_needed) == (0, 0, 0, 1, -1)


def _figures(found: Difference) -> tuple[float, ...]:
    return found.estimate, found.low, found.high, found.item_error
