"""What the trials of a sweep are compared by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from finemesh.core.metrics import Goal
from finemesh.core.spec.finetune import Task


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


def default_metric(task: Task) -> str:
    """What the best checkpoint of `task` is chosen by."""
    return _OF_TASKS.get(task, "val/loss")
