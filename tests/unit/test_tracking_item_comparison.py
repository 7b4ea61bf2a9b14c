"""Runs compared by items: what counts as the same item and the same configuration, and what is said of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from finemesh.core.errors import InvalidError
from finemesh.core.metrics import Goal
from finemesh.core.names import Name
from finemesh.tracking.costs import costs_of, lineage_differences
from finemesh.tracking.domain import Run
from finemesh.tracking.evaluations import MAX_ITEMS, Evaluation, ItemMetric, Items, from_parquet, to_parquet
from finemesh.tracking.item_comparison import (
    ItemComparison,
    NotComparable,
    compare_items,
    grouped,
    item_metric_of,
)
from finemesh.tracking.statistics import Floats
from finemesh.tracking.verdicts import recommendations, standing, verdict
from hypothesis import given
from hypothesis import strategies as st

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def run(run_id: str, lineage: Mapping[str, Any] | None = None, hours: float = 1.0, **params: str) -> Run:
    return Run(
        name=Name("p", "runs", run_id),
        params=params,
        lineage=lineage or {},
        create_time=NOW,
        end_time=NOW + timedelta(hours=hours),
        update_time=NOW,
    )


def items(values: Floats | list[float], ids: list[str] | None = None, **columns: Any) -> Items:
    array = np.asarray(values, np.float64)
    names = ids or [f"i{index}" for index in range(len(array))]
    metric = ItemMetric(array, columns.pop("weights", None))
    return Items(tuple(names), columns.get("digests", ()), columns.get("groups", ()), {"accuracy": metric})


def evaluated(name: str) -> Evaluation:
    return Evaluation(run=Name("p", "runs", name), split="test", step=1, attempt=1)


def compared(*told: tuple[Run, Items]) -> ItemComparison:
    runs, columns = zip(*told, strict=True)
    return compare_items("accuracy", runs, [evaluated(each.name.id) for each in runs], columns)


def decided(found: ItemComparison, *runs: Run, goal: Goal = Goal.MAXIMIZE) -> tuple[str, tuple[str, ...]]:
    names, stand = [each.name.id for each in runs], standing(found, goal)
    values = [mean for group in found.groups for mean in group.run_means]
    costs = costs_of(runs, values, 0, goal, 2.0, NOW)
    lineage = lineage_differences(runs)
    told = recommendations(names, found, stand, costs, (), lineage)
    return verdict("test/accuracy", names, found, stand), told


def test_runs_that_differ_in_their_seed_alone_are_one_group() -> None:
    code = {"code": {"commit": "c1"}, "hardware": {"hostname": "a"}}
    runs = [
        run("a1", code, rank="4", seed="1"),
        run("b1", code, rank="8", seed="1"),
        run("a2", {**code, "hardware": {"hostname": "b"}}, rank="4", seed="2"),
        run("a3", {"code": {"commit": "c2"}}, rank="4", seed="3"),
        run("a4", {**code, "dataset_digest": "other"}, rank="4", seed="4"),
    ]
    assert grouped(runs) == [(0, 2), (1,), (3,), (4,)]


def test_only_items_with_the_same_id_content_and_weight_count() -> None:
    rng = np.random.default_rng(0)
    first = items(
        [1, 0, 1, 1, math.nan, 1],
        list("abcdef"),
        digests=tuple("111111"),
        weights=np.array([1.0, 1, 1, 2, 1, 1]),
    )
    second = items(
        rng.random(6), list("fedcba"), digests=tuple("111121"), weights=np.array([1.0, 1, 1, 1, 1, 1])
    )
    found = compared((run("a", rank="1"), first), (run("b", rank="2"), second))
    # b has another content, d another weight, e no value.
    assert (found.item_count, found.left_out_count) == (3, 3)
    assert found.groups[0].mean == pytest.approx(1.0)
    shared = second.metrics["accuracy"].values[[5, 3, 0]]
    assert found.groups[1].mean == pytest.approx(shared.mean())
    with pytest.raises(NotComparable, match="0 items in common"):
        compared((run("a", rank="1"), items([1, 2], ["x", "y"])), (run("b", rank="2"), first))
    with pytest.raises(NotComparable, match="nothing but their seeds"):
        compared((run("a", seed="1"), first), (run("b", seed="2"), first))


def test_a_clear_difference_is_told_with_its_price() -> None:
    rng = np.random.default_rng(1)
    worse, better = (rng.random(400) < 0.5).astype(float), (rng.random(400) < 0.8).astype(float)
    runs = run("a", rank="4", hours=1), run("b", rank="16", hours=3)
    found = compared((runs[0], items(worse)), (runs[1], items(better)))
    said, told = decided(found, *runs)
    assert said.startswith(
        f"b is better on test/accuracy: b has {better.mean():.4g}, a has {worse.mean():.4g}"
    )
    assert said.endswith("this is more than noise")
    assert told[0] == "Take b."
    assert any("train each with more seeds" in each for each in told)
    gain = better.mean() - worse.mean()
    per_point = 3 / (gain / 0.01)
    assert told[-1] == (
        f"A gain of {gain:.4g} took 3 hours of a device: {per_point * 60:.3g} minutes for each hundredth,"
        f" {per_point * 2:.4g} at the given price."
    )


def test_what_cannot_be_told_yet_says_how_many_items_are_missing() -> None:
    rng = np.random.default_rng(3)
    values_IS = rng.normal(size=(100, 2)) + [0.15, 0.0]
    runs = run("dear", rank="16", hours=9), run("cheap", rank="4", hours=1)
    found = compared(*zip(runs, (items(column) for column in values_IS.T), strict=True))
    [difference] = found.differences
    said, told = decided(found, *runs)
    assert not difference.is_real
    assert said.startswith("cannot tell yet on test/accuracy: ")
    assert f"about {difference.items_needed} more items would show a difference of this size" in said
    assert told[0] == f"To tell more, evaluate on about {difference.items_needed} more items like these."
    assert told[1].startswith("Until then cheap is the cheaper choice")


def test_a_loss_is_better_when_lower_and_equal_models_are_equal() -> None:
    losses = np.linspace(1, 2, 60)
    runs = run("a", rank="1"), run("b", rank="2")
    found = compared((runs[0], items(losses + 0.5)), (runs[1], items(losses)))
    assert standing(found, Goal.MINIMIZE).best == 1
    same = compared((runs[0], items(losses)), (runs[1], items(losses)))
    said, told = decided(same, *runs)
    assert said.startswith("cannot tell yet")
    assert "there is no difference at all" in said
    assert told[0].startswith("No difference is seen.")


def test_seeds_that_differ_more_than_configurations_ask_for_more_seeds() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(size=2000)
    told = [(f"a{seed}", "4", shift) for seed, shift in enumerate((0.0, 0.3))]
    told += [(f"b{seed}", "16", shift) for seed, shift in enumerate((0.1, 0.35))]
    runs = [run(name, rank=rank, seed=name[1]) for name, rank, _ in told]
    columns = [items(base + shift + 0.1 * rng.normal(size=2000)) for _, _, shift in told]
    found = compared(*zip(runs, columns, strict=True))
    said, advice = decided(found, *runs)
    assert "[b0, b1] has" in said
    assert "seeds differ as much" in said
    assert advice[0].endswith("train with more seeds.")


def test_what_differs_in_lineage_is_told_by_kind() -> None:
    one = {
        "dataset": "d",
        "code": {"commit": "1", "dirty": True},
        "environment": {"libraries": {"torch": "2"}},
    }
    other = {"dataset": "d", "code": {"commit": "2"}, "hardware": {"gpus": ["H200", "H200"]}}
    found = lineage_differences([run("a", one), run("b", other)])
    assert found.data == ()
    assert {each.field: each.values for each in found.code} == {
        "code.commit": ("1", "2"),
        "code.dirty": ("true", ""),
    }
    assert {each.field: each.values for each in found.environment} == {
        "environment.libraries.torch": ("2", ""),
        "hardware.gpus": ("", "H200, H200"),
    }


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("val/loss", ("val", "loss")),
        ("test/map", ("test", "average_precision")),
        ("val/perplexity", ("val", "loss")),
        ("loss", ("", "")),
    ],
)
def test_which_metric_of_items_is_behind_a_metric(key: str, expected: tuple[str, str]) -> None:
    assert item_metric_of(key) == expected


@given(
    st.lists(st.floats(allow_nan=True, width=64), min_size=1, max_size=20),
    st.booleans(),
    st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=10),
)
def test_a_file_gives_back_what_was_put_into_it(values: list[float], weighted: bool, key: str) -> None:
    weights = np.arange(len(values), dtype=np.float64) if weighted else None
    told = items(values, groups=("g",) * len(values), weights=weights)
    told = Items(told.ids, told.digests, told.groups, {key: told.metrics["accuracy"]})
    evaluation = evaluated("r").of(told, NOW)
    back = from_parquet(evaluation, to_parquet(evaluation, told))
    assert (back.ids, back.digests, back.groups) == (told.ids, told.digests, told.groups)
    assert np.array_equal(back.metrics[key].values, values, equal_nan=True)
    assert back.sha256 == told.sha256


@pytest.mark.parametrize(
    ("count", "told"), [(0, "is empty"), (MAX_ITEMS + 1, "log a sample, the same items")]
)
def test_no_items_and_too_many_are_told_what_to_do(count: int, told: str) -> None:
    with pytest.raises(InvalidError, match=told):
        Items(("i",) * count, (), (), {}).check()
