"""Metrics that installed packages bring, found by their entry points."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
from finemesh.core.errors import InvalidError, PreconditionError
from finemesh.core.spec.finetune import Evaluation, Task
from finemesh.core.spec.finetune_rules import OWN_METRICS
from finemesh.finetune.loop import train
from finemesh.finetune.metrics import OPEN_METRICS, installed_metrics, measure

from tests.support.conversations import spec, text_rows, tiny_model, write_dataset


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package as pip leaves it, with a metric that works and one that does not load."""
    site = tmp_path / "site"
    (site / "own_metrics-1.dist-info").mkdir(parents=True)
    (site / "own_metrics-1.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: own-metrics\nVersion: 1\n"
    )
    points = "[finemesh.metrics]\nlength_ratio = own_metrics:length_ratio\nbroken = own_metrics:nothing\n"
    (site / "own_metrics-1.dist-info" / "entry_points.txt").write_text(points)
    (site / "own_metrics.py").write_text(
        "def length_ratio(prediction, expected):\n"
        "    return len(prediction) / len(expected) if 'red' in expected else None\n"
    )
    monkeypatch.syspath_prepend(site)
    importlib.invalidate_caches()


@pytest.mark.usefixtures("installed")
def test_an_installed_metric_compares_the_answers_of_the_final_test(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "texts", list(text_rows({"train": 8, "test": 16})))
    chosen = spec(
        Task.LANGUAGE,
        test_split="test",
        evaluation=Evaluation(max_generated_tokens=6, metrics=("length_ratio",)),
    )
    base = tiny_model(tmp_path / "llama", "llama")
    result = train(chosen, base_model=base, dataset=dataset, work=tmp_path / "work")
    items = [json.loads(line) for line in (tmp_path / "work/evaluation/test.jsonl").read_text().splitlines()]
    told = [item["length_ratio"] for item in items if "length_ratio" in item]
    assert 0 < len(told) < len(items)
    assert result.metrics["test/length_ratio"] == pytest.approx(sum(told) / len(told))
    assert result.metrics["test/length_ratio_low"] <= result.metrics["test/length_ratio"]


def test_what_is_measured_anyway_is_not_asked_for() -> None:
    assert OPEN_METRICS.keys() <= set(OWN_METRICS)
    for name in (*OWN_METRICS, "val/loss"):
        with pytest.raises(InvalidError, match=f"{name} is measured anyway where it applies") as caught:
            spec(Task.LANGUAGE, evaluation=Evaluation(metrics=("own", name))).validate()
        assert [each.field for each in caught.value.violations] == ["spec.evaluation.metrics[1]"]


@pytest.mark.parametrize(
    ("metric", "why"),
    [
        (lambda said, wanted: len(said) / len(wanted), "ZeroDivisionError: division by zero"),
        (lambda said, wanted: "good", "ValueError: could not convert string to float: 'good'"),
        (lambda said: 1.0, "TypeError: "),
    ],
)
def test_one_that_fails_is_named_with_the_item(metric: Any, why: str) -> None:
    with pytest.raises(PreconditionError, match="the metric 'own' failed on row r-1") as caught:
        measure({"exact_match": lambda _said, _wanted: None, "own": metric}, "red", "", "r-1")
    assert caught.value.reason == "METRIC_FAILED"
    assert why in caught.value.message
    assert "predicted 'red', expected ''" in caught.value.message


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lenght_ratio", r"there are: broken, length_ratio \(did you mean length_ratio\?\)"),
        ("exact_mach", r"did you mean exact_match\?"),
        ("broken", "own_metrics:nothing does not load"),
    ],
)
def test_one_that_is_not_there_is_an_error_that_lists_those_there_are(name: str, message: str) -> None:
    with pytest.raises(InvalidError, match=message) as caught:
        installed_metrics([name])
    assert caught.value.reason == "METRIC_UNKNOWN"
    assert [each.field for each in caught.value.violations] == ["spec.evaluation.metrics[0]"]
