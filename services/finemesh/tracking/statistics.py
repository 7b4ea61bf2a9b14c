"""Whether a difference between models is more than noise, from their values on the same items.

Two sources of noise are kept apart. *Items*: another evaluation set would have given other means. Whole
clusters of items (the frames of a video) are drawn with replacement, the same for all models, so that what
makes an item hard cancels in the difference (paired cluster bootstrap; Field and Welsh 2007,
https://doi.org/10.1111/j.1467-9868.2007.00593.x). *Seeds*: another seed would have given another model. That
shows only where runs differ in nothing else; its variance is pooled over all groups of such runs.

The distribution of a difference of two groups of runs is, per resample,

    difference + item deviation * sqrt(G / (G - 1)) * sqrt(v / chi2(v)) + seed error * t(w)

with G clusters, v = G - 1, w degrees of freedom of the pooled variance of seeds. The factors make of the
bootstrap, whose intervals are too narrow for few clusters (Hesterberg 2015, https://arxiv.org/abs/1411.5279),
the interval of Student's t where values are normal. A p-value is twice the smaller share beyond zero, or
that of flipping signs of whole clusters at random (exact where two models are alike but for chance), the
larger of both: the first is too bold where models differ on few items, the second knows nothing of seeds.

Shape legend: I items, G clusters, S runs, K groups of runs, R resamples, P pairs of groups.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np
import numpy.typing as npt

LEVEL: Final = 0.95
POWER: Final = 0.8
RESAMPLES: Final = 10_000
_FEWEST_RESAMPLES: Final = 2_000
_MOST_DRAWS: Final = 1_000_000_000  # clusters x resamples x groups
_CHUNK_CLUSTERS: Final = 160_000  # drawn at a time: what fits into a cache
_NORMAL: Final = NormalDist()

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Sample:
    """Values of runs on the items that all of them have.

    Attributes:
        values_IS: one row per item, one column per run.
        weights_I: of the items in the mean, such as the tokens of a loss per token.
        clusters_I: which items belong together, numbered from 0.
        groups: per group, the columns of its runs; they differ only in their seed.
    """

    values_IS: Floats
    weights_I: Floats
    clusters_I: Ints
    groups: Sequence[Sequence[int]]

    @property
    def run_means(self) -> Floats:
        """Mean of each run over the items."""
        return self.weights_I @ self.values_IS / self.weights_I.sum()

    @property
    def group_means(self) -> Floats:
        """Mean of each group: of its runs."""
        return np.array([self.run_means[list(columns)].mean() for columns in self.groups])


@dataclass(frozen=True, slots=True)
class Difference:
    """One group of runs against another.

    Attributes:
        first, second: indices of the groups.
        estimate: mean of the first less mean of the second.
        low, high: 95% interval of it, not corrected for other pairs.
        p_value: of there being no difference.
        adjusted_p_value: by Holm, for all pairs that were compared.
        item_error, seed_error: standard errors by the items and by the seeds; the second is 0 where no
            group has two runs, and then the interval speaks of these runs alone.
        items_needed: about how many more items would show a difference as large as this one with a
            probability of `POWER`; 0 where it is shown already, -1 where no number of items would.
        detectable: the smallest difference that these items and seeds would show with that probability.
    """

    first: int
    second: int
    estimate: float
    low: float
    high: float
    p_value: float
    adjusted_p_value: float
    item_error: float
    seed_error: float
    items_needed: int
    detectable: float

    @property
    def is_real(self) -> bool:
        return self.adjusted_p_value < 1 - LEVEL


@dataclass(frozen=True, slots=True)
class _Pair:
    """A difference before it is known what else was compared."""

    first: int
    second: int
    estimate: float
    low: float
    high: float
    p_value: float
    item_error: float
    seed_error: float


def differences(sample: Sample, *, seed: int = 0, resamples: int = 0) -> list[Difference]:
    """Every pair of groups, in the order of their indices. Equal arguments give equal answers.

    Args:
        sample: two groups or more, on two items or more.
        seed: of the resampling.
        resamples: 0 for `resamples_of(sample)`.

    Raises:
        ValueError: fewer than two groups or items.
    """
    if len(sample.groups) < 2 or len(sample.weights_I) < 2:
        raise ValueError("differences need two groups and two items")
    sums_GK, weights_G = _clusters(sample)
    count = resamples or resamples_of(sample)
    rng = np.random.default_rng(seed)
    residuals_GK = sums_GK - sample.group_means * weights_G[:, None]
    deviations_RK = _resampled(residuals_GK, weights_G, count, rng)
    flips_RK = _flipped(sums_GK, count, rng)
    seeds = _Seeds.of(sample)
    noise_R = rng.standard_t(seeds.freedom, count) if seeds.freedom else np.zeros(count)
    pairs = [
        _pair(sample, first, second, residuals_GK, weights_G, deviations_RK, flips_RK, seeds, noise_R)
        for first, second in itertools.combinations(range(len(sample.groups)), 2)
    ]
    return _corrected(pairs, len(sample.weights_I))


def resamples_of(sample: Sample) -> int:
    """How often to draw: 10,000 times, or fewer (never below 2,000) where there is much to draw."""
    work = len(sample.weights_I) * len(sample.groups)
    return int(np.clip(_MOST_DRAWS // work, _FEWEST_RESAMPLES, RESAMPLES))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for their number (Holm 1979, https://www.jstor.org/stable/4615733)."""
    adjusted, least = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda each: p_values[each])):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = least
    return adjusted


