"""What contradicts itself in a fine-tune."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from finemesh.core.errors import InvalidError
from finemesh.core.names import parse_name
from finemesh.core.spec import optimization
from finemesh.core.spec.finetune import (
    TEXT_TOWERS,
    FineTuneSpec,
    Full,
    Lora,
    Objective,
    OverLength,
    Quantization,
    Resources,
    Segmentation,
    Strategy,
    Task,
    Tower,
    towers_of,
    what_keeps_whole,
)
from finemesh.core.spec.optimization import PAGED

Violation = tuple[str, str]
_LEAST_SHARE: Final = 0.01  # of a GPU
# What the final test of conversations measures by itself, where it applies.
OWN_METRICS: Final = (
    *("loss", "accuracy", "token_accuracy", "exact_match", "token_f1", "rouge_l"),
    *("box_iou", "box_accuracy_50", "count_error"),
)


def violations_of(spec: FineTuneSpec) -> Iterator[Violation]:
    """Field paths within the spec, and what to do about each."""
    yield from _source_violations(spec)
    yield from _method_violations(spec)
    yield from _optimization_violations(spec)
    yield from _objective_violations(spec)
    if spec.sequence.max_tokens < 2:
        yield "sequence.max_tokens", "must be at least 2: one token predicts the next"
    if spec.sequence.length_grouping and spec.sequence.packing:
        yield "sequence.length_grouping", "saves padding, and packed rows have none: set packing to false"
    for path, steps in (
        ("evaluation.every_steps", spec.evaluation.every_steps),
        ("evaluation.max_items", spec.evaluation.max_items),
        ("evaluation.max_generated_tokens", spec.evaluation.max_generated_tokens),
        ("checkpoint.every_steps", spec.checkpoint.every_steps),
    ):
        if steps < 0:
            yield path, "must not be negative"
    if spec.checkpoint.keep_last < 1:
        yield "checkpoint.keep_last", "must be at least 1: the last checkpoint is what a restart needs"
    yield from _evaluation_violations(spec)
    if spec.evaluation.baselines and not spec.test_split:
        yield "evaluation.baselines", "baselines are scored on the test split: name one in spec.test_split"
    yield from _resource_violations(spec.resources)
    if spec.resources.strategy is Strategy.FSDP and (reason := what_keeps_whole(spec)):
        yield "resources.strategy", f"{reason}: take DDP, or change that"
    if not 0 <= spec.max_quarantined_fraction <= 1:
        yield "max_quarantined_fraction", "must lie in [0, 1]"
    if spec.segmentation != Segmentation() and spec.task is not Task.SEMANTIC_SEGMENTATION:
        yield "segmentation", f"only SEMANTIC_SEGMENTATION labels pixels: leave it out for {spec.task}"
    if not 0 <= spec.pictures.horizontal_flip <= 1:
        yield "pictures.horizontal_flip", "must lie in [0, 1]"
    elif spec.pictures.horizontal_flip and spec.task is not Task.DETECTION:
        yield "pictures.horizontal_flip", f"only DETECTION mirrors pictures: leave it out for {spec.task}"


def _source_violations(spec: FineTuneSpec) -> Iterator[Violation]:
    if not spec.base_model:
        yield "base_model", "name a hub id, a local folder or s3://bucket/prefix"
    elif spec.base_model.startswith("s3://") and not all(spec.base_model[5:].partition("/")):
        yield "base_model", f"{spec.base_model!r} lacks a bucket or a prefix: write s3://bucket/prefix"
    try:
        parse_name(spec.dataset, "datasets", "dataset")
    except InvalidError as error:
        missing = "name a dataset: projects/{project}/datasets/{dataset}"
        yield "dataset", error.violations[0].description if spec.dataset else missing
    if not spec.train_split:
        yield "train_split", "name the split to train on"
    held_out = {"validation_split": spec.validation_split, "test_split": spec.test_split}
    for path, split in held_out.items():
        if split and split == spec.train_split:
            yield path, f"{split!r} is the training split: held-out rows must not be trained on"
    if spec.test_split and spec.test_split == spec.validation_split:
        yield "test_split", "is the validation split, which chooses the best checkpoint: hold out another"


def _method_violations(spec: FineTuneSpec) -> Iterator[Violation]:
    method = spec.method
    path = f"method.{type(method).__name__.lower()}"
    if not method.towers:
        yield f"{path}.towers", "name at least one tower"
    if len(set(method.towers)) != len(method.towers):
        yield f"{path}.towers", "names a tower twice"
    towers = towers_of(spec.task)
    if set(method.towers) - set(towers):
        yield f"{path}.towers", f"a model for {spec.task} has only {', '.join(towers)}: name of these"
    elif isinstance(method, Lora) and Tower.HEAD in method.towers:
        yield f"{path}.towers", "the head is always trained in full beside the adapters: leave HEAD out"
    if isinstance(method, Full):
        return
    if method.rank < 1:
        yield f"{path}.rank", "must be at least 1"
    if not (math.isfinite(method.alpha) and method.alpha > 0):
        yield f"{path}.alpha", "must be positive"
    if not (math.isfinite(method.loraplus_ratio) and method.loraplus_ratio > 0):
        yield f"{path}.loraplus_ratio", "must be positive; 1 is plain LoRA"
    if method.double_quantization and method.quantization is not Quantization.NF4:
        yield f"{path}.double_quantization", "only NF4 has scales to quantise: set quantization to NF4"
    if method.quantization is not Quantization.NONE and spec.task not in TEXT_TOWERS:
        yield f"{path}.quantization", f"is for models of language: leave it out for {spec.task.value}"
    if not 0 <= method.dropout < 1:
        yield f"{path}.dropout", "must lie in [0, 1)"
    if not all(method.target_modules):
        yield f"{path}.target_modules", "contains an empty name"
    if method.train_connector and Tower.CONNECTOR not in towers:
        yield f"{path}.train_connector", f"a model for {spec.task} has no connector"
    if method.train_connector and Tower.CONNECTOR in method.towers:
        yield f"{path}.train_connector", "the connector is trained in full or by LoRA, not both: drop one"


def _evaluation_violations(spec: FineTuneSpec) -> Iterator[Violation]:
    chosen, path = spec.evaluation, "evaluation"
    if chosen.patience < 0:
        yield f"{path}.patience", "must not be negative"
    if chosen.patience and chosen.every_steps == 0:
        yield f"{path}.every_steps", "patience counts evaluations: say how often there is one"
    if not 0 <= chosen.holdout_fraction < 1:
        yield f"{path}.holdout_fraction", "must lie in [0, 1)"
    if chosen.patience and not (spec.validation_split or chosen.holdout_fraction):
        yield f"{path}.patience", "nothing is validated: name a validation_split, or set holdout_fraction"
    if chosen.metrics and (spec.task not in TEXT_TOWERS or spec.objective is not Objective.CONVERSATION):
        yield f"{path}.metrics", "compare the answers of conversations, and here are none: leave them out"
    if len(set(chosen.metrics)) != len(chosen.metrics) or not all(chosen.metrics):
        yield f"{path}.metrics", "contains a name twice, or an empty one"
    for at, name in enumerate(chosen.metrics):
        if name.rpartition("/")[2] in OWN_METRICS:
            yield f"{path}.metrics[{at}]", f"{name} is measured anyway where it applies: leave it out"
    if not (math.isfinite(chosen.min_improvement) and chosen.min_improvement >= 0):
        yield f"{path}.min_improvement", "must be finite and not negative"


def _resource_violations(resources: Resources) -> Iterator[Violation]:
    if not (math.isfinite(resources.gpus) and resources.gpus >= 0):
        yield "resources.gpus", "must be finite and not negative"
        return
    if resources.gpus % 1 and not _LEAST_SHARE <= resources.gpus < 1:
        yield "resources.gpus", f"must be a whole number, or a share of one GPU from {_LEAST_SHARE} to 1"
    if not (math.isfinite(resources.cpus) and resources.cpus > 0):
        yield "resources.cpus", "must be positive"
    elif resources.ranks > 1 and resources.cpus < resources.ranks:
        yield "resources.cpus", f"must be at least {resources.ranks}: each worker is a process of its own"
    for name in ("memory_bytes", "workers"):
        if getattr(resources, name) < 0:
            yield f"resources.{name}", "must not be negative"
    if resources.gpus >= 1 and resources.workers not in {0, resources.gpus}:
        yield "resources.workers", f"must be {resources.gpus:g}, or be left out: each worker has one GPU"
    if 0 < resources.gpus < 1 and resources.workers > 1:
        yield "resources.workers", "must be 1, or be left out: workers do not share a GPU"
    if resources.strategy is Strategy.FSDP and resources.ranks == 1:
        yield "resources.strategy", "one worker has nobody to share with: ask for more, or leave it out"


def _objective_violations(spec: FineTuneSpec) -> Iterator[Violation]:
    objective, preference = spec.objective, spec.preference
    if objective is not Objective.CONVERSATION and spec.task not in TEXT_TOWERS:
        yield "objective", f"{objective.value} is for models of language, not for {spec.task.value}"
    if objective is Objective.TEXT and spec.task is Task.VISION_LANGUAGE:
        yield "objective", "plain text shows no pictures: set task to LANGUAGE"
    if spec.sequence.over_length is OverLength.SPLIT and objective is not Objective.TEXT:
        yield "sequence.over_length", "SPLIT is for the objective TEXT: take RAISE, TRUNCATE or DROP"
    if not (math.isfinite(preference.beta) and preference.beta > 0):
        yield "preference.beta", "must be positive"
    if not 0 <= preference.label_smoothing < 0.5:
        yield "preference.label_smoothing", "must lie in [0, 0.5)"
    if not (math.isfinite(preference.chosen_weight) and preference.chosen_weight >= 0):
        yield "preference.chosen_weight", "must be finite and not negative"


def _optimization_violations(spec: FineTuneSpec) -> Iterator[Violation]:
    chosen = spec.optimization
    yield from optimization.violations(chosen)
    if chosen.optimizer in PAGED and spec.resources.gpus == 0:
        remedy = "claim one in spec.resources.gpus, or take ADAMW_8BIT or ADAMW"
        yield "optimization.optimizer", f"{chosen.optimizer} pages the memory of a GPU: {remedy}"
    if chosen.neftune_alpha and spec.task not in TEXT_TOWERS:
        yield "optimization.neftune_alpha", f"is for tokens: leave it out for {spec.task.value}"
    smooths = spec.task in TEXT_TOWERS or spec.task is Task.IMAGE_CLASSIFICATION
    if chosen.label_smoothing and (not smooths or spec.objective is Objective.PREFERENCE):
        yield (
            "optimization.label_smoothing",
            "is for tokens of conversations and texts and for classes of pictures",
        )
    for tower in (Tower.VISION, Tower.CONNECTOR):
        name = f"{tower.lower()}_rate_ratio"
        if getattr(chosen, name) != 1 and tower not in _trained_towers(spec):
            yield (
                f"optimization.{name}",
                f"the tower {tower} is not trained: name it in the method, or leave this at 1",
            )


def _trained_towers(spec: FineTuneSpec) -> set[Tower]:
    connector = isinstance(spec.method, Lora) and spec.method.train_connector
    return {*spec.method.towers, *((Tower.CONNECTOR,) if connector else ())}
