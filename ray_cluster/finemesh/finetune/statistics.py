"""Intervals for accuracies whose items come in clusters, such as the frames of one video."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

RESAMPLES: Final = 2000
LEVEL: Final = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its 95% interval."""

    mean: float
    low: float
    high: float

    def named(self, name: str) -> dict[str, float]:
        """The metric `name` with the ends of its interval, `<name>_low` and `<name>_high`."""
        return {name: self.mean, f"{name}_low": self.low, f"{name}_high": self.high}


def clustered_mean(
    values: Sequence[float], groups: Sequence[str], seed: int, weights: Sequence[float] | None = None
) -> Interval:
    """Mean of `values` and its percentile interval by cluster bootstrap.

    Whole groups are drawn with replacement, 2,000 times, since items of one group are alike: an interval over
    single items would be too narrow (Field and Welsh 2007, https://doi.org/10.1111/j.1467-9868.2007.00593.x).

    A single group has no others beside it: then its items are drawn, and the interval speaks of that
    group alone.

    Args:
        values: one per item.
        groups: the group of each item, in the same order.
        seed: of the resampling; equal arguments give equal intervals.
        weights: of the items in the mean, such as the tokens of a loss per token; equal if left out.

    Raises:
        ValueError: no items.
    """
    if not values:
        raise ValueError("the mean of no items")
    alone = len(set(groups)) == 1
    _, group_of_item = np.unique(np.arange(len(values)) if alone else np.asarray(groups), return_inverse=True)
    sizes_of_items = np.ones(len(values)) if weights is None else np.asarray(weights, np.float64)
    sums = np.bincount(group_of_item, weights=sizes_of_items * np.asarray(values, np.float64))
    sizes = np.bincount(group_of_item, weights=sizes_of_items)
    draws = np.random.default_rng(seed).integers(0, len(sums), size=(RESAMPLES, len(sums)))
    means = sums[draws].sum(axis=1) / sizes[draws].sum(axis=1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(sums.sum() / sizes.sum()), float(low), float(high))


def clustered(
    sums_IK: npt.NDArray[np.float64],
    groups: Sequence[str],
    statistic: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]],
    seed: int,
) -> Interval:
    """A statistic of sums over items, with the interval of `clustered_mean`.

    Args:
        sums_IK: the K numbers that each of I items adds to the sums.
        groups: the group of each item, in the same order.
        statistic: sums of R resamples (R, K) -> its values (R,).
        seed: of the resampling; equal arguments give equal intervals.

    Raises:
        ValueError: no items.
    """
    if not len(sums_IK):
        raise ValueError("a statistic of no items")
    alone = len(set(groups)) == 1
    _, group_I = np.unique(np.arange(len(groups)) if alone else np.asarray(groups), return_inverse=True)
    sums_GK = np.zeros((int(group_I.max()) + 1, sums_IK.shape[1]))
    np.add.at(sums_GK, group_I, sums_IK)
    draws_RG = np.random.default_rng(seed).integers(0, len(sums_GK), size=(RESAMPLES, len(sums_GK)))
    times_RG = np.stack([np.bincount(draw, minlength=len(sums_GK)) for draw in draws_RG])
    low, high = np.quantile(statistic(times_RG @ sums_GK), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(statistic(sums_GK.sum(0, keepdims=True))[0]), float(low), float(high))