def items_needed(items: int, estimate: float, item_error: float, seed_error: float, alpha: float) -> int:
    """How many more items would show a difference of `estimate` with a probability of `POWER`.

    Its standard error has to come down to e = |estimate| / (z(1 - alpha/2) + z(POWER)). The part by the items
    falls with their number, that by the seeds does not, so that

        n = items * item_error^2 / (e^2 - seed_error^2)

    are needed in all (the usual formula of a paired z-test, where seeds add nothing). Returns n - items, at
    least 1; -1 if no number would do: the estimate is 0, or seeds alone make more noise than that.
    """
    wanted = abs(estimate) / _quantiles(alpha)
    room = wanted**2 - seed_error**2
    if room <= 0:
        return -1
    return max(1, math.ceil(items * item_error**2 / room) - items)


def _quantiles(alpha: float) -> float:
    return _NORMAL.inv_cdf(1 - alpha / 2) + _NORMAL.inv_cdf(POWER)


def _clusters(sample: Sample) -> tuple[Floats, Floats]:
    """Weighted sums of the groups' values by cluster (G, K), and the weights (G). The items of a single
    cluster stand for themselves: there is no other beside it.
    """
    clusters_I = sample.clusters_I
    if clusters_I.max() == clusters_I.min():
        clusters_I = np.arange(len(clusters_I))
    values_IK = np.stack([sample.values_IS[:, list(each)].mean(axis=1) for each in sample.groups], axis=1)
    weighted_IK = values_IK * sample.weights_I[:, None]
    number = int(clusters_I.max()) + 1
    summed = [
        np.bincount(clusters_I, weights=column, minlength=number).astype(np.float64)
        for column in (*weighted_IK.T, sample.weights_I)
    ]
    there_G = np.bincount(clusters_I, minlength=number) > 0
    return np.stack(summed[:-1], axis=1)[there_G], summed[-1][there_G]


def _resampled(residuals_GK: Floats, weights_G: Floats, count: int, rng: np.random.Generator) -> Floats:
    """How far the mean of each group is off in each resample (R, K), widened as the module says."""
    clusters = len(weights_G)
    columns = [np.ascontiguousarray(column) for column in residuals_GK.T]
    equal = bool(np.all(weights_G == weights_G[0]))
    off_RK = np.empty((count, len(columns)))
    drawn_weight_R = np.full(count, weights_G.sum())
    for rows in _chunks(count, clusters):
        drawn = rng.integers(0, clusters, size=(rows.stop - rows.start, clusters))
        for index, column in enumerate(columns):
            # Without `clip` every index would be checked first; none is outside.
            off_RK[rows, index] = np.take(column, drawn, mode="clip").sum(axis=1)
        if not equal:
            drawn_weight_R[rows] = np.take(weights_G, drawn, mode="clip").sum(axis=1)
    freedom = clusters - 1
    widening_R = np.sqrt(clusters / freedom) * np.sqrt(freedom / rng.chisquare(freedom, count))
    return off_RK * (widening_R / drawn_weight_R)[:, None]


