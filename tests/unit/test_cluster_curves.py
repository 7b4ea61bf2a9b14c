"""What a model card is told of a run."""

from __future__ import annotations

import pytest
from finemesh.cluster.workers.curves import energy_joules, final_test
from finemesh.v1.evaluation_pb2 import Evaluation
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


def test_the_final_test_is_told_of_the_checkpoint_that_was_tested_alone() -> None:
    curves = {"test/loss": [(40, 0.5)], "val/loss": [(20, 0.4), (40, 0.6)]}
    evaluations = [Evaluation(step=20, attempt=2), Evaluation(step=40, attempt=2, variant="untrained")]
    assert final_test(curves, evaluations, 20) == {"test/loss": 0.5}
    assert final_test(curves, evaluations, 40) == {}
    # A later attempt tested another one: what stands last is its.
    assert final_test(curves, [*evaluations, Evaluation(step=40, attempt=3)], 20) == {}
    assert final_test(curves, [], 20) == {}
