"""Seeded COCO files of 640 x 480 pictures with 4 to 12 objects each, written as they are made."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

WIDTH: Final = 640
HEIGHT: Final = 480
CLASSES: Final = 20
SMALLER: Final = 4
ANNOTATIONS: Final = "annotations/instances_all.json"
_HOLES: Final = 0.3  # share of the masks that have one


def write_boxes(folder: Path, images: int, seed: int = 0) -> Path:
    """A COCO source of boxes without outlines."""
    return _write(folder, images, (_boxes(image, seed) for image in range(1, images + 1)))


def write_masks(folder: Path, images: int, seed: int = 0) -> Path:
    """A COCO source of compressed run lengths: ellipses with wavy edges, some with a hole."""
    return _write(folder, images, (_masks(image, seed) for image in range(1, images + 1)))


def write_large(folder: Path, size_bytes: int, images: int, seed: int = 0) -> Path:
    """A COCO source of at least so many bytes: polygons with as many points as that takes."""
    points = size_bytes // (images * 8) // 14  # a point takes about 14 bytes, a picture has 8 objects

    def outlined(image: int) -> list[dict[str, Any]]:
        draw = np.random.default_rng([seed, image])
        made = _boxes(image, seed)
        angles = np.linspace(0, 2 * np.pi, points, endpoint=False)
        for item in made:
            x, y, w, h = item["bbox"]
            radius = 0.45 + 0.05 * draw.random(points)
            around = [x + w * (0.5 + radius * np.cos(angles)), y + h * (0.5 + radius * np.sin(angles))]
            item["segmentation"] = [np.round(np.stack(around, 1).ravel(), 2).tolist()]
        return made

    return _write(folder, images, (outlined(image) for image in range(1, images + 1)))


def write_pictures(folder: Path, images: int, seed: int = 0) -> Path:
    """A COCO source of boxes, with JPEGs of a quarter of the size: coloured patches."""
    _write(folder, images, (_boxes(image, seed, SMALLER) for image in range(1, images + 1)), SMALLER)
    for image in range(1, images + 1):
        draw = np.random.default_rng([seed, image, 2])
        patches = Image.fromarray(draw.integers(0, 255, (6, 8, 3), dtype=np.uint8))
        patches.resize((WIDTH // SMALLER, HEIGHT // SMALLER)).save(
            folder / "images" / _name(image), quality=88
        )
    return folder


def _write(folder: Path, images: int, objects: Iterator[list[dict[str, Any]]], smaller: int = 1) -> Path:
    path = folder / ANNOTATIONS
    path.parent.mkdir(parents=True)
    (folder / "images").mkdir()  # Datumaro wants it, empty or not
    size = {"width": WIDTH // smaller, "height": HEIGHT // smaller}
    listed = ({"id": image, **size, "file_name": _name(image)} for image in range(1, images + 1))
    numbers = itertools.count(1)
    annotations = ({"id": next(numbers), **item} for each in objects for item in each)
    categories = [{"id": number, "name": f"class {number}"} for number in range(1, CLASSES + 1)]
    with path.open("w") as file:
        file.write('{"info": {}, "licenses": [], "images": [')
        file.writelines(_joined(listed))
        file.write('], "annotations": [')
        file.writelines(_joined(annotations))
        file.write(f'], "categories": {json.dumps(categories)}}}')
    return folder


def _joined(values: Iterator[dict[str, Any]]) -> Iterator[str]:
    for number, value in enumerate(values):
        yield (", " if number else "") + json.dumps(value)


def _name(image: int) -> str:
    return f"{image:06d}.jpg"


def add_pictures(folder: Path, images: int) -> None:
    """One grey picture under all names, for a peer that reads their sizes."""
    content = io.BytesIO()
    Image.new("L", (WIDTH, HEIGHT), 127).save(content, "JPEG")
    for image in range(1, images + 1):
        (folder / "images" / _name(image)).write_bytes(content.getvalue())


def _boxes(image: int, seed: int, smaller: int = 1) -> list[dict[str, Any]]:
    draw = np.random.default_rng([seed, image])
    made: list[dict[str, Any]] = []
    for _ in range(int(draw.integers(4, 13))):
        w, h = int(draw.integers(20, 200)), int(draw.integers(20, 160))
        x, y = int(draw.integers(0, WIDTH - w)), int(draw.integers(0, HEIGHT - h))
        x, y, w, h = (side // smaller for side in (x, y, w, h))
        category = int(draw.integers(1, CLASSES + 1))
        box = {"bbox": [x, y, w, h], "area": w * h, "segmentation": [], "iscrowd": 0}
        made.append({"image_id": image, "category_id": category, **box})
    return made


def _masks(image: int, seed: int) -> list[dict[str, Any]]:
    draw = np.random.default_rng([seed, image, 1])
    made = _boxes(image, seed)
    for item in made:
        x, y, w, h = item["bbox"]
        raster = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
        raster[y : y + h, x : x + w] = _ellipse(w, h, hole=bool(draw.random() < _HOLES))
        packed: Any = coco_mask.encode(raster)
        item["segmentation"] = {"size": [HEIGHT, WIDTH], "counts": packed["counts"].decode()}
        item["area"] = int(coco_mask.area(packed))
        item["bbox"] = [float(side) for side in coco_mask.toBbox(packed)]
    return made


def _ellipse(width: int, height: int, *, hole: bool) -> NDArray[np.bool_]:
    down, across = np.ogrid[0:height, 0:width]
    v, u = (down + 0.5) / height * 2 - 1, (across + 0.5) / width * 2 - 1
    distance = u**2 + v**2
    inside = distance <= 1 + 0.1 * np.sin(5 * np.arctan2(v, u))
    return inside & (distance > 0.16) if hole else inside
