"""What a run used, out of the power of its GPUs."""

from __future__ import annotations

import pytest
from finemesh.cluster.workers.curves import energy_joules
from finemesh.v1.metric_pb2 import MetricSeries


def power(*points: tuple[float, float]) -> MetricSeries:
    """Of one GPU: seconds, watts."""
    times, watts = zip(*points, strict=True)
    return MetricSeries(values=watts, times_us=[int(1e6 * time) for time in times])


def test_energy_is_power_over_time_without_the_pause_between_attempts() -> None:
    rising = power(*((second, 100.0 + second) for second in range(61)))
    assert energy_joules([rising]) == pytest.approx(60 * 130)
    steady = [(float(second), 300.0) for second in range(0, 100, 10)]
    resumed = [(3600.0 + second, 200.0) for second in range(0, 100, 10)]
    assert energy_joules([rising, power(*steady, *resumed)]) == pytest.approx(7800 + 90 * 300 + 90 * 200)
    assert energy_joules([power((5.0, 100.0))]) == 0
