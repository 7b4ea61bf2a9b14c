"""Last and best of metrics, kept current as points arrive.

New points whose steps follow those already summarised extend a summary at no cost. Anything else (a step
measured again, a batch that is missing or was counted before) makes it be computed again from the points.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from finemesh.core.metrics import Goal, goal_of
from finemesh.tracking.domain import Batch, Curve, Floats, Int64s, RunPoints, Summary, resolve

# The metric whose new bests are events: the first of these that a run has.
DECIDING: Final = ("val/accuracy", "val/loss", "train/loss")


def summarize(key: str, steps: Int64s, values: Floats) -> Summary:
    """The summary of a resolved curve of at least one point."""
    goal = goal_of(key)
    is_finite = np.isfinite(values)
    finite = is_finite & (goal is not None)
    best = len(values) - 1
    if finite.any():
        costs = values if goal is Goal.MINIMIZE else -values
        best = int(np.argmin(np.where(finite, costs, np.inf)))
    return Summary(
        key=key,
        last_value=float(values[-1]),
        last_step=int(steps[-1]),
        best_value=float(values[best]) if finite[best] else float("nan"),
        best_step=int(steps[best]),
        point_count=len(values),
        min_value=_finite(np.min(values, where=is_finite, initial=np.inf)),
        max_value=_finite(np.max(values, where=is_finite, initial=-np.inf)),
    )


def _finite(value: float) -> float:
    """NaN for the infinity that the least of no values is."""
    return float(value) if np.isfinite(value) else math.nan


def summarize_run(points: RunPoints) -> tuple[Summary, ...]:
    """The summaries of all metrics of a run, by key."""
    curves: dict[str, Curve] = {key: resolve(curve) for key, curve in points.curves.items() if len(curve)}
    return tuple(summarize(key, curves[key].steps, curves[key].values) for key in sorted(curves))


def is_better(value: float, other: float, goal: Goal | None) -> bool:
    """Whether `value` beats `other`. NaN beats nothing, and everything else beats NaN; without a goal nothing
    beats anything.
    """
    if np.isnan(value) or goal is None:
        return False
    return bool(np.isnan(other) or (value < other if goal is Goal.MINIMIZE else value > other))


def extend(summary: Summary, later: Summary) -> Summary:
    """The summary of both stretches of a curve, `later` lying wholly behind `summary`."""
    best = later if is_better(later.best_value, summary.best_value, summary.goal) else summary
    return Summary(
        key=summary.key,
        last_value=later.last_value,
        last_step=later.last_step,
        best_value=best.best_value,
        best_step=later.last_step if np.isnan(best.best_value) else best.best_step,
        point_count=summary.point_count + later.point_count,
        min_value=float(np.fmin(summary.min_value, later.min_value)),
        max_value=float(np.fmax(summary.max_value, later.max_value)),
    )


def new_best(before: tuple[Summary, ...], after: tuple[Summary, ...]) -> Summary | None:
    """The summary of the deciding metric, if its best value is better than before."""
    now = {each.key: each for each in after}
    deciding = next((now[key] for key in DECIDING if key in now), None)
    if deciding is None:
        return None
    old = next((each.best_value for each in before if each.key == deciding.key), float("nan"))
    return deciding if is_better(deciding.best_value, old, deciding.goal) else None


@dataclass(slots=True)
class _Stretch:
    """Consecutive new points of one metric: their first step and their summary."""

    first_step: int
    summary: Summary


@dataclass(slots=True)
class Delta:
    """What committed batches add to the summaries of one run.

    Attributes:
        ranges: per attempt, the first and the last batch that it holds.
        overlaps: whether steps come again or out of order, so that the points must be read.
    """

    ranges: dict[int, tuple[int, int]] = field(default_factory=dict[int, tuple[int, int]])
    stretches: dict[str, _Stretch] = field(default_factory=dict[str, _Stretch])
    overlaps: bool = False

    def add(self, batch: Batch) -> None:
        """Add a batch that was just committed; batches of an attempt come in the order of their numbers."""
        first, last = self.ranges.get(batch.attempt, (batch.first_sequence, batch.first_sequence - 1))
        self.overlaps |= batch.first_sequence != last + 1
        self.ranges[batch.attempt] = (first, batch.sequence)
        for index, key in enumerate(batch.keys):
            chosen = batch.key_indices == index
            if not self.overlaps and chosen.any():
                self._add_points(key, batch.steps[chosen], batch.values[chosen])

    def _add_points(self, key: str, steps: Int64s, values: Floats) -> None:
        first_step = int(steps[0])
        before = self.stretches.get(key)
        if np.any(np.diff(steps) <= 0) or (before and first_step <= before.summary.last_step):
            self.overlaps = True
            return
        summary = summarize(key, steps, values)
        if before:
            before.summary = extend(before.summary, summary)
        else:
            self.stretches[key] = _Stretch(first_step, summary)

    def is_in(self, summarized: Mapping[int, int]) -> bool:
        """Whether summaries that reach to `summarized` include all of this."""
        return all(summarized.get(attempt, 0) >= last for attempt, (_, last) in self.ranges.items())

    def applied_to(
        self, summaries: tuple[Summary, ...], summarized: Mapping[int, int]
    ) -> tuple[Summary, ...] | None:
        """The summaries with this added, or None when they must be computed again from the points."""
        follows = all(summarized.get(attempt, 0) + 1 == first for attempt, (first, _) in self.ranges.items())
        result = {each.key: each for each in summaries}
        if self.overlaps or not follows:
            return None
        for key, stretch in self.stretches.items():
            old = result.get(key)
            if old is not None and stretch.first_step <= old.last_step:
                return None
            result[key] = extend(old, stretch.summary) if old else stretch.summary
        return tuple(result[key] for key in sorted(result))

    def marks(self) -> dict[int, int]:
        """Per attempt, the last batch."""
        return {attempt: last for attempt, (_, last) in self.ranges.items()}
