"""How a fine-tune moves its weights: optimiser, learning rate and steps, as an immutable value."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Optimizer(StrEnum):
    """What turns gradients into steps."""

    ADAMW = "ADAMW"
    ADAMW_8BIT = "ADAMW_8BIT"
    PAGED_ADAMW_8BIT = "PAGED_ADAMW_8BIT"
    PAGED_ADAMW_32BIT = "PAGED_ADAMW_32BIT"
    ADAFACTOR = "ADAFACTOR"
    SGD = "SGD"


PAGED: Final = (Optimizer.PAGED_ADAMW_8BIT, Optimizer.PAGED_ADAMW_32BIT)


class Schedule(StrEnum):
    """What the learning rate does after its linear warm-up."""

    CONSTANT = "CONSTANT"
    LINEAR = "LINEAR"
    COSINE = "COSINE"
    INVERSE_SQRT = "INVERSE_SQRT"
    WARMUP_STABLE_DECAY = "WARMUP_STABLE_DECAY"


@dataclass(frozen=True, slots=True)
class Optimization:
    """The optimiser and what surrounds it.

    Attributes:
        epochs: passes over the training rows; fractions are allowed, whole steps are taken.
        max_steps: optimiser steps; 0 means by `epochs`.
        warmup_ratio: fraction of all steps over which the learning rate rises from 0.
        warmup_steps: the same as a number of steps; overrides the fraction when positive.
        max_grad_norm: gradients are clipped to this global L2 norm; 0 means never.
        micro_batch_size: rows per forward pass; a step takes `gradient_accumulation_steps` of them.
        optimizer: AdamW (https://arxiv.org/abs/1711.05101), with moments of 8 bits
            (https://arxiv.org/abs/2110.02861) or in memory that a GPU may page out; Adafactor
            (https://arxiv.org/abs/1804.04235); SGD with the momentum `beta1`.
        min_rate_ratio: where a falling rate ends, as a share of `learning_rate`.
        decay_ratio: fraction of all steps over which WARMUP_STABLE_DECAY falls.
        vision_rate_ratio, connector_rate_ratio: the rate of these towers as a multiple of `learning_rate`.
        activation_checkpointing: compute activations again in the backward pass, in place of keeping them.
        compile: run the layers of the model through `torch.compile`.
        neftune_alpha: noise on the embeddings of tokens (https://arxiv.org/abs/2310.05914); 0 means none.
        label_smoothing: share of a target's probability that is spread over all tokens or classes.
    """

    learning_rate: float = 2e-4
    weight_decay: float = 0.0
    epochs: float = 1.0
    max_steps: int = 0
    warmup_ratio: float = 0.03
    schedule: Schedule = Schedule.COSINE
    max_grad_norm: float = 1.0
    micro_batch_size: int = 8
    gradient_accumulation_steps: int = 1
    seed: int = 0
    optimizer: Optimizer = Optimizer.ADAMW
    min_rate_ratio: float = 0.0
    warmup_steps: int = 0
    decay_ratio: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    vision_rate_ratio: float = 1.0
    connector_rate_ratio: float = 1.0
    activation_checkpointing: bool = False
    compile: bool = False
    neftune_alpha: float = 0.0
    label_smoothing: float = 0.0


def violations(optimization: Optimization) -> Iterator[tuple[str, str]]:
    """What contradicts itself: field paths that start at `optimization`, and what to do."""
    path = "optimization"
    for name in ("learning_rate", "weight_decay", "epochs", "max_grad_norm", "neftune_alpha"):
        value: float = getattr(optimization, name)
        if not math.isfinite(value) or value < 0:
            yield f"{path}.{name}", "must be finite and not negative"
    for name in ("epsilon", "vision_rate_ratio", "connector_rate_ratio"):
        value = getattr(optimization, name)
        if not (math.isfinite(value) and value > 0):
            yield f"{path}.{name}", "must be positive"
    for name in ("warmup_ratio", "beta1", "beta2", "label_smoothing"):
        if not 0 <= getattr(optimization, name) < 1:
            yield f"{path}.{name}", "must lie in [0, 1)"
    for name in ("min_rate_ratio", "decay_ratio"):
        if not 0 <= getattr(optimization, name) <= 1:
            yield f"{path}.{name}", "must lie in [0, 1]"
    for name in ("max_steps", "warmup_steps"):
        if getattr(optimization, name) < 0:
            yield f"{path}.{name}", "must not be negative"
    for name in ("micro_batch_size", "gradient_accumulation_steps"):
        if getattr(optimization, name) < 1:
            yield f"{path}.{name}", "must be at least 1"
    if optimization.learning_rate == 0:
        yield f"{path}.learning_rate", "must be positive, or nothing is learnt"
    if optimization.max_steps == 0 and optimization.epochs == 0:
        yield f"{path}.epochs", "must be positive when max_steps is 0"
    if (
        optimization.schedule is Schedule.INVERSE_SQRT
        and not optimization.warmup_steps + optimization.warmup_ratio
    ):
        yield f"{path}.schedule", "INVERSE_SQRT falls from where the warm-up ends: set warmup_steps"
    if not 0 <= optimization.seed < 2**63:
        yield f"{path}.seed", "must lie in [0, 2^63)"
