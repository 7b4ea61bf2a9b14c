"""Which of several runs is better, and whether the figures say so beyond doubt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

import numpy as np

from finemesh.core.errors import InvalidError
from finemesh.core.metrics import Goal, goal_of
from finemesh.tracking.domain import Run, Summary
from finemesh.tracking.summaries import is_better

MAX_RUNS: Final = 50

# The metric that decides, unless the caller names one: the first of these that all runs have.
DECIDING: Final = ("test/accuracy", "val/accuracy", "val/loss", "train/loss")


@dataclass(frozen=True, slots=True)
class ConfigDifference:
    """A parameter in which runs differ; `values` follow the order of the runs, empty where a run lacks it."""

    field: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MetricComparison:
    """One metric of several runs. `summaries` follow their order; `better_run` is empty on a tie."""

    key: str
    goal: Goal | None
    summaries: tuple[Summary | None, ...]
    better_run: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Runs side by side. `better_run` is empty when none is better; `verdict` is the answer in a sentence."""

    config_differences: tuple[ConfigDifference, ...]
    metrics: tuple[MetricComparison, ...]
    metric: str
    better_run: str
    conclusive: bool
    verdict: str


@dataclass(frozen=True, slots=True)
class _Result:
    """The last value of one run, with the interval it logged if any."""

    run: Run
    value: float
    interval: tuple[float, float] | None

    def __str__(self) -> str:
        if self.interval is None:
            return _figure(self.value)
        low, high = self.interval
        return f"{_figure(self.value)} [{_figure(low)}, {_figure(high)}]"


def compare(runs: Sequence[Run], metric: str = "", goal: Goal | None = None) -> Comparison:
    """Set 2 to 50 runs side by side; `metric` decides, better in the direction of `goal`.

    Raises InvalidError: METRIC_NOT_LOGGED, no run has that metric.
    """
    goals = {metric: goal} if metric and goal else {}
    metrics = tuple(
        _compared(runs, key, goals.get(key) or goal_of(key))
        for key in sorted({summary.key for run in runs for summary in run.summaries})
    )
    by_key = {each.key: each for each in metrics}
    if metric and metric not in by_key:
        near = get_close_matches(metric, by_key, 1)
        meant = f"did you mean {near[0]!r}? They have" if near else "they have"
        raise InvalidError.of(
            "metric",
            f"no run has {metric!r}: {meant} {', '.join(by_key) or 'none'}",
            reason="METRIC_NOT_LOGGED",
        )
    complete = (key for key in DECIDING if key in by_key and all(by_key[key].summaries))
    deciding = by_key.get(metric or next(complete, ""))
    differences = differing([_told(run) for run in runs])
    if deciding is None:
        listed = ", ".join(DECIDING)
        verdict = f"no verdict: the runs have none of {listed} in common; name the metric that decides"
        return Comparison(differences, metrics, "", "", conclusive=False, verdict=verdict)
    if deciding.goal is None:
        verdict = f"no verdict: {deciding.key} is better neither high nor low; name a goal, or another metric"
        return Comparison(differences, metrics, deciding.key, "", conclusive=False, verdict=verdict)
    ranked = _ranked(runs, deciding)
    conclusive = bool(deciding.better_run) and len(ranked) > 1 and _apart(ranked[0], ranked[1]) is True
    verdict = _verdict(deciding, ranked, conclusive=conclusive)
    missing = [_id(run) for run, summary in zip(runs, deciding.summaries, strict=True) if summary is None]
    if missing:
        verdict += f"; without this metric: {', '.join(missing)}"
    return Comparison(differences, metrics, deciding.key, deciding.better_run, conclusive, verdict)


def _told(run: Run) -> Mapping[str, str]:
    """Its parameters, and the seed that a program has stated beside them; of a job it is among them."""
    stated = "seed" in run.lineage and not run.training_job
    return {"seed": str(run.lineage["seed"]), **run.params} if stated else run.params


def differing(told: Sequence[Mapping[str, str]]) -> tuple[ConfigDifference, ...]:
    """Fields whose values differ between runs, by name."""
    fields = sorted({field for each in told for field in each})
    rows = (ConfigDifference(field, tuple(each.get(field, "") for each in told)) for field in fields)
    return tuple(row for row in rows if len(set(row.values)) > 1)


def _compared(runs: Sequence[Run], key: str, goal: Goal | None) -> MetricComparison:
    summaries = tuple(run.summary(key) for run in runs)
    results = [(run, each.last_value) for run, each in zip(runs, summaries, strict=True) if each]
    best = [run for run, value in results if not any(is_better(other, value, goal) for _, other in results)]
    values_differ = len(best) < len(results)
    better = str(best[0].name) if len(best) == 1 and values_differ else ""
    return MetricComparison(key, goal, summaries, better)


def _ranked(runs: Sequence[Run], metric: MetricComparison) -> list[_Result]:
    """Results of the runs that have the metric, best first, NaN last."""
    results = [
        _Result(run, summary.last_value, _interval(run, metric.key))
        for run, summary in zip(runs, metric.summaries, strict=True)
        if summary
    ]
    sign = 1.0 if metric.goal is Goal.MINIMIZE else -1.0
    return sorted(results, key=lambda each: (bool(np.isnan(each.value)), sign * each.value))


def _interval(run: Run, key: str) -> tuple[float, float] | None:
    low, high = run.summary(f"{key}_low"), run.summary(f"{key}_high")
    if not low or not high or not low.last_value <= high.last_value:
        return None
    return low.last_value, high.last_value


def _apart(first: _Result, second: _Result) -> bool | None:
    """Whether two intervals do not touch; None when one of them is missing."""
    if first.interval is None or second.interval is None:
        return None
    return first.interval[0] > second.interval[1] or first.interval[1] < second.interval[0]


def _verdict(metric: MetricComparison, ranked: Sequence[_Result], *, conclusive: bool) -> str:
    if len(ranked) == 1:
        only = ranked[0]
        return f"no verdict: only run {_id(only.run)} has {metric.key}: {only}"
    first, second = ranked[0], ranked[1]
    if not metric.better_run:
        return (
            f"no run is better on {metric.key}: {_id(first.run)} has {first}, {_id(second.run)} has {second}"
        )
    rank = "better" if len(ranked) == 2 else f"best of {len(ranked)}"
    against = f"{second}" if len(ranked) == 2 else f"{second} of run {_id(second.run)}, the next best"
    figures = f"run {_id(first.run)} is {rank} on {metric.key}: {first} against {against}"
    if conclusive:
        return f"{figures}; the intervals are apart, so this is conclusive"
    if _apart(first, second) is None:
        names = f"{metric.key}_low, {metric.key}_high"
        return f"{figures}; without an interval for both ({names}) this is not conclusive"
    return f"{figures}; the intervals overlap, so this is not conclusive"


def _id(run: Run) -> str:
    return run.name.id


def _figure(value: float) -> str:
    return f"{value:.4g}"
