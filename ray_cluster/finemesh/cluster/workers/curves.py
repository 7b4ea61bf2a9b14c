"""The curves of a run out of Tracking, for the model card. A card without them is no reason not to export."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
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
from finemesh.v1.metric_pb2 import MetricSeries
from finemesh.v1.tracking_service_pb2 import QueryMetricsRequest
from finemesh.v1.tracking_service_pb2_grpc import TrackingServiceStub

_log: Final = get_logger(__name__)
_TIMEOUT_SECONDS: Final = 10.0
_POINTS: Final = 500  # of a curve: more than a picture of it has columns
_WATTS: Final = "/watts"
_PAUSE: Final = 10  # medians of the time between samples, from which on nothing was measured


def curves_of_run(job: Job, run: str) -> dict[str, Curve]:
    """The curves of a run by metric, and what its GPUs used if that was measured; empty while Tracking is
    away.
    """
    if not run:
        return {}
    try:
        series = asyncio.run(_query(job, run))
    except grpc.aio.AioRpcError as error:
        _log.warning("curves_missing", run=run, code=error.code().name, details=error.details())
        return {}
    curves: dict[str, Curve] = {
        each.key: list(zip(each.steps, each.values, strict=True)) for each in series if each.steps
    }
    watts = [each for each in series if each.key.endswith(_WATTS)]
    if watts:
        last = max(each.steps[-1] for each in watts)
        curves[ENERGY] = [(last, energy_joules(watts))]
    return curves


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


async def _query(job: Job, run: str) -> list[MetricSeries]:
    tracking = channel(job.site.addresses["tracking"], lambda: job.command.token, job.site.client_tls)
    try:
        request = QueryMetricsRequest(
            parent=str(parse_name(run, "runs").parent), runs=[run], max_points=_POINTS
        )
        answer = await TrackingServiceStub(tracking).QueryMetrics(request, timeout=_TIMEOUT_SECONDS)
        return list(answer.series)
    finally:
        await tracking.close()
