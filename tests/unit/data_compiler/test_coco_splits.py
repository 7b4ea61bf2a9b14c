"""Splits that COCO files name, in themselves or in their folders, row by row and in columns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from finemesh.core.spec.data import ConvertOptions, DatasetFormat, ImportOptions
from finemesh.data import Progress, compile_source, import_source, iter_rows
from PIL import Image

NAMES = {
    "instances_train2017.json": "train",
    "annotations/instances_val.json": "val",
    "test/_annotations.coco.json": "test",
    "valid/_annotations.coco.json": "val",
    "more.json": "",
}


def lay_out(root: Path, *, pictures: bool) -> None:
    """A file of one picture under each name; all with the same ids."""
    for number, name in enumerate(NAMES):
        coco = {
            "images": [{"id": 1, "width": 8, "height": 4, "file_name": f"p{number}.png"}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 1, 4, 2], "area": 8}],
            "categories": [{"id": 1, "name": "cat"}],
        }
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(json.dumps(coco))
        if pictures:
            Image.new("RGB", (8, 4)).save(root / f"p{number}.png")


def test_rows_are_in_the_split_that_their_file_names(tmp_path: Path, silent: Progress) -> None:
    lay_out(tmp_path / "in", pictures=True)
    manifest = import_source(tmp_path / "in", tmp_path / "out", ImportOptions(), silent)
    rows = {row["source"]["file"]: row["split"] for row in iter_rows(tmp_path / "out")}
    assert rows == NAMES
    assert manifest.ledger.kept == len(NAMES)


@pytest.mark.parametrize("pictures", [True, False])
def test_yolo_labels_lie_in_the_folder_of_their_split(
    pictures: bool, tmp_path: Path, silent: Progress
) -> None:
    lay_out(tmp_path / "in", pictures=pictures)
    options = ConvertOptions(DatasetFormat.YOLO_DETECTION)
    manifest = compile_source(tmp_path / "in", tmp_path / "out", ImportOptions(), options, silent)
    labels = {path.parent.name for path in (tmp_path / "out/labels").rglob("*.txt")}
    assert labels == {"train", "val", "test", "all"}
    assert manifest.splits == {"": 1, "test": 1, "train": 1, "val": 2}
    assert [item.splits for item in manifest.classes] == [{"": 1, "test": 1, "train": 1, "val": 2}]
