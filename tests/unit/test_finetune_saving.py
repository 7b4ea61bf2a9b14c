"""Checkpoints beside the training: told when whole, typed errors when not. Stops in the middle of scoring."""

from __future__ import annotations

import math
import resource
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from finemesh.core.errors import PreconditionError, ResourceExhaustedError, UnavailableError
from finemesh.core.spec.finetune import Checkpointing, Evaluation, FineTuneSpec, Full, Task, Tower
from finemesh.finetune import checkpoint as checkpoints
from finemesh.finetune.batches import Batch
from finemesh.finetune.checkpoint import list_checkpoints, newest_intact, verify_checkpoint
from finemesh.finetune.hooks import CheckpointInfo, NoHooks, Outcome, StopReason, TrainResult
from finemesh.finetune.loop import train
from finemesh.finetune.objectives.conversation import Conversation
from safetensors.torch import load_file

from tests.support.conversations import spec, text_rows, tiny_model, write_dataset
from tests.support.servers import PATIENCE_SECONDS

Run = Callable[..., TrainResult]
FULL = {"method": Full((Tower.LANGUAGE,))}


@dataclass
class Watch(NoHooks):
    """Keeps the order of what it is told; calls `then` after some step."""

    after: int = 0
    then: Callable[[], object] = lambda: None
    told: list[str] = field(default_factory=list[str])

    def on_metrics(self, step: int, values: dict[str, float]) -> None:
        if "train/loss" in values:
            self.told.append(f"step {step}")
            if step == self.after:
                self.then()

    def on_checkpoint(self, info: CheckpointInfo) -> None:
        self.told.append(f"checkpoint {info.step}")


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("material")
    rows = list(text_rows({"train": 20, "val": 8, "test": 12}))
    return {
        "base_model": tiny_model(root / "llama", "llama"),
        "dataset": write_dataset(root / "texts", rows),
    }


@pytest.fixture
def run(material: dict[str, Path], tmp_path: Path) -> Run:
    def run(chosen: FineTuneSpec, work: str, **options: Any) -> TrainResult:
        return train(chosen, **material, work=tmp_path / work, **options)

    return run


def tensors(checkpoint: Path) -> dict[str, torch.Tensor]:
    return load_file(checkpoint / "weights" / "trainable.safetensors")


def test_training_goes_on_while_a_checkpoint_is_written(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written is the state of its step, though the weights have moved on since."""
    chosen = spec(Task.LANGUAGE, checkpoint=Checkpointing(every_steps=2, keep_last=9), **FULL)
    straight = run(chosen, "straight")
    moved_on, write = threading.Event(), checkpoints.write_checkpoint

    def write_late(root: Path, snapshot: checkpoints.Snapshot) -> CheckpointInfo:
        assert moved_on.wait(PATIENCE_SECONDS), "training waits for a checkpoint"
        return write(root, snapshot)

    monkeypatch.setattr(checkpoints, "write_checkpoint", write_late)
    watch = Watch(after=3, then=moved_on.set)
    assert run(chosen, "late", hooks=watch).certificate == straight.certificate
    assert watch.told.index("step 3") < watch.told.index("checkpoint 2") < watch.told.index("step 5")
    late, expected = (
        dict(list_checkpoints(tmp_path / work / "checkpoints")) for work in ("late", "straight")
    )
    assert late.keys() == expected.keys() == {2, 4, 6}
    for step, folder in late.items():
        verify_checkpoint(folder)
        ours, theirs = tensors(folder), tensors(expected[step])
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_full_disk_ends_the_run_and_leaves_the_checkpoint_before(run: Run, tmp_path: Path) -> None:
    """A limit on the size of files is what a test can set; the disk's own error takes the same way."""
    chosen = spec(Task.LANGUAGE, checkpoint=Checkpointing(every_steps=2), **FULL)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    full = Watch(after=3, then=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1])))
    try:
        with pytest.raises(
            ResourceExhaustedError, match=r"step-00000004 .* any before it are intact"
        ) as caught:
            run(chosen, "full", hooks=full)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.reason == "DISK_FULL"
    [(step, left)] = list_checkpoints(tmp_path / "full" / "checkpoints")
    assert (step, [left]) == (2, list(left.parent.iterdir()))
    assert run(chosen, "full", resume_from=left).certificate == run(chosen, "straight").certificate


def test_a_disk_that_cannot_be_written_ends_the_run_at_the_next_step_or_the_end(
    run: Run, tmp_path: Path
) -> None:
    chosen = spec(Task.LANGUAGE, checkpoint=Checkpointing(every_steps=4))
    watch = Watch(after=1, then=(tmp_path / "gone" / "checkpoints").touch)
    with pytest.raises(UnavailableError, match="mend the disk") as caught:
        run(chosen, "gone", hooks=watch)
    assert caught.value.reason == "CHECKPOINT_NOT_WRITTEN"
    assert not any(each.startswith("checkpoint") for each in watch.told)


