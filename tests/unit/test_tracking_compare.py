"""Which run is better, and the sentence that says so."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from finemesh.core.errors import InvalidError
from finemesh.core.metrics import Goal
from finemesh.core.names import Name
from finemesh.tracking.compare import ConfigDifference, compare
from finemesh.tracking.domain import Run, Summary

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def run(run_id: str, params: dict[str, str] | None = None, **last_values: float) -> Run:
    """A run whose metrics are written `test_accuracy` for `test/accuracy`."""
    values = {key.replace("_", "/", 1): value for key, value in last_values.items()}
    summaries = tuple(Summary(key, values[key], 10, values[key], 10, 1) for key in sorted(values))
    return Run(
        name=Name("p", "runs", run_id),
        params=params or {},
        create_time=NOW,
        update_time=NOW,
        summaries=summaries,
    )


def measured(run_id: str, value: float, low: float, high: float) -> Run:
    return run(run_id, test_accuracy=value, test_accuracy_low=low, test_accuracy_high=high)


def test_overlapping_intervals_are_not_conclusive() -> None:
    result = compare([measured("a", 0.91, 0.87, 0.94), measured("b", 0.953, 0.92, 0.98)])
    assert result.metric == "test/accuracy"
    assert result.better_run == "projects/p/runs/b"
    assert not result.conclusive
    assert result.verdict == (
        "run b is better on test/accuracy: 0.953 [0.92, 0.98] against 0.91 [0.87, 0.94];"
        " the intervals overlap, so this is not conclusive"
    )


def test_what_has_no_goal_decides_nothing_unless_one_is_named() -> None:
    runs = [run("a", train_grad_norm=1.5), run("b", train_grad_norm=0.5)]
    undecided = compare(runs, "train/grad_norm")
    assert (undecided.better_run, undecided.metrics[0].goal, undecided.conclusive) == ("", None, False)
    assert undecided.verdict.startswith("no verdict: train/grad_norm is better neither high nor low")
    assert compare(runs, "train/grad_norm", Goal.MINIMIZE).better_run == "projects/p/runs/b"


def test_intervals_that_are_apart_are_conclusive() -> None:
    result = compare([measured("a", 0.5, 0.45, 0.55), measured("b", 0.9, 0.85, 0.94)])
    assert result.conclusive
    assert result.verdict.endswith("the intervals are apart, so this is conclusive")


def test_seeds_differ_that_programs_state_beside_their_params() -> None:
    runs = [replace(run(name), lineage={"seed": seed}) for name, seed in (("a", "1"), ("b", "2"))]
    assert compare(runs).config_differences == (ConfigDifference("seed", ("1", "2")),)
    of_jobs = [replace(each, training_job="projects/p/trainingJobs/j") for each in runs]
    assert compare(of_jobs).config_differences == ()


def test_intervals_that_touch_are_not_apart() -> None:
    assert not compare([measured("a", 0.5, 0.4, 0.6), measured("b", 0.7, 0.6, 0.8)]).conclusive


def test_without_intervals_nothing_is_conclusive() -> None:
    result = compare([run("a", test_accuracy=0.1), run("b", test_accuracy=0.9)])
    assert result.better_run == "projects/p/runs/b"
    assert not result.conclusive
    assert "without an interval for both (test/accuracy_low, test/accuracy_high)" in result.verdict


def test_a_loss_is_better_when_lower_unless_the_caller_says_otherwise() -> None:
    runs = [run("a", val_loss=0.5), run("b", val_loss=0.7)]
    assert compare(runs).better_run == "projects/p/runs/a"
    assert compare(runs, "val/loss", Goal.MAXIMIZE).better_run == "projects/p/runs/b"


def test_a_tie_has_no_better_run() -> None:
    result = compare([measured("a", 0.9, 0.8, 0.95), measured("b", 0.9, 0.85, 0.92)])
    assert result.better_run == ""
    assert not result.conclusive
    assert result.verdict.startswith("no run is better on test/accuracy: a has 0.9")


def test_the_metric_that_decides_is_one_that_all_runs_have() -> None:
    runs = [run("a", test_accuracy=0.9, val_loss=0.3), run("b", val_loss=0.2)]
    result = compare(runs)
    assert (result.metric, result.better_run) == ("val/loss", "projects/p/runs/b")


def test_a_metric_that_some_runs_lack_is_decided_among_the_others() -> None:
    runs = [run("a", test_accuracy=0.9), run("b", val_loss=0.2), run("c", test_accuracy=0.8)]
    result = compare(runs, "test/accuracy")
    assert result.better_run == "projects/p/runs/a"
    assert result.verdict.endswith("; without this metric: b")
    [accuracy] = [each for each in result.metrics if each.key == "test/accuracy"]
    assert accuracy.summaries[1] is None


def test_a_metric_of_a_single_run_decides_nothing() -> None:
    result = compare([run("a", test_accuracy=0.9), run("b", val_loss=0.2)], "test/accuracy")
    assert result.better_run == ""
    assert result.verdict.startswith("no verdict: only run a has test/accuracy: 0.9")


def test_runs_without_a_common_metric_get_no_verdict() -> None:
    result = compare([run("a", test_accuracy=0.9), run("b", val_loss=0.2)])
    assert (result.metric, result.better_run, result.conclusive) == ("", "", False)
    assert result.verdict.startswith("no verdict")


def test_an_unknown_metric_is_refused_with_those_there_are() -> None:
    runs = [run("a", val_loss=0.1), run("b", val_loss=0.2)]
    for asked, says in (("val/f1", "they have val/loss"), ("val/los", "did you mean 'val/loss'")):
        with pytest.raises(InvalidError, match=says) as refusal:
            compare(runs, asked)
        assert refusal.value.reason == "METRIC_NOT_LOGGED"


def test_nan_loses_against_any_figure() -> None:
    result = compare([run("a", val_loss=math.nan), run("b", val_loss=100.0)])
    assert result.better_run == "projects/p/runs/b"
    both = compare([run("a", val_loss=math.nan), run("b", val_loss=math.nan)])
    assert both.better_run == ""


def test_of_three_runs_the_two_best_are_set_against_each_other() -> None:
    runs = [measured("a", 0.5, 0.4, 0.6), measured("b", 0.95, 0.93, 0.97), measured("c", 0.9, 0.88, 0.92)]
    result = compare(runs)
    assert result.conclusive
    assert result.verdict.startswith("run b is best of 3 on test/accuracy: 0.95 [0.93, 0.97] against 0.9")
    assert "of run c, the next best" in result.verdict


def test_only_what_differs_is_listed() -> None:
    first = run("a", {"method.lora.rank": "4", "seed": "1", "method": "lora"}, val_loss=1.0)
    second = run("b", {"method.lora.rank": "16", "seed": "1"}, val_loss=1.0)
    differences = {each.field: each.values for each in compare([first, second]).config_differences}
    assert differences == {"method": ("lora", ""), "method.lora.rank": ("4", "16")}
