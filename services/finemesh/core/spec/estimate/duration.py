"""How long a step takes, how long a run, and what it costs.

Floating-point operations of a step, with `P` weights in linear layers and `N` tokens: `2 P N` forwards, as
many for the gradients of activations, as many for those of weights that are trained, and `2 P N` again where
activations are computed twice (https://arxiv.org/abs/2001.08361, section 2.1). A picture counts as a token
for every 16 by 16 pixels. Machines differ more than models do: until jobs have finished on one, its speed is
known within a factor of four or so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from finemesh.core.spec.estimate.base_model import BaseModel, FamilyParts, count
from finemesh.core.spec.estimate.interval import Interval, exactly
from finemesh.core.spec.finetune import TEXT_TOWERS, FineTuneSpec, Objective, Precision

# Operations a second that training reaches: of a core, and of a GPU from a T4 to an H200.
_CORE_SPEED: Final = Interval(4e9, 16e9, 60e9)
_GPU_SPEED: Final = {
    Precision.FP32: Interval(3e12, 15e12, 60e12),
    Precision.BF16: Interval(15e12, 100e12, 450e12),
    Precision.FP16: Interval(15e12, 100e12, 450e12),
}
_OVERHEAD_SECONDS: Final = Interval(0.002, 0.01, 0.05)  # of a micro batch: launches, collation, the optimiser
_PIXELS_PER_TOKEN: Final = 16 * 16


@dataclass(frozen=True, slots=True)
class TimeForecast:
    """Attributes:
    step_seconds: of one optimiser step.
    steps: of the whole run; 0 where nobody knows the rows.
    operations: floating-point operations of one step, as likely.
    """

    step_seconds: Interval
    steps: int
    operations: float

    def gpu_hours(self, gpus: float) -> Interval:
        return self.step_seconds * (self.steps * gpus / 3600)


def time_of(
    spec: FineTuneSpec, base: BaseModel, family: FamilyParts, *, rows: int = 0, row_tokens: float = 0.0
) -> TimeForecast:
    """How long training `spec` takes.

    Args:
        spec: the fine-tune.
        base: its base model.
        family: of that.
        rows: of the training split; 0 where nobody knows.
        row_tokens: mean length of a row; 0 where nobody has looked.
    """
    optimization, resources = spec.optimization, spec.resources
    per_step = optimization.micro_batch_size * optimization.gradient_accumulation_steps
    operations = _tokens(spec, base, row_tokens) * (per_step * _per_token(spec, base, family))
    speed = _CORE_SPEED * max(1.0, resources.cpus)
    if resources.gpus:
        speed = _GPU_SPEED[spec.precision] * resources.gpus
    micro_batches = math.ceil(optimization.gradient_accumulation_steps / resources.ranks)
    seconds = operations.over(speed) + _OVERHEAD_SECONDS * micro_batches
    return TimeForecast(seconds, steps_of(spec, rows), operations.likely)


def steps_of(spec: FineTuneSpec, rows: int) -> int:
    """Optimiser steps of a run over so many rows; 0 where nobody knows them."""
    optimization = spec.optimization
    if optimization.max_steps or not rows:
        return optimization.max_steps
    per_step = optimization.micro_batch_size * optimization.gradient_accumulation_steps
    return max(1, math.ceil(optimization.epochs * rows / per_step))


def _tokens(spec: FineTuneSpec, base: BaseModel, row_tokens: float) -> Interval:
    """Of one row."""
    if spec.task not in TEXT_TOWERS:
        height, width = base.picture_px
        return exactly(height * width / _PIXELS_PER_TOKEN)
    most = float(spec.sequence.max_tokens)
    found = exactly(row_tokens) if row_tokens else Interval(most / 32, most / 4, most)
    return found * (4.0 if spec.objective is Objective.PREFERENCE else 1.0)  # two answers, two models


def _per_token(spec: FineTuneSpec, base: BaseModel, family: FamilyParts) -> float:
    counts = count(base, family, spec.method)
    passes = 3 if spec.optimization.activation_checkpointing else 2
    return 2.0 * (passes * counts.linear + counts.trained)
