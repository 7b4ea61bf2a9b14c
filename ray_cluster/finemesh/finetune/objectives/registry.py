"""Which objective a spec asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from finemesh.core.spec.finetune import FineTuneSpec, Task
from finemesh.core.spec.finetune import Objective as Learnt
from finemesh.finetune.models import Model
from finemesh.finetune.objectives.classification import Classification
from finemesh.finetune.objectives.conversation import Conversation
from finemesh.finetune.objectives.detection import Detection
from finemesh.finetune.objectives.instance import InstanceSegmentation
from finemesh.finetune.objectives.objective import AnyObjective
from finemesh.finetune.objectives.preference import PreferencePairs
from finemesh.finetune.objectives.semantic import SemanticSegmentation
from finemesh.finetune.objectives.text import PlainText

_OF_LANGUAGE: Final[dict[Learnt, type[AnyObjective]]] = {
    Learnt.CONVERSATION: Conversation,
    Learnt.TEXT: PlainText,
    Learnt.PREFERENCE: PreferencePairs,
}
_BY_TASK: Final[dict[Task, type[AnyObjective]]] = {
    Task.DETECTION: Detection,
    Task.SEMANTIC_SEGMENTATION: SemanticSegmentation,
    Task.INSTANCE_SEGMENTATION: InstanceSegmentation,
    Task.IMAGE_CLASSIFICATION: Classification,
}


def make_objective(spec: FineTuneSpec, model: Model, dataset: Path) -> AnyObjective:
    """The objective of `spec`, for its model and a local folder of its dataset."""
    kind = _BY_TASK.get(spec.task) or _OF_LANGUAGE[spec.objective]
    return kind(spec, model, dataset)
