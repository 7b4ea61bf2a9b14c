"""Where the trials of a sweep are compared, and which of them go on.

Successive halving (Jamieson & Talwalkar 2016, https://arxiv.org/abs/1502.07943; in this form algorithm 1 of
Li et al. 2020, https://arxiv.org/abs/1810.05934, without its early-stopping rate): of n trials that took r
steps, the best floor(n / eta) go on to r * eta steps. The paper counts rungs from below and needs a run of
r * eta**s steps; here they are counted from above, floor(R / eta**j), so that the last is the whole run for
any R.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rung:
    """A comparison: after so many `steps`, 0 for the whole run, of at most so many `trials`."""

    steps: int
    trials: int


def whole(trials: int) -> tuple[Rung, ...]:
    """Every trial to its end."""
    return (Rung(0, trials),)


def rungs(trials: int, max_steps: int, reduction: int, min_steps: int) -> tuple[Rung, ...]:
    """The rungs of successive halving: as many as trials and steps allow.

    Args:
        trials: how many begin.
        max_steps: optimiser steps of the whole run.
        reduction: the paper's eta.
        min_steps: no rung is earlier.
    """
    last = 0
    while trials // reduction ** (last + 1) >= 1 and max_steps // reduction ** (last + 1) >= min_steps:
        last += 1
    return tuple(
        Rung(max_steps // reduction ** (last - k) if k < last else 0, trials // reduction**k)
        for k in range(last + 1)
    )


def ranked(values: Mapping[int, float], *, higher_is_better: bool) -> list[int]:
    """Trial numbers, best first: NaN is worse than anything, and of equals the lower number is better."""
    sign = -1.0 if higher_is_better else 1.0

    def key(number: int) -> tuple[float, int]:
        value = values[number]
        return (math.inf if math.isnan(value) else sign * value, number)

    return sorted(values, key=key)
