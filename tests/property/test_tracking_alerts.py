"""When rules fire: by condition, and the same however the points come in."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise

import numpy as np
import pytest
from finemesh.core.errors import InvalidError
from finemesh.core.metrics import Goal
from finemesh.core.names import Name
from finemesh.tracking.alerts import (
    Change,
    Condition,
    Divergence,
    NoHeartbeat,
    NonFinite,
    Rule,
    Stall,
    State,
    Threshold,
    condition_from_json,
    condition_to_json,
    look,
)
from finemesh.tracking.domain import Curve
from hypothesis import given
from hypothesis import strategies as st

NOW = datetime(2026, 1, 1, tzinfo=UTC)
INF, NAN = math.inf, math.nan
CONDITIONS: list[Condition] = [
    Threshold(above=2.0, below=-2.0),
    Stall(3, 0.5),
    Divergence(0.5, 2),
    Divergence(1.0, 1, Goal.MAXIMIZE),
    NonFinite(),
]


def rule(condition: Condition, metric: str = "val/loss") -> Rule:
    return Rule(name=Name("p", "alertRules", "r"), condition=condition, metric=metric, create_time=NOW)


def curve(values: list[float], first: int = 0) -> Curve:
    count = len(values)
    steps = np.arange(first, first + count)
    return Curve(steps, np.array(values), np.zeros(count, np.int64), np.ones(count, np.int16))


def fired(condition: Condition, values: list[float], metric: str = "val/loss") -> list[tuple[bool, int]]:
    _, changes = look(rule(condition, metric), metric, State(), curve(values))
    return [(each.fired, each.step) for each in changes]


@pytest.mark.parametrize(
    ("condition", "values", "expected"),
    [
        (Threshold(above=1.0), [0, 1, 1.5, 2, NAN, 3], [(True, 2), (False, 4), (True, 5)]),
        (Threshold(below=0.0), [0, -1, 0], [(True, 1), (False, 2)]),
        (NonFinite(), [1, NAN, INF, 2, -INF], [(True, 1), (False, 3), (True, 4)]),
        (Stall(2), [3, 2, 2, 2, 1, 1], [(True, 3), (False, 4)]),
        (Stall(2, 0.5), [3, 2.9, 2.8, 2.4], [(True, 2), (False, 3)]),
        (Stall(2), [NAN, NAN, NAN, 1], [(True, 2), (False, 3)]),
        (Divergence(0.5, 2), [2, 1, 1.6, 1.4, 1.6, 1.6, 1.2], [(True, 5), (False, 6)]),
        (Divergence(0.5, 2), [1, INF, NAN, 1], [(True, 2), (False, 3)]),
        (Divergence(0.5, 1, Goal.MAXIMIZE), [1, 0.6, 0.4], [(True, 2)]),
    ],
)
def test_each_condition_fires_where_it_says(
    condition: Condition, values: list[float], expected: list[tuple[bool, int]]
) -> None:
    assert fired(condition, values) == expected


def test_an_accuracy_is_better_when_higher() -> None:
    assert fired(Stall(2), [0.1, 0.2, 0.1, 0.1], "val/accuracy") == [(True, 3)]


@given(
    st.sampled_from(CONDITIONS),
    st.lists(st.floats(-4, 4) | st.sampled_from([NAN, INF, -INF]), min_size=1, max_size=30),
    st.lists(st.integers(0, 30), max_size=6),
    st.lists(st.integers(0, 30), max_size=3),
)
def test_however_points_come_and_come_again_each_change_is_told_once(
    condition: Condition, values: list[float], cuts: list[int], restarts: list[int]
) -> None:
    """Shown in parts, and after a restart (what was stored at the last change) whole again."""
    asked, whole = rule(condition), curve(values)
    _, expected = look(asked, "val/loss", State(), whole)
    told: list[Change] = []
    state = stored = State()
    bounds = sorted({0, len(values), *(cut for cut in cuts if cut < len(values))})
    for start, end in pairwise(bounds):
        state, changes = look(asked, "val/loss", state, whole.take(slice(start, end)))
        if changes:
            state = replace(state, alert="a" if changes[-1].fired else "")
            stored = state
            told += changes
        if start in restarts:
            state, again = look(asked, "val/loss", stored, whole.take(slice(0, end)))
            assert again == []
    assert repr(told) == repr(expected)  # NaN is not equal to itself
    fires = [each.fired for each in told]
    assert all(one != other for one, other in pairwise(fires))


@pytest.mark.parametrize("condition", [*CONDITIONS, NoHeartbeat(5.0)])
def test_a_condition_survives_its_storage(condition: Condition) -> None:
    assert condition_from_json(condition_to_json(condition)) == condition


@pytest.mark.parametrize(
    ("condition", "metric", "words"),
    [
        (Threshold(), "val/loss", "`above`"),
        (Threshold(above=NAN), "val/loss", "finite"),
        (Threshold(above=1), "", "name the metric"),
        (Stall(0), "val/loss", "at least 1"),
        (Stall(1), "train/grad_norm", "give a goal"),
        (Divergence(0.0), "val/loss", "positive"),
        (NoHeartbeat(0.1), "", "at least 1"),
        (NoHeartbeat(5), "val/loss", "must be empty"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(condition: Condition, metric: str, words: str) -> None:
    with pytest.raises(InvalidError, match=words) as refused:
        rule(condition, metric).check()
    assert refused.value.reason == "INVALID_ALERT_RULE"
