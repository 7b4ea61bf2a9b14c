"""What Tracking has of a run, for the model card. A card without it is no reason not to export."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import Final

import grpc
import grpc.aio

from finemesh.chassis.client_channel import channel
from finemesh.chassis.logs import get_logger
from finemesh.cluster.worker import Job
from finemesh.core.names import parse_name
from finemesh.package.curves import ENERGY, Curve
from finemesh.v1.evaluation_pb2 import Evaluation
from finemesh.v1.evaluation_service_pb2 import ListEvaluationsRequest
from finemesh.v1.evaluation_service_pb2_grpc import EvaluationServiceStub
from finemesh.v1.metric_pb2 import MetricSeries
from finemesh.v1.tracking_service_pb2 import QueryMetricsRequest
from finemesh.v1.tracking_service_pb2_grpc import TrackingServiceStub

_log: Final = get_logger(__name__)
_TIMEOUT_SECONDS: Final = 10.0
_POINTS: Final = 500  # of a curve: more than a picture of it has columns
_TESTS: Final = 500  # more than a job has attempts and baselines
_TESTED: Final = "test/"
_WATTS: Final = "/watts"
_PAUSE: Final = 10  # medians of the time between samples, from which on nothing was measured


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What a model card tells of a run.

    Attributes:
        curves: by metric, and what its GPUs used if that was measured.
        tested: metrics of the final test, if it was of the checkpoint that is exported.
    """

    curves: Mapping[str, Curve] = field(default_factory=dict[str, Curve])
    tested: Mapping[str, float] = field(default_factory=dict[str, float])


def record_of_run(job: Job, run: str, step: int) -> RunRecord | None:
    """What Tracking has of a run whose checkpoint of `step` is exported; None while it is away."""
    if not run:
        return RunRecord()
    try:
        series, evaluations = asyncio.run(_query(job, run))
    except grpc.aio.AioRpcError as error:
        _log.warning("curves_missing", run=run, code=error.code().name, details=error.details())
        return None
    curves: dict[str, Curve] = {
        each.key: list(zip(each.steps, each.values, strict=True)) for each in series if each.steps
    }
    watts = [each for each in series if each.key.endswith(_WATTS)]
    if watts:
        last = max(each.steps[-1] for each in watts)
        curves[ENERGY] = [(last, energy_joules(watts))]
    return RunRecord(curves, final_test(curves, evaluations, step))


def final_test(curves: Mapping[str, Curve], evaluations: Iterable[Evaluation], step: int) -> dict[str, float]:
    """The metrics of the final test, if the checkpoint of `step` was tested. They are logged where the run
    ended; which of its checkpoints they are of, only what was evaluated item by item says.
    """
    own = [each for each in evaluations if not each.variant]
    if not own or max(own, key=lambda each: each.attempt).step != step:
        return {}
    return {key: curve[-1][1] for key, curve in curves.items() if key.startswith(_TESTED)}


def energy_joules(watts: Iterable[MetricSeries]) -> float:
    """What was used, from the power of each GPU over time, by the trapezoidal rule; what passed between two
    attempts is left out.
    """
    return sum(_energy([time / 1e6 for time in each.times_us], each.values) for each in watts)


def _energy(times: Sequence[float], watts: Sequence[float]) -> float:
    gaps = [after - before for before, after in pairwise(times)]
    longest = _PAUSE * median(gaps) if gaps else 0.0
    means = [(before + after) / 2 for before, after in pairwise(watts)]
    return sum(gap * mean for gap, mean in zip(gaps, means, strict=True) if gap <= longest)


async def _query(job: Job, run: str) -> tuple[list[MetricSeries], list[Evaluation]]:
    tracking = channel(job.site.addresses["tracking"], lambda: job.command.token, job.site.client_tls)
    metrics = QueryMetricsRequest(parent=str(parse_name(run, "runs").parent), runs=[run], max_points=_POINTS)
    tests = ListEvaluationsRequest(parent=run, filter='split = "test"', page_size=_TESTS)
    try:
        answer = await TrackingServiceStub(tracking).QueryMetrics(metrics, timeout=_TIMEOUT_SECONDS)
        found = await EvaluationServiceStub(tracking).ListEvaluations(tests, timeout=_TIMEOUT_SECONDS)
        return list(answer.series), list(found.evaluations)
    finally:
        await tracking.close()
