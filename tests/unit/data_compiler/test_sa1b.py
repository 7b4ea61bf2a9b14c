"""SA-1B: one file per picture, its masks as pycocotools decodes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from finemesh.core.spec.data import AnnotationFormat
from pycocotools import mask as coco_mask

from tests.support.sources import load, png

# pycocotools 2.0.11 itself sets off numpy 2.4
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

WIDTH, HEIGHT = 100, 50


def sa1b(seed: int, name: str = "sa_7.png") -> dict[str, Any]:
    """As the published files look."""
    random = np.random.default_rng(seed)
    annotations: list[dict[str, Any]] = []
    for number in range(3):
        pixels = np.zeros((HEIGHT, WIDTH), dtype=np.uint8, order="F")
        x, y = (int(side) for side in random.integers(0, 40, 2))
        pixels[y : y + 9, x : x + 20] = random.random((9, 20))[: HEIGHT - y] < 0.7
        rle = coco_mask.encode(pixels)
        annotations.append(
            {
                "bbox": [float(side) for side in coco_mask.toBbox(rle)],
                "area": int(pixels.sum()),
                "segmentation": {"size": [HEIGHT, WIDTH], "counts": rle["counts"].decode()},  # pyright: ignore[reportAttributeAccessIssue]
                "predicted_iou": 0.9,
                "point_coords": [[x + 1.5, y + 1.5]],
                "crop_box": [0.0, 0.0, WIDTH, HEIGHT],
                "id": 500 + number,
                "stability_score": 0.95,
            }
        )
    return {
        "image": {"image_id": 7, "width": WIDTH, "height": HEIGHT, "file_name": name},
        "annotations": annotations,
    }


def test_every_mask_and_what_is_said_of_it_is_kept(tmp_path: Path) -> None:
    value = sa1b(1)
    loaded = load(tmp_path, {"sa_7.json": value, "sa_7.png": png()})
    (row,) = loaded.rows.values()
    for item, stated in zip(row["objects"], value["annotations"], strict=True):
        assert item["rle_counts"] == stated["segmentation"]["counts"]
        decoded = coco_mask.decode({"size": [HEIGHT, WIDTH], "counts": item["rle_counts"]})  # pyright: ignore[reportArgumentType]
        assert (item["area"], item["bbox"]) == (decoded.sum(), stated["bbox"])
        assert json.loads(item["attributes"]) == {
            key: stated[key] for key in ("predicted_iou", "point_coords", "crop_box", "stability_score")
        }
    assert (row["row_id"], json.loads(row["attributes"])) == ("sa_7", {"image_id": 7})
    assert loaded.manifest.options["format"] == AnnotationFormat.SA1B


def test_a_file_of_many_masks_is_recognised_and_without_pictures_they_are_rendered(tmp_path: Path) -> None:
    value = sa1b(2)
    value["annotations"] = [{**value["annotations"][0], "id": index} for index in range(400)]
    assert len(json.dumps(value)) > 1 << 16
    loaded = load(tmp_path, {"a/sa_7.json": value, "b/sa_7.json": sa1b(3)})
    assert list(loaded.rows) == ["a/sa_7", "b/sa_7"]
    assert loaded.manifest.media == {"rendered": 2}


def _change(path: tuple[Any, ...], to: Any) -> dict[str, Any]:
    value: Any = sa1b(4)
    holder = value
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = to
    return value


@pytest.mark.parametrize(
    ("faulty", "reason"),
    [
        ("{", "MALFORMED_JSON"),
        ([], "MALFORMED_ANNOTATIONS"),
        (_change(("annotations",), {}), "MALFORMED_ANNOTATIONS"),
        (_change(("annotations", 0), 3), "MALFORMED_ANNOTATION"),
        (_change(("annotations", 0, "bbox"), [1, 2]), "BBOX_INVALID"),
        (_change(("annotations", 0, "segmentation"), None), "RLE_INVALID"),
        (_change(("annotations", 0, "segmentation", "size"), [100, 50]), "MASK_SIZE_MISMATCH"),
        (_change(("annotations", 0, "predicted_iou"), "\ud800"), "TEXT_INVALID"),
        (_change(("image", "width"), 0), "MALFORMED_IMAGE"),
        (_change(("image", "width"), 1e9), "IMAGE_TOO_LARGE"),
        (_change(("image", "file_name"), "gone.png"), "IMAGE_MISSING"),
    ],
)
def test_a_faulty_file_is_put_aside(faulty: Any, reason: str, tmp_path: Path) -> None:
    files = {"sa_7.json": sa1b(4), "sa_8.json": faulty, "sa_7.png": png()}
    loaded = load(tmp_path, files, form=AnnotationFormat.SA1B)
    assert [(entry.row_id, entry.reason) for entry in loaded.faults] == [("sa_8", reason)]
