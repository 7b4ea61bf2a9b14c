"""Small models that were trained for a step: what tests of ONNX packages share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from finemesh.core.spec.export import ExportFormat
from finemesh.core.spec.finetune import FineTuneSpec, Full, Task, Tower
from finemesh.finetune.families import family_named
from finemesh.finetune.loop import train
from finemesh.package.exporting import export_checkpoint
from finemesh.package.manifest import PackageManifest
from finemesh.package.shared import SharedFolders
from finemesh.package.trained import Trained

from tests.support.conversations import colour_rows, spec, text_rows, tiny_model, write_dataset
from tests.support.picture_runs import picture_spec, tiny_picture_model
from tests.support.shapes import shape_rows

ITEMS = 4
_TOWERS = (Tower.VISION, Tower.DECODER, Tower.HEAD)


def train_tiny(
    root: Path, family: str, *, steps: int = 1, counts: dict[str, int] | None = None, **changes: Any
) -> Trained:
    """A small model of a family, trained for some steps on rows of its task; `changes` replace fields of its
    spec.
    """
    kind = family_named(family)
    chosen, rows, base = _work(root, family, counts or {"train": 8, "test": ITEMS})
    chosen = replace(chosen, test_split="test", **changes)
    chosen = replace(chosen, optimization=replace(chosen.optimization, max_steps=steps))
    if kind.task not in (Task.LANGUAGE, Task.VISION_LANGUAGE):
        towers = tuple(tower for tower in _TOWERS if tower in kind.towers)
        chosen = replace(chosen, method=Full(towers))
    dataset = write_dataset(root / "dataset", rows)
    result = train(chosen, base_model=base, dataset=dataset, work=root / "work")
    shared = SharedFolders(root / "shared", "one", lambda: None)
    return Trained(chosen, result.checkpoint.path, base, dataset, root / "scratch", shared)


def _work(root: Path, family: str, counts: dict[str, int]) -> tuple[FineTuneSpec, list[dict[str, Any]], Path]:
    task = family_named(family).task
    if task is Task.LANGUAGE:
        return spec(task), [*text_rows(counts)], tiny_model(root / "base", family)
    if task is Task.VISION_LANGUAGE:
        return spec(task), [*colour_rows(counts)], tiny_model(root / "base", family)
    return picture_spec(task), [*shape_rows(counts)], tiny_picture_model(root / "base", family)


def export_tiny(trained: Trained, out: Path, form: ExportFormat, items: int = ITEMS) -> PackageManifest:
    """Write the package of a form into `out`."""
    return export_checkpoint(
        spec=trained.spec,
        checkpoint=trained.checkpoint,
        base_model=trained.base_model,
        dataset=trained.dataset,
        out=out,
        format=form,
        lineage={},
        golden_items=items,
        shared=trained.shared,
    )
