"""What the trials of a sweep are compared by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from finemesh.core.metrics import Goal
from finemesh.core.spec.finetune import TEXT_TOWERS, FineTuneSpec, Objective, Task


@dataclass(frozen=True, slots=True)
class Target:
    """A metric that checkpoints carry, and which way it is better."""

    metric: str
    goal: Goal

    @property
    def higher_is_better(self) -> bool:
        return self.goal is Goal.MAXIMIZE


# What a task's best checkpoint is chosen by, as the objectives of the training loop have it.
_OF_TASKS: Final[Mapping[Task, str]] = {
    Task.DETECTION: "val/map",
    Task.INSTANCE_SEGMENTATION: "val/map",
    Task.SEMANTIC_SEGMENTATION: "val/mean_iou",
}


# What validations measure, as the objectives of the training loop have it, and what steps do.
_LANGUAGE: Final[Mapping[Objective, Sequence[str]]] = {
    Objective.CONVERSATION: ("accuracy", "token_accuracy"),
    Objective.TEXT: ("perplexity", "token_accuracy"),
    Objective.PREFERENCE: ("accuracy", "margin"),
}
_PICTURES: Final[Mapping[Task, Sequence[str]]] = {
    Task.DETECTION: ("map", "map50", "map75", "map_small", "map_medium", "map_large"),
    Task.SEMANTIC_SEGMENTATION: ("mean_iou", "pixel_accuracy"),
    Task.IMAGE_CLASSIFICATION: ("accuracy", "macro_f1"),
}
_BY_CLASS: Final = "val/map/"
_STEPS: Final = ("loss", "grad_norm", "learning_rate", "loss_scale", "skipped_steps")


def measured(spec: FineTuneSpec) -> list[str]:
    """Names of the metrics that checkpoints of `spec` may carry, but for those of a single class."""
    speaks = spec.task in TEXT_TOWERS
    task = Task.DETECTION if spec.task is Task.INSTANCE_SEGMENTATION else spec.task
    validated = ("loss", *(_LANGUAGE[spec.objective] if speaks else _PICTURES[task]))
    steps = (*_STEPS, f"{'tokens' if speaks else 'pictures'}_per_second")
    return [*(f"val/{name}" for name in validated), *(f"train/{name}" for name in steps)]


def is_measured(metric: str, spec: FineTuneSpec) -> bool:
    """Whether checkpoints of `spec` may carry it; of a class whether there is one only its dataset knows."""
    known = measured(spec)
    return metric in known or ("val/map" in known and metric.startswith(_BY_CLASS))


def default_metric(task: Task) -> str:
    """What the best checkpoint of `task` is chosen by."""
    return _OF_TASKS.get(task, "val/loss")
