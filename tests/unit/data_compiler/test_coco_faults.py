"""Annotations of COCO that cannot be kept: the picture is put aside with the reason and the field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from finemesh.core.spec.data import ImportOptions
from finemesh.data import Progress, import_source


def _coco(**changes: Any) -> dict[str, Any]:
    annotation = {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "bbox": [1, 1, 4, 4],
        "segmentation": [],
        "iscrowd": 0,
    }
    return {
        "images": [
            {"id": 1, "width": 20, "height": 10, "file_name": "a.jpg"},
            {"id": 2, "width": 20, "height": 10},
        ],
        "annotations": [annotation | changes],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": ""}],
    }


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"image_id": 9}, "UNKNOWN_IMAGE"),
        ({"category_id": 9}, "UNKNOWN_CATEGORY"),
        ({"category_id": 2}, "EMPTY_CLASS_NAME"),
        ({"bbox": [0, 0, -1, 2]}, "BBOX_INVALID"),
        ({"bbox": [0, 0, float("nan"), 2]}, "BBOX_INVALID"),
        ({"bbox": None}, "BBOX_INVALID"),
        ({"segmentation": [[1, 1, 2, 2]]}, "POLYGON_INVALID"),
        ({"segmentation": [[1, 1, 2, 2, 3, 1e9]]}, "POLYGON_INVALID"),
        ({"segmentation": {"size": [20, 10], "counts": [200]}}, "MASK_SIZE_MISMATCH"),
        ({"segmentation": {"size": [10, 20], "counts": [-5, 205]}}, "RLE_INVALID"),
        ({"segmentation": {"size": [10, 20]}}, "RLE_INVALID"),
    ],
)
def test_faulty_coco_annotation_is_quarantined(
    changes: dict[str, Any], reason: str, tmp_path: Path, silent: Progress
) -> None:
    source = tmp_path / "coco.json"
    source.write_text(json.dumps(_coco(**changes)))
    manifest = import_source(source, tmp_path / "out", ImportOptions(), silent)
    assert manifest.ledger.by_reason == {reason: 1}
    assert manifest.media == {"rendered": manifest.rows}
    assert "images missing: rendered from masks" in manifest.warnings
