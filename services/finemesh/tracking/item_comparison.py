"""Runs compared item by item: which items all of them have, which runs stand for one configuration, and what
the differences of their means are worth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from finemesh.tracking.domain import Run
from finemesh.tracking.evaluations import Evaluation, ItemMetric, Items
from finemesh.tracking.statistics import Difference, Floats, Ints, Sample, differences, resamples_of

# Metrics of whole splits that are no means over items, and the metric of items that stands for them.
_STANDS_FOR: Final = {"map": "average_precision", "perplexity": "loss"}
_SEED: Final = "seed"


@dataclass(frozen=True, slots=True)
class RunGroup:
    """Runs that differ in nothing but their seed, as indices, with their means over the common items."""

    runs: tuple[int, ...]
    mean: float
    run_means: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ItemComparison:
    """Runs on identical items: see `finemesh.v1.ItemComparison`. `evaluations` are in their order."""

    metric: str
    evaluations: tuple[Evaluation, ...]
    item_count: int
    left_out_count: int
    cluster_count: int
    resamples: int
    groups: tuple[RunGroup, ...]
    differences: tuple[Difference, ...]


class NotComparable(Exception):  # noqa: N818  an answer, told as it is
    """Why runs cannot be compared by items."""


def item_metric_of(key: str) -> tuple[str, str]:
    """Split and metric of items behind a metric of runs: `val/loss` -> `val`, `loss`. Both may be empty."""
    split, _, metric = key.partition("/")
    return (split, _STANDS_FOR.get(metric, metric)) if metric else ("", "")


def grouped(runs: Sequence[Run]) -> list[tuple[int, ...]]:
    """Indices of runs that differ in nothing but their seed, in the order of their first.

    Compared are params, data and program; not the machines, which should not matter.
    """
    groups: dict[object, list[int]] = {}
    for index, run in enumerate(runs):
        groups.setdefault(_configuration(run), []).append(index)
    return [tuple(indices) for indices in groups.values()]


def compare_items(
    metric: str, runs: Sequence[Run], evaluations: Sequence[Evaluation], items: Sequence[Items]
) -> ItemComparison:
    """Compare runs by a metric that the items of all of them have, in the order of the runs.

    Raises NotComparable: too few items are the same, or all runs are of one configuration.
    """
    groups = grouped(runs)
    if len(groups) < 2:
        raise NotComparable(
            "the runs differ in nothing but their seeds: there are no configurations to compare"
        )
    columns = [each.metrics[metric] for each in items]
    common_IS = _common(items, columns)
    if len(common_IS) < 2:
        raise NotComparable(
            f"the runs have {len(common_IS)} items in common on which they have {metric}: evaluate them on"
            " the same rows of the same dataset"
        )
    values_IS = np.stack([c.values[common_IS[:, s]] for s, c in enumerate(columns)], axis=1)
    chosen_I = common_IS[:, 0]
    weights = columns[0].weights
    weights_I = np.ones(len(chosen_I)) if weights is None else weights[chosen_I]
    if not weights_I.sum():
        raise NotComparable(f"the items that the runs have in common weigh nothing in {metric}")
    sample = Sample(values_IS, weights_I, _clusters(items[0], chosen_I), groups)
    return ItemComparison(
        metric=metric,
        evaluations=tuple(evaluations),
        item_count=len(chosen_I),
        left_out_count=len(set().union(*(each.ids for each in items))) - len(chosen_I),
        cluster_count=len(np.unique(sample.clusters_I)),
        resamples=resamples_of(sample),
        groups=tuple(
            RunGroup(runs, float(mean), tuple(float(sample.run_means[run]) for run in runs))
            for runs, mean in zip(groups, sample.group_means, strict=True)
        ),
        differences=tuple(differences(sample)),
    )


def _configuration(run: Run) -> object:
    params = {
        key: value
        for key, value in run.params.items()
        if key.lower().rpartition(".")[2].rpartition("/")[2] != _SEED
    }
    lineage = run.lineage
    data = lineage.get("dataset_digest") or lineage.get("dataset", "")
    code: Mapping[str, object] = lineage.get("code", {})
    program = tuple(str(code.get(key, "")) for key in ("repository", "commit", "dirty"))
    return (tuple(sorted(params.items())), str(data), program)


def _common(items: Sequence[Items], columns: Sequence[ItemMetric]) -> Ints:
    """Where the items are that all have with the same id, digest and weight, and a finite value (I, S)."""
    places = [{name: index for index, name in enumerate(_names(each))} for each in items]
    names = [name for name in places[0] if all(name in each for each in places[1:])]
    found_IS = np.array([[each[name] for each in places] for name in names], np.int64).reshape(-1, len(items))
    kept_I = np.ones(len(names), np.bool_)
    first = _weights(columns[0], len(items[0]))[found_IS[:, 0]]
    for index, column in enumerate(columns):
        kept_I &= np.isfinite(column.values[found_IS[:, index]])
        kept_I &= _weights(column, len(items[index]))[found_IS[:, index]] == first
    return found_IS[kept_I]


def _names(items: Items) -> list[tuple[str, str]]:
    return list(zip(items.ids, items.digests or ("",) * len(items), strict=True))


def _weights(column: ItemMetric, count: int) -> Floats:
    return np.ones(count) if column.weights is None else column.weights


def _clusters(items: Items, chosen_I: Ints) -> Ints:
    if not items.groups:
        return np.arange(len(chosen_I))
    return np.unique(np.array(items.groups)[chosen_I], return_inverse=True)[1].astype(np.int64)
