"""Detection: the loss of a step, resumption, augmentation, and what becomes of every row."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from finemesh.core.spec.finetune import Checkpointing, FineTuneSpec, Full, Optimization, Task, Tower
from finemesh.finetune.checkpoint import list_checkpoints
from finemesh.finetune.hooks import NoHooks
from finemesh.finetune.loop import train
from finemesh.finetune.tiny import build_tiny
from safetensors.torch import load_file

from tests.support.conversations import write_dataset
from tests.support.shapes import DATASET, shape_rows

FAMILIES = ("yolos", "detr", "conditional-detr", "rt-detr-v2", "d-fine")
EVERY_TOWER = (Tower.VISION, Tower.DECODER, Tower.HEAD)


@dataclass
class Recorder(NoHooks):
    losses: dict[int, float] = field(default_factory=dict[int, float])

    def on_metrics(self, step: int, values: dict[str, float]) -> None:
        if "train/loss" in values:
            self.losses[step] = values["train/loss"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {name: build_tiny(name, root / name, [], 0) for name in FAMILIES}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "shapes"
    return write_dataset(folder, list(shape_rows({"train": 12, "val": 4, "test": 6})))


def detection(micro: int = 2, accumulate: int = 2, **changes: object) -> FineTuneSpec:
    given: dict[str, object] = {
        "task": Task.DETECTION,
        "base_model": "tiny",
        "dataset": DATASET,
        "validation_split": "",
        "test_split": "",
        "method": Full(EVERY_TOWER),
        "optimization": Optimization(
            learning_rate=1e-3,
            max_steps=4,
            micro_batch_size=micro,
            gradient_accumulation_steps=accumulate,
            seed=3,
        ),
        "checkpoint": Checkpointing(every_steps=1, keep_last=100),
    }
    return FineTuneSpec(**{**given, **changes})  # type: ignore[arg-type]


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return load_file(checkpoint / "weights" / "trainable.safetensors")


@pytest.mark.parametrize("family", FAMILIES)
def test_resumed_at_any_step_it_computes_the_same_bits(
    models: dict[str, Path], shapes: Path, tmp_path: Path, family: str
) -> None:
    """Dropout and denoising draw random numbers; batch norms have statistics."""

    def run(work: str, resume_from: Path | None = None) -> tuple[dict[int, float], Path]:
        recorder = Recorder()
        result = train(
            detection(),
            base_model=models[family],
            dataset=shapes,
            work=tmp_path / work,
            hooks=recorder,
            resume_from=resume_from,
        )
        return recorder.losses, result.checkpoint.path

    losses, straight = run("straight")
    for step, checkpoint in list_checkpoints(tmp_path / "straight" / "checkpoints")[:3]:
        again, resumed = run(f"resumed-{step}", checkpoint)
        assert again == {s: loss for s, loss in losses.items() if s > step}
        assert all(torch.equal(each, weights(straight)[name]) for name, each in weights(resumed).items())
