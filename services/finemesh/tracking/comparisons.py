"""The use case of comparing runs: what is stored of them, their items, and what follows."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from finemesh.chassis.auth import Principal, Role
from finemesh.core.clock import Clock
from finemesh.core.errors import FinemeshError, InvalidError
from finemesh.core.metrics import Goal, goal_of
from finemesh.core.names import Name
from finemesh.tracking.compare import MAX_RUNS, Comparison, MetricComparison, compare
from finemesh.tracking.costs import LineageDifferences, RunCost, costs_of, lineage_differences
from finemesh.tracking.domain import Run, Summary
from finemesh.tracking.evaluation_service import Evaluations
from finemesh.tracking.item_comparison import ItemComparison, NotComparable, compare_items, item_metric_of
from finemesh.tracking.ports import RunStore
from finemesh.tracking.summarizer import Summarizer
from finemesh.tracking.verdicts import recommendations, standing, verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Which runs to compare, by what; see `finemesh.v1.CompareRunsRequest`."""

    runs: Sequence[Name]
    metric: str = ""
    goal: Goal | None = None
    baseline: Name | None = None
    price_per_device_hour: float = 0.0

    def check(self) -> None:
        """Raises InvalidError naming the field."""
        if not 2 <= len(self.runs) <= MAX_RUNS:
            raise InvalidError.of("runs", f"name 2 to {MAX_RUNS} different runs")
        if self.baseline and self.baseline not in self.runs:
            raise InvalidError.of("baseline", f"{self.baseline} is not among the runs: name one of them")
        if not 0 <= self.price_per_device_hour < math.inf:
            raise InvalidError.of(
                "price_per_device_hour", "must be finite and not negative; 0 leaves costs out"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A comparison with all that follows from it. `baseline` is the index of a run."""

    comparison: Comparison
    lineage: LineageDifferences
    baseline: int
    items: ItemComparison | None
    items_problem: str
    costs: tuple[RunCost, ...]
    recommendations: tuple[str, ...]


class Comparisons:
    """Reads through the projects of its caller; states each comparison as an event."""

    def __init__(
        self, store: RunStore, summarizer: Summarizer, evaluations: Evaluations, clock: Clock
    ) -> None:
        self._store = store
        self._summarizer = summarizer
        self._evaluations = evaluations
        self._clock = clock

    async def compare(self, principal: Principal, project: str, question: Question) -> Answer:
        """Raises NotFoundError; InvalidError (METRIC_NOT_LOGGED); UnavailableError."""
        principal.require_role(Role.VIEWER)
        principal.require_project(project)
        question.check()
        await self._summarizer.settle()
        runs = await self._store.get(principal, question.runs)
        runs = [await self._with_mean(run, question.metric) for run in runs]
        comparison = compare(runs, question.metric, question.goal)
        items, problem = await self._items(runs, comparison)
        answer = self._answer(question, runs, comparison, items, problem)
        await self._store.publish_comparison(question.runs, answer.comparison)
        return answer

    async def _with_mean(self, run: Run, key: str) -> Run:
        """A run whose program has logged items alone has their mean under `<split>/<metric>` as well."""
        split, _, metric = key.partition("/")
        if not metric or run.summary(key):
            return run
        evaluation = (await self._evaluations.latest([run.name], split)).get(run.name)
        if evaluation is None or metric not in evaluation.metrics:
            return run
        try:
            mean = (await self._evaluations.items(evaluation)).metrics[metric].mean()
        except FinemeshError:  # then it is as if they were not there
            return run
        step, best = evaluation.step, mean if goal_of(key) else math.nan
        found = Summary(key, mean, step, best, step, point_count=1, min_value=mean, max_value=mean)
        return replace(run, summaries=(*run.summaries, found))

    async def _items(self, runs: Sequence[Run], comparison: Comparison) -> tuple[ItemComparison | None, str]:
        """The comparison by items, or why there is none."""
        split, metric = item_metric_of(comparison.metric)
        if not split or _decided(comparison).goal is None:
            return None, "the metric that decides is not one of a split of items"
        latest = await self._evaluations.latest([run.name for run in runs], split)
        lacking = [run.name.id for run in runs if run.name not in latest]
        if lacking:
            return None, f"without an evaluation of the items of {split}: {', '.join(lacking)}"
        evaluations = [latest[run.name] for run in runs]
        lacking = [each.run.id for each in evaluations if metric not in each.metrics]
        if lacking:
            return None, f"{metric} is not told item by item of: {', '.join(lacking)}"
        try:
            items = [await self._evaluations.items(each) for each in evaluations]
            return await asyncio.to_thread(compare_items, metric, runs, evaluations, items), ""
        except NotComparable as why:
            return None, str(why)
        except FinemeshError as error:  # the rest of the comparison is worth having without them
            return None, f"the items could not be read: {error.message}"

    def _answer(
        self,
        question: Question,
        runs: Sequence[Run],
        comparison: Comparison,
        items: ItemComparison | None,
        problem: str,
    ) -> Answer:
        baseline = question.runs.index(question.baseline) if question.baseline else 0
        decided = _decided(comparison)
        values = [each.last_value if each else math.nan for each in decided.summaries]
        if items:
            for group in items.groups:
                for run, mean in zip(group.runs, group.run_means, strict=True):
                    values[run] = mean
        price, now = question.price_per_device_hour, self._clock.now()
        costs = costs_of(runs, values, baseline, decided.goal, price, now) if decided.key else ()
        lineage = lineage_differences(runs)
        said: tuple[str, ...] = ()
        if items and decided.goal:
            names = [run.name.id for run in runs]
            stand = standing(items, decided.goal)
            said = recommendations(names, items, stand, costs, comparison.config_differences, lineage)
            best = items.groups[stand.best]
            # All means may be equal, and then none is better.
            tied = all(difference.estimate == 0 for _, difference in stand.others)
            comparison = replace(
                comparison,
                better_run="" if tied else str(runs[_best_run(best.runs, values, decided.goal)].name),
                conclusive=stand.conclusive,
                verdict=verdict(comparison.metric, names, items, stand),
            )
        return Answer(
            comparison=comparison,
            lineage=lineage,
            baseline=baseline,
            items=items,
            items_problem=problem,
            costs=costs,
            recommendations=said,
        )


def _decided(comparison: Comparison) -> MetricComparison:
    """The metric that decides; without a key if there is none."""
    nothing = MetricComparison("", None, (), "")
    return next((each for each in comparison.metrics if each.key == comparison.metric), nothing)


def _best_run(runs: Sequence[int], values: Sequence[float], goal: Goal) -> int:
    return (min if goal is Goal.MINIMIZE else max)(runs, key=lambda run: values[run])