class StopsInside(NoHooks):
    """Asks to stop once it was asked more often than there are steps, which is inside of a score."""

    def __init__(self, asked: int) -> None:
        self.left = asked

    def should_stop(self) -> StopReason | None:
        self.left -= 1
        return StopReason.PAUSE if self.left < 0 else None


def test_a_stop_in_a_validation_leaves_a_checkpoint_to_go_on_from(run: Run) -> None:
    every_four = {"evaluation": Evaluation(every_steps=4), "checkpoint": Checkpointing()}
    chosen = spec(Task.LANGUAGE, validation_split="val", **every_four)
    stopped = run(chosen, "stopped", hooks=StopsInside(4))
    assert (stopped.outcome, stopped.step) == (Outcome.PAUSED, 4)
    assert "val/loss" not in stopped.metrics
    resumed = run(chosen, "resumed", resume_from=stopped.checkpoint.path)
    straight = run(chosen, "straight")
    assert resumed.certificate == straight.certificate
    assert resumed.metrics["val/loss"] == straight.metrics["val/loss"]


def test_a_stop_in_the_final_test_leaves_only_the_test_to_do(run: Run) -> None:
    chosen = spec(Task.LANGUAGE, test_split="test", checkpoint=Checkpointing())
    stopped = run(chosen, "stopped", hooks=StopsInside(6))
    assert (stopped.outcome, stopped.step, stopped.tested_step) == (Outcome.PAUSED, 6, None)
    resumed = run(chosen, "resumed", hooks=(watch := Watch()), resume_from=stopped.checkpoint.path)
    assert (resumed.outcome, watch.told) == (Outcome.COMPLETED, [])
    assert resumed.metrics["test/loss"] == run(chosen, "straight").metrics["test/loss"]


def test_a_corrupt_checkpoint_is_passed_over_for_the_one_before(run: Run, tmp_path: Path) -> None:
    chosen = spec(Task.LANGUAGE, checkpoint=Checkpointing(every_steps=1, keep_last=9))
    straight = run(chosen, "run")
    root, warnings = tmp_path / "run" / "checkpoints", list[str]()
    folders = dict(list_checkpoints(root))
    (folders[6] / "optimizer.safetensors").unlink()
    content = bytearray((folders[5] / checkpoints.ADAPTER_WEIGHTS).read_bytes())
    content[len(content) // 2] ^= 1
    (folders[5] / checkpoints.ADAPTER_WEIGHTS).write_bytes(content)
    (folders[4] / "manifest.json").write_text("{")
    assert newest_intact(root, warnings.append) == folders[3]
    assert [warning.partition("step-0000000")[2][0] for warning in warnings] == ["6", "5", "4"]
    assert run(chosen, "run", resume_from=folders[3]).certificate == straight.certificate
    assert newest_intact(root, warnings.append) == folders[6]  # made again


def test_none_intact_is_an_error_and_none_at_all_a_start(tmp_path: Path) -> None:
    assert newest_intact(tmp_path / "none", print) is None
    (tmp_path / "step-00000001").mkdir()
    (tmp_path / "step-00000001" / "manifest.json").write_text('{"files": [{"path": "../../etc/passwd"}]}')
    with pytest.raises(PreconditionError, match="step-00000001 is corrupt") as caught:
        newest_intact(tmp_path, lambda _: None)
    assert caught.value.reason == "CHECKPOINT_CORRUPT"


def test_a_loss_that_becomes_nan_leaves_a_state_to_go_on_from(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NaN comes into the fourth step, as from an overflow; mended, the run goes on from the third."""
    chosen = spec(Task.LANGUAGE, **FULL)
    loss, steps = Conversation.loss, Watch()

    def poisoned(self: Conversation, batch: Batch) -> torch.Tensor:
        return loss(self, batch) * (math.nan if "step 3" in steps.told else 1.0)

    with monkeypatch.context() as patched:
        patched.setattr(Conversation, "loss", poisoned)
        with pytest.raises(PreconditionError, match="step 4 is nan") as caught:
            run(chosen, "run", hooks=steps)
    assert caught.value.reason == "NON_FINITE_LOSS"
    last = newest_intact(tmp_path / "run" / "checkpoints", print)
    assert last == checkpoints.checkpoint_folder(tmp_path / "run" / "checkpoints", 3)
    assert run(chosen, "run", resume_from=last).certificate == run(chosen, "straight").certificate
