"""Which objective a spec asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from finemesh.core.spec.finetune import FineTuneSpec, Task
from finemesh.finetune.models import Model
from finemesh.finetune.objectives.conversation import Conversation
from finemesh.finetune.objectives.objective import AnyObjective

_BY_TASK: Final[dict[Task, type[AnyObjective]]] = {
    Task.VISION_LANGUAGE: Conversation,
    Task.LANGUAGE: Conversation,
}


def make_objective(spec: FineTuneSpec, model: Model, dataset: Path) -> AnyObjective:
    """The objective of `spec`, for its model and a local folder of its dataset."""
    return _BY_TASK[spec.task](spec, model, dataset)
