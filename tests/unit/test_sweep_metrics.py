"""What a sweep may compare trials by is what their checkpoints carry, for every task and objective."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from finemesh.core.spec.finetune import Checkpointing, Full, Objective, Optimization, Task, Tower, towers_of
from finemesh.data.rows import make_row
from finemesh.finetune.loop import train
from finemesh.training.sweeps.metrics import default_metric, is_measured, measured

from tests.support.conversations import message, row, spec, text_rows, tiny_model, write_dataset
from tests.support.picture_runs import picture_spec, tiny_picture_model
from tests.support.shapes import shape_rows

# Not in every run: of sizes that no shape has, and of FP16.
SOMETIMES = {"val/map_small", "val/map_medium", "val/map_large", "train/loss_scale", "train/skipped_steps"}
COUNTS = {"train": 8, "val": 4}


def rows_of(objective: Objective) -> list[dict[str, Any]]:
    if objective is Objective.CONVERSATION:
        return list(text_rows(COUNTS))
    ids = [(f"{split}-{n}", split) for split, count in COUNTS.items() for n in range(count)]
    if objective is Objective.TEXT:
        return [
            dict(make_row(name, source={"file": "made up", "key": name}, split=split, text="red blue"))
            for name, split in ids
        ]
    asked = [message("user", "say red")]
    return [
        row(name, split, [*asked, message("assistant", "red")]) | {"rejected": [message("assistant", "blue")]}
        for name, split in ids
    ]


def check(chosen: Any, base: Path, dataset: Path, work: Path) -> None:
    chosen = replace(chosen, validation_split="val", checkpoint=Checkpointing(every_steps=0))
    carried = train(chosen, base_model=base, dataset=dataset, work=work).metrics.keys()
    assert not [name for name in carried if not is_measured(name, chosen)]
    assert not set(measured(chosen)) - carried - SOMETIMES
    assert default_metric(chosen.task) in carried
    for name in ("val/los", "train/tokens", "test/loss", "map", "val/map_/circle", ""):
        assert not is_measured(name, chosen)


@pytest.mark.parametrize("objective", Objective)
def test_models_that_speak(objective: Objective, tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "data", rows_of(objective))
    short = Optimization(max_steps=1, micro_batch_size=4)
    chosen = spec(Task.LANGUAGE, objective=objective, optimization=short)
    check(chosen, tiny_model(tmp_path / "llama", "llama"), dataset, tmp_path / "work")


@pytest.mark.parametrize(
    ("task", "family"),
    [
        (Task.DETECTION, "yolos"),
        (Task.IMAGE_CLASSIFICATION, "vit"),
        (Task.SEMANTIC_SEGMENTATION, "segformer"),
        (Task.INSTANCE_SEGMENTATION, "mask2former"),
    ],
)
def test_models_that_see(task: Task, family: str, tmp_path: Path) -> None:
    most = 1 if task is Task.IMAGE_CLASSIFICATION else 3
    dataset = write_dataset(tmp_path / "data", list(shape_rows(COUNTS, side_px=32, most=most)))
    towers = (Tower.VISION, Tower.HEAD) if family == "yolos" else towers_of(task)
    short = Optimization(max_steps=1, micro_batch_size=4)
    chosen = picture_spec(task, method=Full(towers), optimization=short)
    check(chosen, tiny_picture_model(tmp_path / family, family), dataset, tmp_path / "work")
