"""Summaries that grow with the points, and the rule that says when they must be computed again."""

from __future__ import annotations

import math

import numpy as np
import pytest
from finemesh.core.metrics import Goal, goal_of
from finemesh.tracking.domain import Batch, RunPoints, Summary
from finemesh.tracking.past import gathered
from finemesh.tracking.summaries import Delta, extend, is_better, new_best, summarize_run
from hypothesis import given
from hypothesis import strategies as st

NAN = math.nan


def batch(sequence: int, steps: list[int], values: list[float], attempt: int = 1, key: str = "loss") -> Batch:
    count = len(steps)
    return Batch(
        run="projects/p/runs/r",
        attempt=attempt,
        sequence=sequence,
        keys=(key,),
        key_indices=np.zeros(count, np.int64),
        steps=np.array(steps, np.int64),
        values=np.array(values, np.float64),
        times_us=np.zeros(count, np.int64),
    )


def from_points(batches: list[Batch]) -> tuple[Summary, ...]:
    return summarize_run(RunPoints(gathered(batches), {}))


def delta_of(*batches: Batch) -> Delta:
    delta = Delta()
    for each in batches:
        delta.add(each)
    return delta


@pytest.mark.parametrize(
    ("key", "goal"),
    [
        ("train/loss", Goal.MINIMIZE),
        ("val/word_error", Goal.MINIMIZE),
        ("step_seconds", Goal.MINIMIZE),
        ("peak_memory_bytes", Goal.MINIMIZE),
        ("test/accuracy", Goal.MAXIMIZE),
        ("test/loss_low", Goal.MINIMIZE),
        ("glossary_score", Goal.MAXIMIZE),
        ("train/grad_norm", None),
        ("train/learning_rate", None),
        ("system/machine/disk_percent", None),
        ("test/items", None),
    ],
)
def test_the_goal_is_told_from_whole_words_of_the_name(key: str, goal: Goal | None) -> None:
    assert goal_of(key) is goal


def test_last_and_best() -> None:
    [summary] = from_points([batch(1, [10, 20, 30, 40], [3.0, 1.0, NAN, 2.0])])
    assert (summary.last_value, summary.last_step) == (2.0, 40)
    assert (summary.best_value, summary.best_step) == (1.0, 20)
    assert summary.point_count == 4


def test_without_a_finite_value_there_is_no_best() -> None:
    [summary] = from_points([batch(1, [1, 2], [NAN, math.inf])])
    assert math.isnan(summary.best_value)
    assert summary.last_value == math.inf


def test_nan_never_wins() -> None:
    assert is_better(1.0, NAN, Goal.MAXIMIZE)
    assert not is_better(NAN, 1.0, Goal.MINIMIZE)
    assert not is_better(NAN, NAN, Goal.MINIMIZE)


def test_later_points_extend_a_summary() -> None:
    first, second = batch(1, [1, 2], [5.0, 4.0]), batch(2, [3, 4], [3.0, 6.0])
    before = from_points([first])
    assert delta_of(second).applied_to(before, {1: 1}) == from_points([first, second])


@pytest.mark.parametrize(
    ("late", "summarized"),
    [
        (batch(2, [2, 3], [1.0, 1.0]), {1: 1}),  # step 2 again
        (batch(1, [2, 3], [1.0, 1.0], attempt=2), {1: 1}),  # a resumed attempt
        (batch(3, [3], [1.0]), {1: 1}),  # batch 2 is missing
        (batch(2, [4, 3], [1.0, 1.0]), {1: 1}),  # out of order
    ],
)
def test_what_is_not_a_plain_continuation_is_computed_again(late: Batch, summarized: dict[int, int]) -> None:
    before = from_points([batch(1, [1, 2], [5.0, 4.0])])
    assert delta_of(late).applied_to(before, summarized) is None


def test_a_delta_that_was_counted_is_recognised() -> None:
    delta = delta_of(batch(1, [1], [1.0]), batch(2, [2], [1.0]))
    assert delta.is_in({1: 2})
    assert not delta.is_in({1: 1})
    assert delta.applied_to(from_points([batch(1, [1], [1.0])]), {1: 1}) is None  # half of it was


def test_a_new_best_is_of_the_deciding_metric() -> None:
    before = from_points([batch(1, [1, 2], [2.0, 1.0], key="train/loss")])
    worse = from_points([batch(1, [1, 2, 3], [2.0, 1.0, 1.5], key="train/loss")])
    better = from_points([batch(1, [1, 2, 3], [2.0, 1.0, 0.5], key="train/loss")])
    assert new_best(before, worse) is None
    found = new_best(before, better)
    assert found is not None
    assert (found.key, found.best_value, found.best_step) == ("train/loss", 0.5, 3)
    # From the first validation on, that decides.
    validated = (*better, *from_points([batch(1, [3], [0.7], key="val/loss")]))
    deciding = new_best(better, validated)
    assert deciding is not None
    assert deciding.key == "val/loss"


@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 30), min_size=1, max_size=5),
            st.integers(1, 2),
            st.lists(st.sampled_from([0.0, 1.0, -2.0, 3.0, NAN, math.inf]), min_size=5, max_size=5),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_growing_summaries_equal_those_computed_from_all_points(
    parts: list[tuple[list[int], int, list[float]]],
) -> None:
    sequences: dict[int, int] = {}
    batches: list[Batch] = []
    summaries: tuple[Summary, ...] = ()
    for steps, attempt, values in parts:
        marks = dict(sequences)
        sequences[attempt] = sequences.get(attempt, 0) + 1
        batches.append(batch(sequences[attempt], steps, values[: len(steps)], attempt))
        grown = delta_of(batches[-1]).applied_to(summaries, marks)
        expected = from_points(batches)
        assert grown is None or repr(grown) == repr(expected)  # repr: NaN equals NaN
        summaries = expected


def test_extending_by_a_stretch_without_finite_values_keeps_the_best() -> None:
    [first], [second] = from_points([batch(1, [1], [2.0])]), from_points([batch(2, [2], [NAN])])
    joined = extend(first, second)
    assert (joined.best_value, joined.best_step, joined.last_step) == (2.0, 1, 2)
