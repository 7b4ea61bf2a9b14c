"""Curves of several runs over steps, time and tokens, through the service."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pytest
from finemesh.core.errors import FinemeshError, InvalidError, PreconditionError
from finemesh.v1 import metric_pb2
from finemesh.v1 import tracking_service_pb2 as pb

from tests.support.tracking import Client

pytestmark = pytest.mark.integration

Clients = Callable[..., Client]
Axis: Final = pb.QueryMetricsRequest
RUNS: Final = ["projects/p/runs/slow", "projects/p/runs/fast"]


async def logged(client: Client, run: str, tokens_a_step: int) -> None:
    """100 steps with a loss that tells its step, and tokens at every tenth from the second on."""
    await client.create(run.rsplit("/", 1)[1])
    keys = ["train/loss", "tokens", "down"]
    points = [(0, step, 1000.0 - step) for step in range(100)]
    points += [(1, step, float(tokens_a_step * step)) for step in range(10, 100, 10)]
    points += [(2, 0, 2.0), (2, 1, 1.0)]
    indices, steps, values = zip(*points, strict=True)
    batch = metric_pb2.MetricBatch(
        run=run, attempt=1, sequence=1, keys=keys, key_indices=indices, steps=steps, values=values
    )
    batch.times_us.extend(1_000_000_000 + 250_000 * step for step in steps)
    await client.log(batch)


async def query(client: Client, **fields: Any) -> list[metric_pb2.MetricSeries]:
    request = pb.QueryMetricsRequest(parent="projects/p", keys=["train/loss"], **fields)
    return list((await client.call("QueryMetrics", request)).series)


async def test_runs_share_an_axis(clients: Clients) -> None:
    client = clients()
    for run, tokens in zip(RUNS, (10, 40), strict=True):
        await logged(client, run, tokens)
    slow, fast = await query(client, runs=RUNS, axis=Axis.AXIS_METRIC, axis_metric="tokens")
    assert (slow.left_out_points, len(slow.steps)) == (19, 81)  # 0 to 9 and 91 to 99
    assert np.allclose(slow.axis_values, 10 * np.arange(10, 91))
    assert np.allclose(fast.axis_values, 40 * np.arange(10, 91))
    [timed] = await query(client, runs=RUNS[:1], axis=Axis.AXIS_TIME, min_step=50)
    assert timed.axis_values == [0.25 * step for step in range(50, 100)]
    # A mean goes over the whole curve, whatever part of it is shown: a straight line lags by a constant.
    [smooth] = await query(client, runs=RUNS[:1], half_life=1, min_step=90, max_points=10)
    assert [value + step for value, step in zip(smooth.values, smooth.steps, strict=True)] == [1000] * 10
    lag = [mean - value for mean, value in zip(smooth.smoothed_values, smooth.values, strict=True)]
    assert lag == pytest.approx([1.0] * 10)
    slow, fast = await query(
        client, runs=RUNS, axis=Axis.AXIS_METRIC, axis_metric="tokens", aligned_points=36
    )
    assert slow.axis_values == fast.axis_values == [100.0 * place for place in range(1, 37)]
    assert slow.values[:9] == pytest.approx([1000 - 10 * place for place in range(1, 10)])
    assert all(map(math.isnan, slow.values[9:]))
    assert fast.values[3:] == pytest.approx([1000 - 2.5 * place for place in range(4, 37)])


@pytest.mark.parametrize(
    ("fields", "error", "says"),
    [
        ({"axis": Axis.AXIS_METRIC}, InvalidError, "axis_metric"),
        ({"axis_metric": "tokens"}, InvalidError, "axis_metric"),
        ({"half_life": -1}, InvalidError, "half_life"),
        ({"half_life": math.inf}, InvalidError, "half_life"),
        ({"aligned_points": 1}, InvalidError, "aligned_points"),
        ({"axis": 9}, InvalidError, "axis"),
        ({"axis": Axis.AXIS_METRIC, "axis_metric": "down"}, PreconditionError, "falls from 2"),
    ],
)
async def test_a_wrong_axis_is_told_what_is_wrong(
    clients: Clients, fields: dict[str, Any], error: type[FinemeshError], says: str
) -> None:
    with pytest.raises(error, match=says) as refused:
        await query(clients(), runs=RUNS[:1], **fields)
    assert refused.value.reason in {"INVALID_ARGUMENT", "AXIS_NOT_ASCENDING"}
