"""Golden items of models that do not speak: pictures, and the classes, boxes or masks found in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import torch

from finemesh.core.spec.finetune import Task
from finemesh.core.spec.ledger import LedgerEntry
from finemesh.finetune.families.detector import PerQueryAndBox
from finemesh.finetune.models import Model
from finemesh.finetune.objectives.objective import AnyObjective, Split
from finemesh.finetune.objectives.pictures import PictureObjective
from finemesh.finetune.objectives.registry import make_objective
from finemesh.finetune.pictures import PictureRow, sound_pictures
from finemesh.finetune.rows import read_images
from finemesh.package.golden import Arrays, GoldenItem
from finemesh.package.shipped.decide import MOST_OBJECTS, masks
from finemesh.package.trained import Trained

OUTPUTS: Final = {
    Task.IMAGE_CLASSIFICATION: ("logits",),
    Task.SEMANTIC_SEGMENTATION: ("logits",),
    Task.DETECTION: ("logits", "pred_boxes"),
    Task.INSTANCE_SEGMENTATION: ("class_queries_logits", "masks_queries_logits"),
}


def decision_facts(trained: Trained) -> dict[str, Any]:
    """What a reader of the raw outputs must know: names of inputs and outputs, classes by their index, and
    of detectors what their logits are.
    """
    model = trained.model
    detector = model.family.detector
    masked = detector.masked if detector else trained.spec.task is Task.INSTANCE_SEGMENTATION
    names: dict[int, str] = {int(index): name for index, name in model.config.id2label.items()}
    facts: dict[str, Any] = {
        "inputs": ["pixel_values", "pixel_mask"] if masked else ["pixel_values"],
        "outputs": list(OUTPUTS[trained.spec.task]),
        "labels": [names.get(index, "N/A") for index in range(max(names) + 1)],
    }
    if detector:  # a class for nothing beside the others is what makes theirs a softmax
        facts["scores"] = "softmax" if isinstance(detector.loss, PerQueryAndBox) else "sigmoid"
    return facts


def picture_items(trained: Trained, split: str, wanted: list[str]) -> Iterator[GoldenItem]:
    """The items of these rows, in their order."""
    objective = make_objective(trained.on_cpu, trained.model, trained.dataset)
    assert isinstance(objective, PictureObjective)  # those of all other tasks
    ranks = {row_id: rank for rank, row_id in enumerate(wanted)}
    samples: list[tuple[PictureRow, Any]] = []
    for row, picture in sound_pictures(trained.dataset, split, only=ranks):
        if isinstance(picture, LedgerEntry):
            continue
        sample = objective.sample(row, picture)
        if not isinstance(sample, LedgerEntry):
            samples.append((row, sample))
    for row, sample in sorted(samples, key=lambda each: ranks[each[0].row_id]):
        yield _item(trained, objective, row, sample)


def _item(trained: Trained, objective: AnyObjective, row: PictureRow, sample: Any) -> GoldenItem:
    [image] = read_images(trained.dataset, row.location)
    inputs = _inputs(objective, sample)
    with torch.inference_mode():
        output = trained.model.module(**inputs)
    outputs = {name: output[name][0].float() for name in OUTPUTS[trained.spec.task]}
    return GoldenItem(
        row_id=row.row_id,
        group=row.group,
        messages=[],
        image=image,
        expected=expected_of(trained.spec.task, row),
        inputs={name: each.numpy() for name, each in inputs.items()},
        outputs={name: each.numpy() for name, each in outputs.items()},
        decision=_decision(trained.model, trained.spec.task, output, sample, outputs),
    )


def _inputs(objective: AnyObjective, sample: Any) -> dict[str, torch.Tensor]:
    """One picture as training's own batches have it, without what is to be learnt."""
    batch: Any = objective.collate(Split([sample], [], 0), [sample])
    if hasattr(batch, "inputs"):
        return {name: each for name, each in batch.inputs.items() if name.startswith("pixel")}
    return {"pixel_values": batch.pixels_BCHW}


def expected_of(task: Task, row: PictureRow) -> Any:
    """What the dataset says of a picture, as JSON. Boxes are x, y, width, height in its pixels."""
    if task is Task.IMAGE_CLASSIFICATION:
        return row.class_name or next((each.class_name for each in row.objects), None)
    return [
        {
            "label": each.class_name,
            "box": list(each.bbox_px),
            "mask": each.rle_counts if task is not Task.DETECTION else None,
            "crowd": each.iscrowd,
        }
        for each in row.objects
    ]


def _decision(model: Model, task: Task, output: Any, sample: Any, outputs: dict[str, torch.Tensor]) -> Arrays:
    """By transformers' own processors where they decide in training too: `decide.py` must find the same."""
    if task is Task.IMAGE_CLASSIFICATION:
        return {"label": outputs["logits"].argmax().reshape(1).numpy()}
    if task is Task.SEMANTIC_SEGMENTATION:
        [map_HW] = model.processor.post_process_semantic_segmentation(output, [sample.size_px])
        return {"map": map_HW.numpy().astype(np.uint8)}
    size_px: tuple[int, int] = sample.scene.size_px
    if task is Task.DETECTION:
        sizes = torch.tensor([size_px])
        [found] = model.processor.post_process_object_detection(output, threshold=0.0, target_sizes=sizes)
        return _surest(found, MOST_OBJECTS, ("boxes", "scores", "labels"))
    return masks({name: each.numpy() for name, each in outputs.items()}, size_px)


def _surest(found: dict[str, torch.Tensor], most: int, names: Sequence[str]) -> Arrays:
    order = torch.argsort(-found["scores"], stable=True)[:most]
    return {name: found[name][order].numpy() for name in names}
