"""The RPC of `finemesh.v1.TrackingService` that returns curves."""
# ruff: noqa: N802, ARG002  the generated base class sets names and signatures

from __future__ import annotations

from typing import Any, Final

from finemesh.chassis.auth import current_principal
from finemesh.core.errors import InvalidError
from finemesh.core.names import parse_project
from finemesh.tracking import convert
from finemesh.tracking.axes import Axis, AxisKind
from finemesh.tracking.charts import ChartQuery, Charts, ChartSeries
from finemesh.tracking.service import Tracking
from finemesh.v1 import metric_pb2
from finemesh.v1 import tracking_service_pb2 as pb

Context = Any
_AXES: Final = {
    pb.QueryMetricsRequest.AXIS_UNSPECIFIED: AxisKind.STEP,
    pb.QueryMetricsRequest.AXIS_STEP: AxisKind.STEP,
    pb.QueryMetricsRequest.AXIS_TIME: AxisKind.TIME,
    pb.QueryMetricsRequest.AXIS_METRIC: AxisKind.METRIC,
}


class ChartServicer:
    """The part of `TrackingServicer` that returns curves."""

    def __init__(self, tracking: Tracking, charts: Charts) -> None:
        self._tracking = tracking
        self._charts = charts

    async def QueryMetrics(
        self, request: pb.QueryMetricsRequest, context: Context
    ) -> pb.QueryMetricsResponse:
        project = parse_project(request.parent)
        if request.axis not in _AXES:
            raise InvalidError.of("axis", "use AXIS_STEP, AXIS_TIME or AXIS_METRIC")
        query = ChartQuery(
            runs=convert.names_from_proto(request.runs, request.parent, "runs"),
            keys=tuple(request.keys),
            max_points=request.max_points,
            min_step=request.min_step,
            max_step=request.max_step,
            axis=Axis(_AXES[request.axis], request.axis_metric),
            half_life=request.half_life,
            aligned_points=request.aligned_points,
        )
        query.check()
        if query.is_plain:
            plain = await self._tracking.query_metrics(current_principal(), project, query)
            return pb.QueryMetricsResponse(series=[convert.series_to_proto(each) for each in plain])
        found = await self._charts.query(current_principal(), project, query)
        return pb.QueryMetricsResponse(series=[_to_proto(each) for each in found])


def _to_proto(chart: ChartSeries) -> metric_pb2.MetricSeries:
    message = convert.series_to_proto(chart.series)
    message.axis_values.extend(chart.places.tolist())
    message.smoothed_values.extend([] if chart.smoothed is None else chart.smoothed.tolist())
    message.left_out_points = chart.left_out
    return message
