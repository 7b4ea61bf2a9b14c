"""`CompareRuns` of `finemesh.v1.TrackingService`: the answer as a message."""
# ruff: noqa: N802, ARG002  the generated base class sets names and signatures

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from finemesh.chassis.auth import current_principal
from finemesh.core.names import parse_name, parse_project
from finemesh.tracking import convert
from finemesh.tracking.compare import MetricComparison
from finemesh.tracking.comparisons import Answer, Comparisons, Question
from finemesh.tracking.item_comparison import ItemComparison
from finemesh.tracking.statistics import Difference
from finemesh.v1 import comparison_pb2, run_pb2
from finemesh.v1 import tracking_service_pb2 as pb


class CompareServicer:
    """A part of `TrackingServicer`."""

    def __init__(self, comparisons: Comparisons) -> None:
        self._comparisons = comparisons

    async def CompareRuns(self, request: pb.CompareRunsRequest, context: Any) -> pb.CompareRunsResponse:
        question = Question(
            runs=convert.names_from_proto(request.runs, request.parent, "runs"),
            metric=request.metric,
            goal=convert.goal_from_proto(request.goal),
            baseline=parse_name(request.baseline, "runs", "baseline") if request.baseline else None,
            price_per_device_hour=request.price_per_device_hour,
        )
        project = parse_project(request.parent)
        return _response(await self._comparisons.compare(current_principal(), project, question))


def _response(answer: Answer) -> pb.CompareRunsResponse:
    found = answer.comparison
    response = pb.CompareRunsResponse(
        metric=found.metric,
        better_run=found.better_run,
        conclusive=found.conclusive,
        verdict=found.verdict,
        items_problem=answer.items_problem,
        recommendations=answer.recommendations,
        metrics=[_metric(each, answer.baseline) for each in found.metrics],
        costs=[comparison_pb2.RunCost(**asdict(each)) for each in answer.costs],
    )
    for target, differences in (
        (response.config_differences, found.config_differences),
        (response.data_differences, answer.lineage.data),
        (response.code_differences, answer.lineage.code),
        (response.environment_differences, answer.lineage.environment),
    ):
        for difference in differences:
            target.add(field=difference.field, values=difference.values)
    if answer.items:
        response.items.CopyFrom(_items(answer.items))
    return response


def _metric(metric: MetricComparison, baseline: int) -> pb.MetricComparison:
    base = metric.summaries[baseline]
    nothing = run_pb2.MetricSummary()
    last, best = [
        [
            getattr(each, name) - getattr(base, name) if each and base else math.nan
            for each in metric.summaries
        ]
        for name in ("last_value", "best_value")
    ]
    return pb.MetricComparison(
        key=metric.key,
        goal=convert.goal_to_proto(metric.goal),
        summaries=[convert.summary_to_proto(each) if each else nothing for each in metric.summaries],
        better_run=metric.better_run,
        last_differences=last,
        best_differences=best,
    )


def _items(found: ItemComparison) -> comparison_pb2.ItemComparison:
    runs = [str(each.run) for each in found.evaluations]
    message = comparison_pb2.ItemComparison(
        metric=found.metric,
        evaluations=[str(each.name) for each in found.evaluations],
        item_count=found.item_count,
        left_out_count=found.left_out_count,
        cluster_count=found.cluster_count,
        resamples=found.resamples,
        differences=[_difference(each) for each in found.differences],
    )
    for group in found.groups:
        message.groups.add(runs=[runs[run] for run in group.runs], mean=group.mean, run_means=group.run_means)
    return message


def _difference(difference: Difference) -> comparison_pb2.GroupDifference:
    return comparison_pb2.GroupDifference(
        first=difference.first,
        second=difference.second,
        estimate=difference.estimate,
        low=difference.low,
        high=difference.high,
        p_value=difference.p_value,
        adjusted_p_value=difference.adjusted_p_value,
        item_error=difference.item_error,
        seed_error=difference.seed_error,
        conclusive=difference.is_real,
        items_needed=difference.items_needed,
        detectable_difference=difference.detectable,
    )
