"""Small canonical datasets of pictures with shapes in them: quick to learn, quick to write."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from finemesh.data.images import Picture
from finemesh.data.rle import from_array
from finemesh.data.rows import make_row, masked_object
from PIL import Image, ImageDraw

SHAPES: Final = {"circle": (220, 60, 40), "square": (50, 90, 220)}
DATASET: Final = "projects/test/datasets/shapes"


def shape_rows(
    counts: dict[str, int], seed: int = 0, side_px: int = 64, most: int = 3, least: int = 1
) -> Iterator[dict[str, Any]]:
    """Pictures with `least` to `most` shapes, so many per split; the row is of the first one's class."""
    rng = np.random.default_rng(seed)
    for split, count in counts.items():
        for index in range(count):
            names = [str(name) for name in rng.choice(sorted(SHAPES), rng.integers(least, most + 1))]
            yield shapes_row(f"{split}-{index}", split, names, rng, (side_px, side_px))


def shapes_row(
    row_id: str, split: str, names: Sequence[str], rng: np.random.Generator, size_px: tuple[int, int]
) -> dict[str, Any]:
    """One picture of width and height `size_px` with shapes, each under a mask of its visible pixels."""
    width, height = size_px
    pixels = Image.fromarray(rng.integers(90, 130, (height, width, 3)).astype(np.uint8))
    owner = Image.new("L", size_px)
    for index, name in enumerate(names, 1):
        side = int(rng.integers(min(size_px) // 5, min(size_px) // 2))
        left, top = int(rng.integers(0, width - side)), int(rng.integers(0, height - side))
        for canvas, colour in ((pixels, SHAPES[name]), (owner, index)):
            draw = ImageDraw.Draw(canvas)
            shape = draw.ellipse if name == "circle" else draw.rectangle
            shape((left, top, left + side - 1, top + side - 1), fill=colour)
    owned = np.asarray(owner)
    masks = [from_array(owned == index) for index in range(1, len(names) + 1)]
    return row_of(
        row_id,
        split,
        pixels,
        [masked_object(str(i), name, mask) for i, (name, mask) in enumerate(zip(names, masks, strict=True))],
    )


def row_of(
    row_id: str, split: str, picture: Image.Image | None, objects: Sequence[Any] = (), **columns: Any
) -> dict[str, Any]:
    """A canonical row of one picture and its objects."""
    pictures: list[Picture] = []
    if picture is not None:
        stream = io.BytesIO()
        picture.save(stream, "PNG")
        pictures = [Picture(stream.getvalue(), "PNG", *picture.size, "image")]
    seen = [each for each in objects if each["visible"]]
    columns = {"class_name": seen[0]["class_name"] if seen else None, "pictures": pictures, **columns}
    source: Any = {"file": "made up", "key": row_id}
    return dict(make_row(row_id, source=source, objects=list(objects), split=split, **columns))
