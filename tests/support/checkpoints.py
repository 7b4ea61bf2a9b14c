"""Checkpoints of fine-tunes that took no time: weights moved at random instead of by training."""

from __future__ import annotations

from pathlib import Path

import torch
from finemesh.core.spec.finetune import FineTuneSpec
from finemesh.finetune.base_weights import base_digest
from finemesh.finetune.checkpoint import Camera, TrainState, write_checkpoint
from finemesh.finetune.models import Model, load_model
from finemesh.finetune.optimizer import make_optimizer
from safetensors.torch import load_file, save_file


def moved_model(
    spec: FineTuneSpec, base_model: Path, classes: tuple[str, ...] = (), scale: float = 0.02
) -> Model:
    """The model of a spec with every trainable weight moved, the same for the same spec."""
    model = load_model(spec, base_model, classes)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.trainable.values():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=scale)
    model.module.eval()
    return model


def change_weights(model: Path, tensor: str = "") -> None:
    """Change one tensor of a model that is one file, or all of them, as training on does."""
    path = model / "model.safetensors"
    tensors = load_file(path)
    for name in [tensor] if tensor else tensors:
        tensors[name] = tensors[name] * 1.01 + 0.01
    save_file(tensors, path, {"format": "pt"})


def checkpoint_of(model: Model, root: Path, base_model: Path | None = None) -> Path:
    """Written as training writes it; it knows the weights of its base if it is told where that is."""
    base = base_digest(base_model) if base_model else ""
    snapshot = Camera().snapshot(model, make_optimizer(model), TrainState(step=1, base=base))
    return write_checkpoint(root, snapshot).path
