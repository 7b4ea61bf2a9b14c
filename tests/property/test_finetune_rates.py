"""Learning rates: they rise to the peak, never rise again, and stay above their floor."""

from __future__ import annotations

from itertools import pairwise

import pytest
from finemesh.core.spec.optimization import Optimization, Schedule
from finemesh.finetune.optimizer import learning_rate
from hypothesis import given
from hypothesis import strategies as st

PEAK = 0.01
fraction = st.floats(0, 1)


@given(
    st.sampled_from(Schedule),
    st.integers(1, 60),
    st.integers(1, 70),
    st.floats(0, 0.99),
    fraction,
    fraction,
)
def test_rates_rise_then_fall_to_their_floor(
    schedule: Schedule, total: int, warmup: int, ratio: float, floor: float, decay: float
) -> None:
    chosen = Optimization(
        learning_rate=PEAK,
        schedule=schedule,
        warmup_steps=warmup,
        warmup_ratio=ratio,
        min_rate_ratio=floor,
        decay_ratio=decay,
    )
    rates = [learning_rate(chosen, step, total) for step in range(total)]
    rising, falling = rates[:warmup], rates[warmup:]
    assert all(0 < rate <= PEAK * (1 + 1e-12) for rate in rising)
    assert rising == sorted(rising)
    if total >= warmup:
        assert rising[-1] == pytest.approx(PEAK)
    assert all(one >= other for one, other in pairwise(falling))
    assert all(rate >= PEAK * floor * (1 - 1e-12) for rate in falling)
