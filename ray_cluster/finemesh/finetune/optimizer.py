"""AdamW (https://arxiv.org/abs/1711.05101), its state as tensors, and the learning rate of each step."""

from __future__ import annotations

import math
from typing import Final

import torch

from finemesh.core.spec.finetune import Optimization, Schedule

_MOMENTS: Final = ("step", "exp_avg", "exp_avg_sq")


def make_optimizer(trainable: dict[str, torch.nn.Parameter], optimization: Optimization) -> torch.optim.AdamW:
    """AdamW over `trainable`. Vectors (norms, biases) are not decayed."""
    matrices = [parameter for parameter in trainable.values() if parameter.ndim > 1]
    vectors = [parameter for parameter in trainable.values() if parameter.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": optimization.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=optimization.learning_rate, fused=True
    )


def learning_rate(optimization: Optimization, step: int, total_steps: int) -> float:
    """The rate of step `step`, counted from 0: linear warm-up, then the schedule, which ends near 0."""
    warmup_steps = math.ceil(optimization.warmup_ratio * total_steps)
    peak = optimization.learning_rate
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    match optimization.schedule:
        case Schedule.CONSTANT:
            return peak
        case Schedule.LINEAR:
            return peak * (1 - progress)
        case Schedule.COSINE:
            return peak * 0.5 * (1 + math.cos(math.pi * progress))


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def optimizer_tensors(
    optimizer: torch.optim.Optimizer, trainable: dict[str, torch.nn.Parameter]
) -> dict[str, torch.Tensor]:
    """The moments of every parameter as `<moment>/<parameter name>`. Empty before the first step."""
    return {
        f"{moment}/{name}": optimizer.state[parameter][moment]
        for name, parameter in trainable.items()
        if parameter in optimizer.state
        for moment in _MOMENTS
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer,
    trainable: dict[str, torch.nn.Parameter],
    tensors: dict[str, torch.Tensor],
) -> None:
    """The inverse of `optimizer_tensors`. Raises KeyError if a moment is missing."""
    for name, parameter in trainable.items() if tensors else ():
        optimizer.state[parameter] = {
            moment: tensors[f"{moment}/{name}"].to(parameter.device, copy=True) for moment in _MOMENTS
        }
