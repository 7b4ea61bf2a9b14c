"""What is right and wrong of each class, from counts of what was taken for what.

Shape legend: I items, R resamples, C classes. `hits`, `said` and `there` of a class are how many things
(pictures, pixels) of it were found, were said to be of it, and are of it. The three of every class, one after
the other, are the sums that every metric here is made of.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.float64]


def counts(
    expected_N: npt.NDArray[np.int64], predicted_N: npt.NDArray[np.int64], classes: int
) -> npt.NDArray[np.float64]:
    """`hits`, `said`, `there` of so many classes, (3 * C,), over things of known and of said class."""
    parts = (expected_N[expected_N == predicted_N], predicted_N, expected_N)
    return np.concatenate([np.bincount(part, minlength=classes) for part in parts]).astype(np.float64)


def constant(sums_3C: Counts, label: int) -> Counts:
    """What the counts of an item would be if everything were said to be of one class."""
    there_C = sums_3C[len(sums_3C) // 3 * 2 :]
    only_C = np.arange(len(there_C)) == label
    return np.concatenate([there_C * only_C, there_C.sum() * only_C, there_C])


def accuracy(sums_R3C: Counts) -> Counts:
    """The share of things that were taken for what they are."""
    hits_RC, _, there_RC = _parted(sums_R3C)
    return hits_RC.sum(-1) / np.maximum(there_RC.sum(-1), 1)


def macro_f1(sums_R3C: Counts) -> Counts:
    """The mean of `f1` over the classes that occur, as sklearn's `average="macro"` takes it."""
    return _mean_of_occurring(f1(sums_R3C))


def mean_iou(sums_R3C: Counts) -> Counts:
    """The mean of `iou` over the classes that occur (https://arxiv.org/abs/1411.4038, section 5)."""
    return _mean_of_occurring(iou(sums_R3C))


def f1(sums_R3C: Counts) -> Counts:
    """Twice the hits over what was said and is there, (R, C); NaN for a class that is neither."""
    hits_RC, said_RC, there_RC = _parted(sums_R3C)
    return _ratio(2 * hits_RC, said_RC + there_RC)


def iou(sums_R3C: Counts) -> Counts:
    """Intersection over union, (R, C); NaN for a class that is neither there nor said."""
    hits_RC, said_RC, there_RC = _parted(sums_R3C)
    return _ratio(hits_RC, said_RC + there_RC - hits_RC)


def table(sums_3C: Counts, classes: Sequence[str]) -> list[dict[str, Any]]:
    """One object per class: how much of it there is, precision, recall, F1, IoU; null where undefined."""
    hits_C, said_C, there_C = (part[0] for part in _parted(sums_3C[None]))
    columns = {
        "there": there_C,
        "said": said_C,
        "hits": hits_C,
        "precision": _ratio(hits_C, said_C),
        "recall": _ratio(hits_C, there_C),
        "f1": f1(sums_3C[None])[0],
        "iou": iou(sums_3C[None])[0],
    }
    return [
        {"class": name}
        | {key: None if np.isnan(column[index]) else float(column[index]) for key, column in columns.items()}
        for index, name in enumerate(classes)
    ]


def _parted(sums_R3C: Counts) -> tuple[Counts, Counts, Counts]:
    hits_RC, said_RC, there_RC = np.split(sums_R3C, 3, axis=-1)
    return hits_RC, said_RC, there_RC


def _ratio(above: Counts, below: Counts) -> Counts:
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)


def _mean_of_occurring(values_RC: Counts) -> Counts:
    occurs_RC = ~np.isnan(values_RC)
    return np.where(occurs_RC, values_RC, 0).sum(-1) / np.maximum(occurs_RC.sum(-1), 1)
