"""Checkpoints of fine-tunes that took no time: weights moved at random instead of by training."""

from __future__ import annotations

from pathlib import Path

import torch
from finemesh.core.spec.finetune import FineTuneSpec
from finemesh.finetune.checkpoint import Camera, TrainState, write_checkpoint
from finemesh.finetune.models import Model, load_model
from finemesh.finetune.optimizer import make_optimizer


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


def checkpoint_of(model: Model, root: Path) -> Path:
    """Written as training writes it."""
    snapshot = Camera().snapshot(model, make_optimizer(model), TrainState(step=1))
    return write_checkpoint(root, snapshot).path