def _flipped(sums_GK: Floats, count: int, rng: np.random.Generator) -> Floats:
    """Sums of the groups with the signs of clusters drawn at random (R, K); their differences are what
    they would be had the groups been exchanged in those clusters.
    """
    clusters, (_, groups) = len(sums_GK), sums_GK.shape
    centred_GK = sums_GK - sums_GK.mean(axis=1, keepdims=True)
    out_RK = np.empty((count, groups))
    for rows in _chunks(count, clusters):
        taken = rows.stop - rows.start
        bits = np.unpackbits(
            rng.integers(0, 256, (taken, -(-clusters // 8)), np.uint8), axis=1, count=clusters
        )
        out_RK[rows] = 2 * (bits.astype(np.float64) @ centred_GK)
    return out_RK - centred_GK.sum(axis=0)


def _chunks(count: int, clusters: int) -> Iterator[slice]:
    step = max(1, _CHUNK_CLUSTERS // clusters)
    return (slice(start, min(start + step, count)) for start in range(0, count, step))


@dataclass(frozen=True, slots=True)
class _Seeds:
    """What runs that differ only in their seed say of seeds: the variance of one run's mean, pooled."""

    variance: float
    freedom: int

    @classmethod
    def of(cls, sample: Sample) -> _Seeds:
        parts = [sample.run_means[list(columns)] for columns in sample.groups]
        freedom = sum(len(part) - 1 for part in parts)
        squares = sum(float(((part - part.mean()) ** 2).sum()) for part in parts)
        return cls(squares / freedom if freedom else 0.0, freedom)

    def error(self, first: int, second: int) -> float:
        """Standard error of a difference of the means of so many runs."""
        return math.sqrt(self.variance * (1 / first + 1 / second))


def _pair(
    sample: Sample,
    first: int,
    second: int,
    residuals_GK: Floats,
    weights_G: Floats,
    deviations_RK: Floats,
    flips_RK: Floats,
    seeds: _Seeds,
    noise_R: Floats,
) -> _Pair:
    means_K = sample.group_means
    estimate = float(means_K[first] - means_K[second])
    seed_error = seeds.error(len(sample.groups[first]), len(sample.groups[second]))
    drawn_R = estimate + deviations_RK[:, first] - deviations_RK[:, second] + seed_error * noise_R
    low, high = np.quantile(drawn_R, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    residuals_G = residuals_GK[:, first] - residuals_GK[:, second]
    clusters = len(residuals_G)
    item_error = math.sqrt(clusters / (clusters - 1) * float(residuals_G @ residuals_G)) / weights_G.sum()
    beyond = min(int((drawn_R <= 0).sum()), int((drawn_R >= 0).sum()))
    total = abs(estimate) * weights_G.sum()
    flipped_R = np.abs(flips_RK[:, first] - flips_RK[:, second])
    as_large = int((flipped_R >= total * (1 - 1e-9)).sum())
    # One more of each, the sample itself: a p-value of 0 would claim more than was drawn.
    by_bootstrap = min(1.0, 2 * (beyond + 1) / (len(drawn_R) + 1))
    by_flips = (as_large + 1) / (len(flipped_R) + 1)
    p_value = max(by_bootstrap, by_flips)
    return _Pair(first, second, estimate, float(low), float(high), p_value, float(item_error), seed_error)


def _corrected(pairs: Sequence[_Pair], items: int) -> list[Difference]:
    adjusted = holm([pair.p_value for pair in pairs])
    alpha = (1 - LEVEL) / len(pairs)
    found: list[Difference] = []
    for pair, p_value in zip(pairs, adjusted, strict=True):
        is_real = p_value < 1 - LEVEL
        error = math.hypot(pair.item_error, pair.seed_error)
        found.append(
            Difference(
                first=pair.first,
                second=pair.second,
                estimate=pair.estimate,
                low=pair.low,
                high=pair.high,
                p_value=pair.p_value,
                adjusted_p_value=p_value,
                item_error=pair.item_error,
                seed_error=pair.seed_error,
                items_needed=0
                if is_real
                else items_needed(items, pair.estimate, pair.item_error, pair.seed_error, alpha),
                detectable=_quantiles(alpha) * error,
            )
        )
    return found
