"""What is kept of held-out items is what the metrics were computed from, and says which items they are."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from finemesh.core.errors import InvalidError
from finemesh.core.spec.finetune import Evaluation, Optimization, Sequence, Task
from finemesh.finetune.hooks import NoHooks
from finemesh.finetune.item_results import ItemResults, item_digests, read_results, row_digests
from finemesh.finetune.loop import train

from tests.support.conversations import spec, text_rows, tiny_model, write_dataset


@dataclass
class Recorder(NoHooks):
    values: dict[str, float] = field(default_factory=dict[str, float])
    told: dict[tuple[str, int], list[ItemResults]] = field(default_factory=dict)  # pyright: ignore[reportUnknownVariableType]

    def on_metrics(self, step: int, values: dict[str, float]) -> None:
        self.values |= {f"{step}:{key}": value for key, value in values.items()}

    def on_evaluation(self, split: str, step: int, folder: Path) -> None:
        self.told[split, step] = list(read_results(folder, split))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [*text_rows({"train": 12, "val": 6, "test": 6})]
    return write_dataset(tmp_path_factory.mktemp("data") / "one", rows)


def mean(found: ItemResults, metric: str) -> float:
    return float(np.average(found.values[metric], weights=found.weights.get(metric)))


def test_every_validation_and_test_tells_items_that_give_its_metrics(tmp_path: Path, dataset: Path) -> None:
    recorder = Recorder()
    chosen = spec(
        Task.LANGUAGE,
        validation_split="val",
        test_split="test",
        optimization=Optimization(max_steps=4, micro_batch_size=2),
        evaluation=Evaluation(every_steps=2, baselines=True),
        sequence=Sequence(max_tokens=64),
    )
    model = tiny_model(tmp_path / "base", "llama")
    train(chosen, base_model=model, dataset=dataset, work=tmp_path / "work", hooks=recorder)
    assert {split for split, _ in recorder.told} == {"val", "test"}
    assert {step for split, step in recorder.told if split == "val"} >= {2, 4}
    for (split, step), evaluations in recorder.told.items():
        logged = 4 if split == "test" else step  # the test is of the best weights, and logged at the end
        by_variant = {each.variant: each for each in evaluations}
        assert set(by_variant) == ({"", "untrained"} if split == "test" else {""})
        for metric in ("loss", "accuracy", "token_accuracy"):
            expected = recorder.values[f"{logged}:{split}/{metric}"]
            assert mean(by_variant[""], metric) == pytest.approx(expected, abs=1e-9)
        assert len(set(by_variant[""].ids)) == 6


def test_the_same_row_has_the_same_digest_in_any_dataset_and_another_one_has_not(
    tmp_path: Path, dataset: Path
) -> None:
    rows = list(text_rows({"train": 2, "val": 6, "test": 6}))
    changed = next(row for row in rows if row["split"] == "val")
    changed["messages"] = [
        {**each, "content": [{"type": "text", "text": "other words"}]} for each in changed["messages"]
    ]
    other = write_dataset(tmp_path / "other", rows)
    ids = {row["row_id"] for row in rows}
    before, after = row_digests(dataset, ids), row_digests(other, ids)
    assert len(set(before.values())) > 1
    assert {row for row in after if before.get(row) != after[row]} >= {changed["row_id"]}


def test_a_piece_of_a_text_is_named_by_its_row_and_its_cut() -> None:
    one, other = item_digests(["a", "b#0"], {"a": "x", "b": "y"}, 8)
    assert one == "x"
    assert other not in {
        "y",
        item_digests(["b#1"], {"b": "y"}, 8)[0],
        item_digests(["b#0"], {"b": "y"}, 9)[0],
    }
    with pytest.raises(InvalidError, match="in no row"):
        item_digests(["c"], {"a": "x"}, 8)


def test_lines_of_something_else_are_no_items(tmp_path: Path) -> None:
    (tmp_path / "test_classes.jsonl").write_text('{"class": "a", "f1": 1.0}\n')
    (tmp_path / "test.jsonl").write_text(
        '{"row_id": "a", "group": "v", "correct": true, "loss": null, "said": "x"}\n'
        '{"row_id": "b", "group": "b", "correct": false, "loss": 2.5}\n'
    )
    [found] = read_results(tmp_path, "test")
    assert (found.ids, found.groups) == (["a", "b"], ["v", "b"])
    assert found.values["accuracy"] == [1.0, 0.0]
    assert np.array_equal(found.values["loss"], [np.nan, 2.5], equal_nan=True)
    assert replace(found, weights={}) == found
