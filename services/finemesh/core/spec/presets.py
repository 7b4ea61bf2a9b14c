"""Fine-tunes that were thought through, for every task and every family: quick, balanced, quality.

A family's are those of its task, with what its makers say of it (`recipes`). All are plain specs with every
value written out, so that what ran is what is stored; base model and dataset are left empty. Each is held
against the linter, which finds nothing. Where a number of a task comes from:

- LoRA on every linear layer of the language model at 2e-4, alpha twice the rank: QLoRA's ablations
  (https://arxiv.org/abs/2305.14314, 4) and LLaVA-1.5's recipe (https://arxiv.org/abs/2310.03744, table 9).
  More rank learns more from more data at the same rate; from rank 64 on a lower rate is safer.
- The connector is trained in full: it is small, and what the language model sees goes through it. On the
  scenes of the demo held-out accuracy rose from 0.82 to 0.96 by that alone.
- Cosine with 3% warm-up, gradients clipped at 1, no weight decay on adapters: as in both recipes.
- 32 rows a step are what the recipes use; fewer are taken where soon is what counts.
- Detectors: rate, decay and clipping of DETR (https://arxiv.org/abs/2005.12872, A.4), 72 passes as RT-DETR
  (https://arxiv.org/abs/2304.08069, 5.1). SegFormer: 6e-5 on the encoder, falling along a line
  (https://arxiv.org/abs/2105.15203, 4.1), and ten times that on the head, as in its code. Mask2Former: as in
  https://arxiv.org/abs/2112.01527, 4.1. Classifiers: 5e-5 on the backbone, as ConvNeXt is tuned
  (https://arxiv.org/abs/2201.03545, appendix A).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from finemesh.core.errors import NotFoundError
from finemesh.core.spec.finetune import (
    Checkpointing,
    Evaluation,
    FineTuneSpec,
    Full,
    Lora,
    Pictures,
    Task,
    towers_of,
)
from finemesh.core.spec.optimization import Optimization, Schedule
from finemesh.core.spec.recipes import RECIPES, Fields


class Level(StrEnum):
    """What a preset cares for."""

    QUICK = "QUICK"
    BALANCED = "BALANCED"
    QUALITY = "QUALITY"


@dataclass(frozen=True, slots=True)
class Preset:
    """One choice. `spec` lacks `base_model` and `dataset`; without `family` it is for all of its task."""

    level: Level
    description: str
    spec: FineTuneSpec
    family: str = ""

    @property
    def id(self) -> str:
        """E.g. `vision-language-quick`, `qwen2.5-vl-quick`."""
        return f"{self.family or self.spec.task}-{self.level}".lower().replace("_", "-")


def preset_of(preset_id: str) -> Preset:
    """Raises NotFoundError (reason PRESET_NOT_FOUND)."""
    for preset in PRESETS:
        if preset.id == preset_id:
            return preset
    raise NotFoundError(
        f"there is no preset {preset_id!r}: there is one for each of {', '.join(sorted(_OWNERS))}, "
        f"each with {', '.join(f'-{level.lower()}' for level in Level)}",
        reason="PRESET_NOT_FOUND",
    )


def _levels(balanced: FineTuneSpec, quality: FineTuneSpec, family: str = "") -> tuple[Preset, ...]:
    """Three presets; the quick one is the balanced one cut short."""
    soon = replace(balanced.optimization, epochs=1.0, max_steps=200, gradient_accumulation_steps=1)
    if soon.micro_batch_size == 1:  # the gradient of one row is mostly noise
        soon = replace(soon, gradient_accumulation_steps=4)
    method = balanced.method
    quick = replace(
        balanced,
        method=replace(method, rank=8, alpha=8 * method.alpha / method.rank)
        if isinstance(method, Lora)
        else method,
        optimization=soon,
        evaluation=Evaluation(every_steps=50, max_items=64),
        checkpoint=Checkpointing(every_steps=50, keep_last=1),
    )
    first = f"{soon.max_steps} small steps: shows soon that data and model fit, and that the loss falls."
    words = (first, _described(balanced), _described(quality))
    return tuple(
        Preset(level, description, spec, family)
        for level, description, spec in zip(Level, words, (quick, balanced, quality), strict=True)
    )


def _described(spec: FineTuneSpec) -> str:
    method, chosen = spec.method, spec.optimization
    if isinstance(method, Lora):
        what = f"An adapter of rank {method.rank} on every linear layer"
        what += f", dropout {method.dropout:g}" * (method.dropout > 0)
        if method.train_connector:
            slower = f" at {chosen.connector_rate_ratio:g} times the rate"
            what += "; the connector in full" + slower * (chosen.connector_rate_ratio != 1)
    else:
        slower = f", the backbone at {chosen.vision_rate_ratio:g} times the rate"
        what = "All weights" + slower * (chosen.vision_rate_ratio != 1)
    rows = chosen.micro_batch_size * chosen.gradient_accumulation_steps
    return f"{what}. Rate {chosen.learning_rate:g}, {chosen.epochs:g} passes, {rows} rows a step."


def _chats(task: Task, micro_batch_size: int, *, train_connector: bool) -> tuple[Preset, ...]:
    """Adapters; 32 rows a step."""
    balanced = FineTuneSpec(
        task,
        base_model="",
        dataset="",
        method=Lora(rank=16, alpha=32.0, train_connector=train_connector),
        optimization=Optimization(
            learning_rate=2e-4,
            epochs=2.0,
            micro_batch_size=micro_batch_size,
            gradient_accumulation_steps=32 // micro_batch_size,
        ),
        evaluation=Evaluation(every_steps=50, max_items=512, baselines=True),
        checkpoint=Checkpointing(every_steps=50, keep_last=2),
    )
    quality = replace(
        balanced,
        method=Lora(rank=64, alpha=128.0, dropout=0.05, train_connector=train_connector),
        optimization=replace(balanced.optimization, learning_rate=1e-4, epochs=3.0),
        evaluation=Evaluation(every_steps=50, baselines=True),
        checkpoint=Checkpointing(every_steps=50, keep_last=3),
    )
    return _levels(balanced, quality)


def _pictures(
    task: Task, chosen: Optimization, quality_epochs: float, flip: float = 0.0
) -> tuple[Preset, ...]:
    """All weights, the backbone at a tenth of the rate; the best by validation is kept."""
    balanced = FineTuneSpec(
        task,
        base_model="",
        dataset="",
        method=Full(towers_of(task)),
        optimization=replace(chosen, vision_rate_ratio=0.1),
        evaluation=Evaluation(every_steps=100),
        checkpoint=Checkpointing(every_steps=100, keep_last=2),
        pictures=Pictures(horizontal_flip=flip),
    )
    quality = replace(balanced, optimization=replace(balanced.optimization, epochs=quality_epochs))
    return _levels(balanced, quality)


def _of_family(family: str) -> tuple[Preset, ...]:
    """The presets of its task, as its makers would have them."""
    recipe = RECIPES[family]
    _, balanced, quality = (preset for preset in _OF_TASKS if preset.spec.task is recipe.task)
    best = _with(_with(quality.spec, recipe.fields), recipe.quality)
    return _levels(_with(balanced.spec, recipe.fields), best, family)


def _with(spec: FineTuneSpec, fields: Fields) -> FineTuneSpec:
    sections: dict[str, Any] = {name: replace(getattr(spec, name), **fields[name]) for name in fields}
    return replace(spec, **sections)


_DETR: Final = Optimization(
    learning_rate=1e-4,
    weight_decay=1e-4,
    max_grad_norm=0.1,
    epochs=24.0,
    micro_batch_size=4,
    gradient_accumulation_steps=4,
)
_SEGFORMER: Final = replace(
    _DETR, learning_rate=6e-4, weight_decay=0.01, schedule=Schedule.LINEAR, max_grad_norm=1.0, epochs=20.0
)
_MASK2FORMER: Final = replace(_DETR, weight_decay=0.05, max_grad_norm=0.01, epochs=20.0)
_CLASSIFIER: Final = replace(
    _SEGFORMER,
    learning_rate=5e-4,
    schedule=Schedule.COSINE,
    epochs=5.0,
    warmup_ratio=0.1,
    micro_batch_size=16,
)

_OF_TASKS: Final[tuple[Preset, ...]] = (
    *_chats(Task.LANGUAGE, 8, train_connector=False),
    *_chats(Task.VISION_LANGUAGE, 4, train_connector=True),
    *_pictures(Task.DETECTION, _DETR, quality_epochs=72.0, flip=0.5),
    *_pictures(Task.SEMANTIC_SEGMENTATION, _SEGFORMER, quality_epochs=60.0),
    *_pictures(Task.INSTANCE_SEGMENTATION, _MASK2FORMER, quality_epochs=50.0),
    *_pictures(Task.IMAGE_CLASSIFICATION, _CLASSIFIER, quality_epochs=20.0),
)
PRESETS: Final[tuple[Preset, ...]] = (*_OF_TASKS, *(each for name in RECIPES for each in _of_family(name)))
_OWNERS: Final = {preset.id.rpartition("-")[0] for preset in PRESETS}
