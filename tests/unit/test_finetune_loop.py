"""The loop: exact after any stop, the loss over all tokens of a step, and nothing done in silence."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from finemesh.core.errors import FinemeshError, InvalidError, PreconditionError
from finemesh.core.spec.finetune import (
    Checkpointing,
    Evaluation,
    FineTuneSpec,
    Full,
    Lora,
    Optimization,
    Precision,
    Sequence,
    Task,
    Tower,
)
from finemesh.core.spec.ledger import LedgerSummary
from finemesh.finetune.checkpoint import list_checkpoints
from finemesh.finetune.hooks import Certificate, CheckpointInfo, NoHooks, Outcome, StopReason, TrainResult
from finemesh.finetune.loop import train
from safetensors.torch import load_file, save_file

from tests.support.checkpoints import change_weights
from tests.support.conversations import colour_rows, message, row, spec, text_rows, tiny_model, write_dataset


@dataclass
class Recorder(NoHooks):
    """Keeps what it is told; asks to stop once `stop_after` steps are done."""

    stop_after: int = 0
    reason: StopReason = StopReason.PAUSE
    losses: dict[int, float] = field(default_factory=dict[int, float])
    values: dict[str, float] = field(default_factory=dict[str, float])
    checkpoints: list[CheckpointInfo] = field(default_factory=list[CheckpointInfo])
    resumed: list[tuple[Certificate, str]] = field(default_factory=list[tuple[Certificate, str]])

    def on_metrics(self, step: int, values: dict[str, float]) -> None:
        self.values.update(values)
        if "train/loss" in values:
            self.losses[step] = values["train/loss"]

    def on_checkpoint(self, info: CheckpointInfo) -> None:
        self.checkpoints.append(info)

    def on_resume(self, certificate: Certificate, sample_hash: str) -> None:
        self.resumed.append((certificate, sample_hash))

    def should_stop(self) -> StopReason | None:
        return self.reason if self.stop_after and self.stop_after in self.losses else None


@dataclass(frozen=True)
class Place:
    """Models, data and a work folder."""

    models: dict[Task, Path]
    datasets: dict[Task, Path]
    work: Path

    def train(
        self,
        chosen: FineTuneSpec,
        hooks: Recorder | None = None,
        resume_from: Path | None = None,
        work: str = "work",
    ) -> TrainResult:
        return train(
            chosen,
            base_model=self.models[chosen.task],
            dataset=self.datasets[chosen.task],
            work=self.work / work,
            hooks=hooks,
            resume_from=resume_from,
        )


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[Task, Path], dict[Task, Path]]:
    root = tmp_path_factory.mktemp("shared")
    counts = {"train": 20, "val": 8, "test": 12}
    models = {
        Task.VISION_LANGUAGE: tiny_model(root / "llava", "llava"),
        Task.LANGUAGE: tiny_model(root / "llama", "llama"),
    }
    datasets = {
        Task.VISION_LANGUAGE: write_dataset(root / "colours", list(colour_rows(counts))),
        Task.LANGUAGE: write_dataset(root / "texts", list(text_rows(counts))),
    }
    return models, datasets


@pytest.fixture
def place(shared: tuple[dict[Task, Path], dict[Task, Path]], tmp_path: Path) -> Place:
    return Place(*shared, tmp_path)


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    [path] = [*checkpoint.glob("adapter/*.safetensors"), *checkpoint.glob("weights/*.safetensors")]
    return load_file(path)


METHODS: dict[str, dict[str, Any]] = {
    "lora with dropout": {"task": Task.VISION_LANGUAGE},
    "dora": {"task": Task.LANGUAGE, "method": Lora(rank=2, use_dora=True, dropout=0.1)},
    "full": {"task": Task.LANGUAGE, "method": Full((Tower.LANGUAGE,))},
    "padded": {"task": Task.LANGUAGE, "sequence": Sequence(packing=False)},
    "of a size": {"task": Task.LANGUAGE, "sequence": Sequence(packing=False, length_grouping=True)},
}


@pytest.mark.parametrize("name", METHODS)
def test_resumed_at_any_step_it_computes_the_same_bits(place: Place, name: str) -> None:
    chosen = spec(**METHODS[name])
    straight, hooks = place.train(chosen, recorder := Recorder()), recorder
    for step, checkpoint in list_checkpoints(place.work / "work" / "checkpoints")[:-1]:
        again = Recorder()
        resumed = place.train(chosen, again, checkpoint, f"resumed-{step}")
        assert again.losses == {s: loss for s, loss in hooks.losses.items() if s > step}
        assert resumed.certificate == straight.certificate
        [(certificate, sample_hash)] = again.resumed
        assert (certificate.step, certificate.sample_hash) == (step, sample_hash)
        tensors, expected = weights(resumed.checkpoint.path), weights(straight.checkpoint.path)
        assert tensors.keys() == expected.keys()
        assert all(torch.equal(tensors[key], expected[key]) for key in expected)


@pytest.mark.parametrize("packing", [True, False])
def test_how_a_step_is_cut_changes_nothing(place: Place, packing: bool) -> None:
    """Rows of uneven length: a mean of means over micro batches would differ."""

    def run(micro: int, accumulate: int) -> dict[int, float]:
        recorder = Recorder()
        optimization = Optimization(
            learning_rate=1e-3, max_steps=3, micro_batch_size=micro, gradient_accumulation_steps=accumulate
        )
        chosen = spec(
            Task.LANGUAGE, method=Lora(rank=2), optimization=optimization, sequence=Sequence(packing=packing)
        )
        place.train(chosen, recorder, work=f"{micro}-{accumulate}")
        return recorder.losses

    whole, halves, singles = run(8, 1), run(4, 2), run(1, 8)
    assert halves == pytest.approx(whole, rel=1e-6)
    assert singles == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize(
    ("reason", "outcome"), [(StopReason.CANCEL, Outcome.CANCELLED), (StopReason.PAUSE, Outcome.PAUSED)]
)
def test_a_stop_leaves_a_checkpoint_of_the_last_step(
    place: Place, reason: StopReason, outcome: Outcome
) -> None:
    chosen = spec(checkpoint=Checkpointing())
    stopped = place.train(chosen, Recorder(stop_after=2, reason=reason))
    assert (stopped.outcome, stopped.step, stopped.tested_step) == (outcome, 2, None)
    resumed = place.train(chosen, resume_from=stopped.checkpoint.path)
    assert (resumed.outcome, resumed.step) == (Outcome.COMPLETED, 6)
    assert resumed.certificate == place.train(chosen, work="straight").certificate


def test_best_and_last_checkpoints_are_kept_and_the_best_is_tested(place: Place, tmp_path: Path) -> None:
    """What is learnt contradicts the validation rows, whose loss therefore rises from the first step on."""

    def answering(split: str, word: str, count: int) -> list[dict[str, Any]]:
        turns = [message("user", "say"), message("assistant", word)]
        return [row(f"{split}-{index}", split, turns) for index in range(count)]

    rows = [*answering("train", "red", 8), *answering("val", "blue", 4), *answering("test", "blue", 6)]
    contrary = write_dataset(tmp_path / "contrary", rows)
    chosen = spec(
        Task.LANGUAGE,
        validation_split="val",
        test_split="test",
        optimization=Optimization(learning_rate=0.02, max_steps=8, micro_batch_size=4, warmup_ratio=0.0),
        checkpoint=Checkpointing(every_steps=1, keep_last=2),
    )
    recorder = Recorder()
    result = replace(place, datasets={Task.LANGUAGE: contrary}).train(chosen, recorder)
    best = min(recorder.checkpoints, key=lambda info: info.metrics["val/loss"])
    assert result.best_step == best.step < 7
    kept = [step for step, _ in list_checkpoints(place.work / "work" / "checkpoints")]
    assert kept == [best.step, 7, 8]
    assert result.tested_step == best.step
    assert result.metrics["test/loss"] == pytest.approx(best.metrics["val/loss"], rel=1e-6)
    (best.path / "optimizer.safetensors").unlink()  # damaged, it is passed over: the last one is tested
    again = replace(place, datasets={Task.LANGUAGE: contrary}).train(chosen, None, result.checkpoint.path)
    assert (again.best_step, again.tested_step) == (best.step, 8)


def test_checkpoints_of_later_steps_than_the_resumed_one_go(place: Place) -> None:
    chosen = spec(Task.LANGUAGE)
    place.train(chosen)
    root = place.work / "work" / "checkpoints"
    resumed = place.train(chosen, Recorder(stop_after=4), list_checkpoints(root)[1][1])
    assert [step for step, _ in list_checkpoints(root)] == [1, 2, 3, 4]
    assert resumed.step == 4


@pytest.mark.parametrize("name", ["adapter/adapter_model.safetensors", "optimizer.safetensors", "state.json"])
def test_a_corrupt_checkpoint_is_refused_by_name(place: Place, name: str) -> None:
    chosen = spec(Task.LANGUAGE)
    checkpoint = place.train(chosen, Recorder(stop_after=2)).checkpoint.path
    content = bytearray((checkpoint / name).read_bytes())
    content[-3] ^= 1
    (checkpoint / name).write_bytes(content)
    with pytest.raises(PreconditionError, match=name) as caught:
        place.train(chosen, resume_from=checkpoint)
    assert (caught.value.reason, caught.value.metadata["file"]) == ("CHECKPOINT_CORRUPT", name)


def test_a_checkpoint_of_another_spec_or_other_data_is_refused(place: Place, tmp_path: Path) -> None:
    chosen = spec(Task.LANGUAGE)
    checkpoint = place.train(chosen, Recorder(stop_after=2)).checkpoint.path
    other = replace(chosen, optimization=replace(chosen.optimization, learning_rate=1e-5))
    with pytest.raises(PreconditionError) as caught:
        place.train(other, resume_from=checkpoint)
    assert caught.value.reason == "CHECKPOINT_OF_OTHER_SPEC"
    fewer = write_dataset(tmp_path / "fewer", list(text_rows({"train": 19})))
    with pytest.raises(PreconditionError) as caught:
        replace(place, datasets={Task.LANGUAGE: fewer}).train(chosen, resume_from=checkpoint)
    assert caught.value.reason == "CHECKPOINT_OF_OTHER_DATA"


def test_a_checkpoint_of_another_base_is_refused(place: Place, tmp_path: Path) -> None:
    """Of the same shapes: the folder of the base, one of whose tensors has changed since."""
    chosen = spec(Task.LANGUAGE)
    checkpoint = place.train(chosen, Recorder(stop_after=2)).checkpoint.path
    other = Path(shutil.copytree(place.models[Task.LANGUAGE], tmp_path / "other"))
    change_weights(other, "model.norm.weight")
    with pytest.raises(PreconditionError, match="made with another base model") as caught:
        replace(place, models={Task.LANGUAGE: other}).train(chosen, resume_from=checkpoint)
    assert caught.value.reason == "CHECKPOINT_OF_OTHER_BASE"


def test_resumed_after_its_last_step_it_only_tests(place: Place) -> None:
    """Killed during the final test: the checkpoint is there, and is not written or told again."""
    chosen = spec(test_split="test")
    finished = place.train(chosen)
    manifest = finished.checkpoint.path / "manifest.json"
    written = manifest.stat().st_mtime_ns
    again = place.train(chosen, recorder := Recorder(), finished.checkpoint.path)
    assert again.checkpoint == finished.checkpoint
    assert again.metrics == finished.metrics
    assert not recorder.checkpoints
    assert manifest.stat().st_mtime_ns == written


def test_seeing_and_saving_more_often_changes_no_bit(place: Place) -> None:
    often = spec(validation_split="val", evaluation=Evaluation(every_steps=1, max_items=4))
    seldom = replace(often, evaluation=Evaluation(), checkpoint=Checkpointing())
    assert place.train(often).certificate == place.train(seldom, work="seldom").certificate


def test_a_loss_that_is_not_finite_stops_before_the_weights_move(place: Place, tmp_path: Path) -> None:
    base = tiny_model(tmp_path / "base", "llama")
    tensors = load_file(base / "model.safetensors")
    tensors["lm_head.weight"][20] = math.nan
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    place = replace(place, models={Task.LANGUAGE: base})
    with pytest.raises(PreconditionError, match="step 1 is nan") as caught:
        place.train(spec(Task.LANGUAGE))
    assert caught.value.reason == "NON_FINITE_LOSS"
    assert not list_checkpoints(place.work / "work" / "checkpoints")


def test_the_loss_budget_is_kept(place: Place, tmp_path: Path) -> None:
    lossy = LedgerSummary(inputs=40, kept=38, quarantined=2, by_reason={"MASK_SIZE_MISMATCH": 2})
    dataset = write_dataset(tmp_path / "lossy", list(text_rows({"train": 8})), lossy)
    place = replace(place, datasets={Task.LANGUAGE: dataset})
    with pytest.raises(PreconditionError, match=r"2 of 40 rows.*MASK_SIZE_MISMATCH 2") as caught:
        place.train(spec(Task.LANGUAGE, max_quarantined_fraction=0.0))
    assert caught.value.reason == "LOSS_BUDGET_EXCEEDED"
    assert place.train(spec(Task.LANGUAGE, max_quarantined_fraction=0.05)).outcome is Outcome.COMPLETED


def test_the_ledger_accounts_for_every_row(place: Place) -> None:
    result = place.train(spec(Task.LANGUAGE, validation_split="val", test_split="test"))
    assert {split: (each.inputs, each.kept) for split, each in result.ledgers.items()} == {
        "train": (20, 20),
        "val": (8, 8),
        "test": (12, 12),
    }
    lines = [json.loads(line) for line in (place.work / "work" / "ledger.jsonl").read_text().splitlines()]
    assert len({(line["split"], line["row_id"]) for line in lines}) == 40


def test_bf16_trains(place: Place) -> None:
    recorder = Recorder()
    place.train(
        spec(precision=Precision.BF16, test_split="test", evaluation=Evaluation(baselines=True)), recorder
    )
    assert all(math.isfinite(loss) for loss in recorder.losses.values())
    assert recorder.losses[6] < recorder.losses[1]


def test_a_bad_spec_is_refused_before_anything_is_read(place: Place) -> None:
    with pytest.raises(InvalidError):
        place.train(spec(method=Lora(rank=0)))
    assert not (place.work / "work").exists()


def test_what_a_hook_raises_ends_the_run(place: Place) -> None:
    class Fenced(NoHooks):
        def on_checkpoint(self, info: CheckpointInfo) -> None:
            raise PreconditionError("the lease is lost", reason="ATTEMPT_FENCED")

    with pytest.raises(FinemeshError, match="lease"):
        train(
            spec(Task.LANGUAGE),
            base_model=place.models[Task.LANGUAGE],
            dataset=place.datasets[Task.LANGUAGE],
            work=place.work,
            hooks=Fenced(),
        )
