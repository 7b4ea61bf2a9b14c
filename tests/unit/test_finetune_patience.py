"""When a run stops early, and what it is validated on where the dataset has no split for that."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from finemesh.core.errors import InvalidError, PreconditionError
from finemesh.core.spec.finetune import Checkpointing, Evaluation, FineTuneSpec, Optimization, Task
from finemesh.finetune.checkpoint import list_checkpoints
from finemesh.finetune.hooks import NoHooks, Outcome, StopReason, TrainResult
from finemesh.finetune.loop import train

from tests.support.conversations import colour_rows, message, row, spec, text_rows, tiny_model, write_dataset


@dataclass
class Validations(NoHooks):
    """Keeps the validation losses; asks to stop while the one after step `stop_in` is going on."""

    stop_in: int = 0
    step: int = 0
    losses: dict[int, float] = field(default_factory=dict[int, float])

    def on_metrics(self, step: int, values: dict[str, float]) -> None:
        self.step = step
        if "val/loss" in values:
            self.losses[step] = values["val/loss"]

    def should_stop(self) -> StopReason | None:
        return StopReason.PAUSE if self.stop_in and self.step == self.stop_in else None


@dataclass(frozen=True)
class Place:
    base: Path
    work: Path

    def train(self, chosen: FineTuneSpec, dataset: Path, work: str = "work", **arguments: Any) -> TrainResult:
        return train(chosen, base_model=self.base, dataset=dataset, work=self.work / work, **arguments)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[Task, Path]:
    root = tmp_path_factory.mktemp("bases")
    return {
        Task.LANGUAGE: tiny_model(root / "llama", "llama"),
        Task.VISION_LANGUAGE: tiny_model(root / "llava", "llava"),
    }


@pytest.fixture
def place(bases: dict[Task, Path], tmp_path: Path) -> Place:
    return Place(bases[Task.LANGUAGE], tmp_path)


@pytest.fixture
def contrary(tmp_path: Path) -> Path:
    """What is learnt contradicts the validation rows, whose loss therefore rises from the first step on."""

    def answering(split: str, word: str, count: int) -> list[dict[str, Any]]:
        turns = [message("user", "say"), message("assistant", word)]
        return [row(f"{split}-{index}", split, turns) for index in range(count)]

    return write_dataset(tmp_path / "contrary", [*answering("train", "red", 8), *answering("val", "blue", 4)])


def impatient(**evaluation: Any) -> FineTuneSpec:
    return spec(
        Task.LANGUAGE,
        validation_split="val",
        optimization=Optimization(learning_rate=0.02, max_steps=8, micro_batch_size=4, warmup_ratio=0.0),
        evaluation=Evaluation(every_steps=1, **evaluation),
    )


def end_of_patience(losses: dict[int, float], patience: int) -> int:
    """The first step at which so many losses in a row were no lower than the lowest before them."""
    best, in_vain = 0, 0
    for step, loss in losses.items():
        best, in_vain = (step, 0) if not best or loss < losses[best] else (best, in_vain + 1)
        if in_vain == patience:
            return step
    raise AssertionError(losses)


def test_it_stops_when_patience_ends_wherever_it_was_resumed(place: Place, contrary: Path) -> None:
    """Also when it was stopped in the middle of an evaluation, which then counts when it is resumed."""
    place.train(impatient(), contrary, "patient", hooks=(patient := Validations()))
    end = end_of_patience(patient.losses, 2)
    assert 3 <= end < 8
    chosen = impatient(patience=2)
    straight = place.train(chosen, contrary)
    assert (straight.outcome, straight.step, straight.total_steps) == (Outcome.COMPLETED, end, 8)
    assert straight.metrics["val/evaluations_in_vain"] == 2
    saved = dict(list_checkpoints(place.work / "work" / "checkpoints"))
    hooks = Validations(stop_in=end - 1)
    stopped = place.train(chosen, contrary, "stopped", hooks=hooks)
    assert (stopped.outcome, stopped.step, max(hooks.losses)) == (Outcome.PAUSED, end - 1, end - 2)
    for checkpoint in (saved[end - 2], saved[end - 1], saved[end], stopped.checkpoint.path):
        resumed = place.train(chosen, contrary, f"resumed-{checkpoint.parts[-3:]}", resume_from=checkpoint)
        assert (resumed.step, resumed.certificate) == (end, straight.certificate)


@pytest.mark.parametrize("stop_in", [2, 4])
def test_a_checkpoint_of_a_stopped_validation_is_rated_when_the_run_goes_on(
    place: Place, tmp_path: Path, stop_in: int
) -> None:
    """The loss falls, so the last checkpoint is the best: stopped while it, or the first, was being rated."""
    texts = write_dataset(tmp_path / "texts", list(text_rows({"train": 16, "val": 4, "test": 4})))
    chosen = spec(
        Task.LANGUAGE,
        validation_split="val",
        test_split="test",
        optimization=Optimization(learning_rate=4e-3, max_steps=4, micro_batch_size=4, warmup_ratio=0.0),
        checkpoint=Checkpointing(every_steps=2),
    )
    straight = place.train(chosen, texts)
    stopped = place.train(chosen, texts, "stopped", hooks=Validations(stop_in=stop_in))
    assert (stopped.outcome, stopped.step) == (Outcome.PAUSED, stop_in)
    resumed = place.train(chosen, texts, "stopped", resume_from=stopped.checkpoint.path)
    assert (straight.best_step, straight.tested_step) == (4, 4)
    assert (resumed.best_step, resumed.tested_step) == (4, 4)
    assert resumed.certificate == straight.certificate
    assert resumed.metrics["test/loss"] == straight.metrics["test/loss"]


def test_too_small_an_improvement_is_none(place: Place, tmp_path: Path) -> None:
    texts = write_dataset(tmp_path / "texts", list(text_rows({"train": 16, "val": 4})))
    steps = {
        least: place.train(impatient(patience=1, min_improvement=least), texts, f"{least}").step
        for least in (0.0, 100.0)
    }
    assert steps == {0.0: 8, 100.0: 2}


def held_out(work: Path) -> dict[str, list[str]]:
    lines = [json.loads(line) for line in (work / "ledger.jsonl").read_text().splitlines()]
    return {
        split: sorted(each["row_id"] for each in lines if each["split"] == split)
        for split in ("train", "val")
    }


def videos(rows: Sequence[str]) -> set[int]:
    """Of `colour_rows`: four rows make one."""
    return {int(each.rpartition("-")[2]) // 4 for each in rows}


@pytest.mark.parametrize("named", ["", "val"])
def test_whole_videos_are_held_out_where_there_is_no_split(
    bases: dict[Task, Path], tmp_path: Path, named: str
) -> None:
    place = Place(bases[Task.VISION_LANGUAGE], tmp_path)
    dataset = write_dataset(tmp_path / "colours", list(colour_rows({"train": 22})))
    chosen = spec(validation_split=named, evaluation=Evaluation(every_steps=2, holdout_fraction=0.4))
    straight = place.train(chosen, dataset, hooks=(hooks := Validations()))
    parts = held_out(place.work / "work")
    assert len(parts["train"]) + len(parts["val"]) == 22
    assert not videos(parts["train"]) & videos(parts["val"])
    assert 0.4 * 22 <= len(parts["val"]) < 0.4 * 22 + 4
    assert {split: each.kept for split, each in straight.ledgers.items()} == {
        split: len(rows) for split, rows in parts.items()
    }
    assert list(hooks.losses) == [1, 2, 3, 4, 5, 6]  # at each checkpoint, too
    checkpoint = list_checkpoints(place.work / "work" / "checkpoints")[2][1]
    assert place.train(chosen, dataset, "resumed", resume_from=checkpoint).certificate == straight.certificate
    assert held_out(place.work / "resumed") == parts
    other = replace(chosen, optimization=replace(chosen.optimization, seed=5, max_steps=1))
    place.train(other, dataset, "other")
    assert held_out(place.work / "other") != parts


def test_held_out_rows_that_are_not_validated_are_dropped_by_name(place: Place, tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "texts", list(text_rows({"train": 20})))
    few = Evaluation(every_steps=2, holdout_fraction=0.5, max_items=3)
    ledger = place.train(spec(Task.LANGUAGE, evaluation=few), dataset).ledgers
    assert (ledger["train"].kept, ledger["val"].kept) == (10, 3)
    assert ledger["val"].by_reason == {"BEYOND_MAX_ITEMS": 7}


def test_nothing_is_held_out_of_a_dataset_that_has_the_split(place: Place, tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "texts", list(text_rows({"train": 16, "val": 4})))
    chosen = spec(Task.LANGUAGE, validation_split="val", evaluation=Evaluation(holdout_fraction=0.5))
    result = place.train(chosen, dataset)
    assert {split: each.kept for split, each in result.ledgers.items()} == {"train": 16, "val": 4}


def test_one_video_cannot_be_parted(place: Place, tmp_path: Path) -> None:
    turns = [message("user", "say"), message("assistant", "red")]
    rows = [row(f"train-{index}", "train", turns, video_id="alone") for index in range(6)]
    dataset = write_dataset(tmp_path / "alone", rows)
    chosen = spec(Task.LANGUAGE, evaluation=Evaluation(holdout_fraction=0.5))
    with pytest.raises(PreconditionError, match="belong to one video") as caught:
        place.train(chosen, dataset)
    assert caught.value.reason == "HOLDOUT_IMPOSSIBLE"


@pytest.mark.parametrize(
    ("evaluation", "field"),
    [
        (Evaluation(every_steps=1, patience=-1), "patience"),
        (Evaluation(patience=1), "every_steps"),
        (Evaluation(every_steps=1, patience=1), "patience"),
        (Evaluation(holdout_fraction=1.0), "holdout_fraction"),
        (Evaluation(min_improvement=-0.1), "min_improvement"),
        (Evaluation(metrics=("own", "own")), "metrics"),
    ],
)
def test_contradictions_are_refused_by_field(evaluation: Evaluation, field: str) -> None:
    with pytest.raises(InvalidError) as caught:
        spec(evaluation=evaluation).validate()
    assert f"spec.evaluation.{field}" in {violation.field for violation in caught.value.violations}
