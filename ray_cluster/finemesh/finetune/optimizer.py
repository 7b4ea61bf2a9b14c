"""The optimiser, its state as tensors, and the learning rate of each step."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Final

import torch

from finemesh.core.spec.finetune import Lora, Tower
from finemesh.core.spec.optimization import Optimization, Optimizer, Schedule
from finemesh.finetune.models import Model, tower_of
from finemesh.finetune.sharding import placed

# The tables of bitsandbytes by which numbers of 8 bits are read: the same for all parameters and all runs.
_CODES: Final = ("qmap1", "qmap2")


def make_optimizer(model: Model) -> torch.optim.Optimizer:
    """The optimiser of `model.spec` over `model.trainable`. Vectors (norms, biases) are not decayed.

    Groups carry their rate as a multiple of the step's in `rate_ratio`.
    """
    optimization = model.spec.optimization
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = defaultdict(list)
    for name, parameter in model.trainable.items():
        decay = optimization.weight_decay if parameter.ndim > 1 else 0.0
        groups[decay, _rate_ratio(model, name)].append(parameter)
    return _optimizer(
        [
            {"params": each, "weight_decay": decay, "rate_ratio": ratio}
            for (decay, ratio), each in groups.items()
        ],
        optimization,
    )


def _optimizer(groups: list[dict[str, Any]], chosen: Optimization) -> torch.optim.Optimizer:
    rate, betas, epsilon = chosen.learning_rate, (chosen.beta1, chosen.beta2), chosen.epsilon
    match chosen.optimizer:
        case Optimizer.ADAMW:
            return torch.optim.AdamW(groups, lr=rate, betas=betas, eps=epsilon, fused=True)
        case Optimizer.ADAFACTOR:
            return torch.optim.Adafactor(groups, lr=rate)
        case Optimizer.SGD:
            return torch.optim.SGD(groups, lr=rate, momentum=chosen.beta1)
        case Optimizer.ADAMW_8BIT | Optimizer.PAGED_ADAMW_8BIT | Optimizer.PAGED_ADAMW_32BIT:
            from finemesh.finetune.quantiser import bitsandbytes

            optim = bitsandbytes.optim
            kinds: dict[Optimizer, Any] = {
                Optimizer.ADAMW_8BIT: optim.AdamW8bit,
                Optimizer.PAGED_ADAMW_8BIT: optim.PagedAdamW8bit,
                Optimizer.PAGED_ADAMW_32BIT: optim.PagedAdamW32bit,
            }
            return kinds[chosen.optimizer](groups, lr=rate, betas=betas, eps=epsilon)


def _rate_ratio(model: Model, name: str) -> float:
    """The rate of a parameter as a multiple of the step's."""
    method, optimization = model.spec.method, model.spec.optimization
    of_tower: dict[Tower | None, float] = {
        Tower.VISION: optimization.vision_rate_ratio,
        Tower.CONNECTOR: optimization.connector_rate_ratio,
    }
    ratio = of_tower.get(tower_of(model.family, name), 1.0)
    return ratio * method.loraplus_ratio if isinstance(method, Lora) and ".lora_B." in name else ratio


def learning_rate(optimization: Optimization, step: int, total_steps: int) -> float:
    """The rate of step `step`, counted from 0: linear warm-up, then the schedule, which ends near its floor.

    The inverse square root is that of https://arxiv.org/abs/1706.03762, section 5.3; with a stable middle and
    a fall at the end, https://arxiv.org/abs/2404.06395.
    """
    warmup_steps = optimization.warmup_steps or math.ceil(optimization.warmup_ratio * total_steps)
    peak, floor = optimization.learning_rate, optimization.min_rate_ratio
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    match optimization.schedule:
        case Schedule.CONSTANT:
            share = 1.0
        case Schedule.LINEAR:
            share = 1 - progress
        case Schedule.COSINE:
            share = 0.5 * (1 + math.cos(math.pi * progress))
        case Schedule.INVERSE_SQRT:
            return peak * max(floor, math.sqrt(warmup_steps / step))
        case Schedule.WARMUP_STABLE_DECAY:
            falling_steps = optimization.decay_ratio * total_steps
            share = min(1.0, (total_steps - step) / falling_steps) if falling_steps else 1.0
    return peak * (floor + (1 - floor) * share)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate * group["rate_ratio"]


def optimizer_tensors(
    optimizer: torch.optim.Optimizer, trainable: dict[str, torch.nn.Parameter]
) -> dict[str, torch.Tensor]:
    """The state of every parameter as `<moment>/<parameter name>`. Empty before the first step."""
    return {
        f"{moment}/{name}": torch.as_tensor(value)
        for name, parameter in trainable.items()
        for moment, value in optimizer.state.get(parameter, {}).items()
        if moment not in _CODES and value is not None
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer,
    trainable: dict[str, torch.nn.Parameter],
    tensors: Mapping[str, torch.Tensor],
) -> None:
    """The inverse of `optimizer_tensors`. Raises KeyError for a moment of an unknown parameter."""
    saved: dict[torch.nn.Parameter, dict[str, torch.Tensor]] = defaultdict(dict)
    for key, tensor in tensors.items():
        moment, _, name = key.partition("/")
        saved[trainable[name]][moment] = placed(tensor, trainable[name])
    if not hasattr(optimizer, "init_state"):
        for parameter, state in saved.items():
            optimizer.state[parameter] = state
        return
    # bitsandbytes: only its own buffers are of the kind that can be paged.
    for group_index, group in enumerate(optimizer.param_groups):
        for index, parameter in enumerate(group["params"]):
            if parameter in saved:
                optimizer.init_state(group, parameter, group_index, index)  # pyright: ignore[reportAttributeAccessIssue]
                _fill(optimizer.state[parameter], saved[parameter])


def _fill(state: dict[str, Any], saved: dict[str, torch.Tensor]) -> None:
    for moment, tensor in saved.items():
        if isinstance(state[moment], torch.Tensor):
            state[moment].copy_(tensor)
        else:
            state[moment] = tensor.item()
