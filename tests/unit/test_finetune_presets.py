"""Presets take a step with a small model of their family: of each one, the levels in turn.

What the levels of a family differ in is numbers, which `test_spec_lint` looks at for all of them.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
from finemesh.core.spec.finetune import Evaluation, Task
from finemesh.core.spec.presets import Level, Preset, preset_of
from finemesh.finetune.families import FAMILIES
from finemesh.finetune.loop import train
from finemesh.finetune.tiny import build_tiny

from tests.support.conversations import colour_rows, text_rows, write_dataset
from tests.support.shapes import DATASET, shape_rows

BUILT = [family.name for family in FAMILIES if family.tiny_config and not family.extra]
TRIED = [
    preset_of(f"{name}-{level.lower()}") for name, level in zip(BUILT, itertools.cycle(Level), strict=False)
]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[Task, Path]:
    root = tmp_path_factory.mktemp("rows")
    shapes = write_dataset(root / "shapes", list(shape_rows({"train": 4}, side_px=32)))
    return dict.fromkeys(Task, shapes) | {
        Task.LANGUAGE: write_dataset(root / "texts", list(text_rows({"train": 4}))),
        Task.VISION_LANGUAGE: write_dataset(root / "colours", list(colour_rows({"train": 4}))),
    }


@pytest.mark.parametrize("preset", TRIED, ids=lambda each: each.id)
def test_a_preset_takes_a_step(preset: Preset, rows: dict[Task, Path], tmp_path: Path) -> None:
    spec = replace(
        preset.spec,
        base_model="tiny",
        dataset=DATASET,
        optimization=replace(preset.spec.optimization, max_steps=1),
        evaluation=Evaluation(),
        validation_split="",
        test_split="",
    )
    base = build_tiny(preset.family, tmp_path / "base", ["red green blue"], seed=0)
    result = train(spec, base_model=base, dataset=rows[spec.task], work=tmp_path / "work")
    assert result.step == 1
