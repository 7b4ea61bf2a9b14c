"""Short runs over pictures with shapes: what tests of their objectives share."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from finemesh.core.spec.finetune import (
    Checkpointing,
    FineTuneSpec,
    Full,
    Lora,
    Optimization,
    Task,
    Tower,
)
from finemesh.finetune.checkpoint import list_checkpoints
from finemesh.finetune.hooks import NoHooks, TrainResult
from finemesh.finetune.loop import train
from finemesh.finetune.prepared import PreparedCache
from finemesh.finetune.tiny import build_tiny

from tests.support.shapes import DATASET


@dataclass
class Told(NoHooks):
    """Keeps what a run tells."""

    losses: dict[int, float] = field(default_factory=dict[int, float])
    metrics: dict[str, float] = field(default_factory=dict[str, float])
    messages: list[str] = field(default_factory=list[str])

    def on_metrics(self, step: int, values: dict[str, float]) -> None:
        self.metrics.update(values)
        if "train/loss" in values:
            self.losses[step] = values["train/loss"]

    def on_progress(self, fraction: float, message: str) -> None:
        del fraction
        self.messages.append(message)


def picture_spec(task: Task, **changes: Any) -> FineTuneSpec:
    """Six steps of full tuning with nothing held out; `changes` replace fields."""
    base = FineTuneSpec(
        task=task,
        base_model="tiny",
        dataset=DATASET,
        validation_split="",
        test_split="",
        method=Full((Tower.VISION, Tower.HEAD)),
        optimization=Optimization(
            learning_rate=4e-3, max_steps=6, micro_batch_size=4, gradient_accumulation_steps=2, seed=3
        ),
        checkpoint=Checkpointing(every_steps=2, keep_last=100),
    )
    return replace(base, **changes)


ADAPTED = Lora(rank=2, dropout=0.1, towers=(Tower.VISION,))


def tiny_picture_model(folder: Path, family: str) -> Path:
    """A small random model that reads no texts."""
    return build_tiny(family, folder, ["no texts"], seed=0)


def run(
    spec: FineTuneSpec,
    base_model: Path,
    dataset: Path,
    work: Path,
    resume_from: Path | None = None,
    prepared: PreparedCache | None = None,
) -> tuple[TrainResult, Told]:
    """Train, and what was told of it."""
    told = Told()
    result = train(
        spec,
        base_model=base_model,
        dataset=dataset,
        work=work,
        hooks=told,
        resume_from=resume_from,
        prepared=prepared,
    )
    return result, told


def assert_resumes_bit_equal(spec: FineTuneSpec, base_model: Path, dataset: Path, work: Path) -> None:
    """From each checkpoint on a run computes, bit for bit, what it would have computed uninterrupted, also
    from samples that were kept on disk.
    """
    prepared = PreparedCache(work / "prepared")
    straight, told = run(spec, base_model, dataset, work / "straight")
    expected = weights(straight.checkpoint.path)
    for step, checkpoint in list_checkpoints(work / "straight" / "checkpoints")[:-1]:
        resumed, again = run(spec, base_model, dataset, work / f"from-{step}", checkpoint, prepared)
        assert again.losses == {s: loss for s, loss in told.losses.items() if s > step}
        assert resumed.certificate == straight.certificate
        found = weights(resumed.checkpoint.path)
        assert found.keys() == expected.keys()
        assert all(found[name] == expected[name] for name in expected)
        assert resumed.metrics.keys() == straight.metrics.keys()
        same = [name for name in straight.metrics if not name.endswith("_per_second")]
        assert [resumed.metrics[name] for name in same] == [straight.metrics[name] for name in same]


def weights(checkpoint: Path) -> dict[str, bytes]:
    """The tensors of a checkpoint, by name, as bytes."""
    from safetensors.torch import load_file

    [path] = [*checkpoint.glob("adapter/*.safetensors"), *checkpoint.glob("weights/*.safetensors")]
    return {name: each.numpy().tobytes() for name, each in load_file(path).items()}
