"""Comparison by items against scipy's bootstrap: `python -m tests.bench.tracking_comparison`.

Two models on 10,000 items, 10,000 resamples: ours with its sign flips, scipy with the percentile interval of
the same paired mean, by turns in this process. Seconds on the wall count; those of the processor stand beside
them, since little else that runs moves those.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable

import numpy as np
from finemesh.tracking.statistics import Sample, differences
from scipy import stats

ITEMS, RESAMPLES, PAIRS = 10_000, 10_000, 5
GOAL_SECONDS = 1.0


def seconds(call: Callable[[], object]) -> tuple[float, float]:
    """On the wall, and of the processor."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    values_IS = np.random.default_rng(0).normal(size=(ITEMS, 2)) + [0.02, 0.0]
    sample = Sample(values_IS, np.ones(ITEMS), np.arange(ITEMS), [(0,), (1,)])
    difference_I = values_IS[:, 0] - values_IS[:, 1]

    def peer() -> object:
        return stats.bootstrap(
            (difference_I,),
            np.mean,
            n_resamples=RESAMPLES,
            batch=100,
            method="percentile",
            rng=np.random.default_rng(0),
        )

    ours: list[tuple[float, float]] = []
    other: list[tuple[float, float]] = []
    for _ in range(PAIRS):
        ours.append(seconds(lambda: differences(sample, resamples=RESAMPLES)))
        other.append(seconds(peer))
    wall, cpu = (statistics.median(each) for each in zip(*ours, strict=True))
    peer_wall, peer_cpu = (statistics.median(each) for each in zip(*other, strict=True))
    bar = {
        "bar": f"two models compared on {ITEMS} items with {RESAMPLES} resamples and sign flips",
        "ours": round(wall, 3),
        "peer": round(peer_wall, 3),
        "ratio": round(peer_wall / wall, 2),
        "goal": f"<= {GOAL_SECONDS:g} s",
        "met": wall <= GOAL_SECONDS,
        "ours_cpu": round(cpu, 3),
        "peer_cpu": round(peer_cpu, 3),
        "command": "python -m tests.bench.tracking_comparison",
    }
    print(json.dumps(bar))


if __name__ == "__main__":
    main()
