"""What is shown with a question: a crop, the picture with an object outlined, or the whole of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from finemesh.core.spec.boxes import BoxConvention
from finemesh.core.spec.data import ConvertOptions
from finemesh.data.images import Picture, decode_rgb, encode_jpeg
from finemesh.data.rle import Mask, from_array, parse
from finemesh.data.rows import masked_object, picture_size
from finemesh.data.schema import ObjectRow, Row

OUTLINE_RGB: Final = (255, 0, 255)
SQUARE_PX: Final = 112
# Qwen2.5-VL resizes a picture whose sides are no multiples of this, and pixels would mean other places.
PATCH_PX: Final = 28

Window = tuple[int, int, int, int]
"""left, top, right, bottom in pixels."""


class Scene:
    """A row's first picture, decoded once for all questions about it, and only if one needs it."""

    def __init__(self, row: Row) -> None:
        self.row = row

    @cached_property
    def pixels(self) -> Image.Image:
        return decode_rgb(self.row["images"][0]["data"])

    @property
    def media(self) -> str:
        return self.row["images"][0]["media"]


Show = Callable[[Scene, Sequence[ObjectRow], ConvertOptions], tuple[Picture, list[ObjectRow]]]
"""The picture, and the objects as they lie in it."""


def shown_size(width: int, height: int, options: ConvertOptions) -> tuple[int, int]:
    """Width and height that `whole` gives a picture: the longer side at most `image_size_px`."""
    limit = options.image_size_px or max(width, height)
    scale = min(1.0, limit / max(width, height))
    if options.box_convention is BoxConvention.PIXELS:
        return _patches(width * scale), _patches(height * scale)
    return max(round(width * scale), 1), max(round(height * scale), 1)


def _patches(side_px: float) -> int:
    return max(round(side_px / PATCH_PX), 1) * PATCH_PX


def whole(
    scene: Scene, objects: Sequence[ObjectRow], options: ConvertOptions
) -> tuple[Picture, list[ObjectRow]]:
    """The picture byte for byte where it has the right size, else resized."""
    image = scene.row["images"][0]
    original = (image["width"], image["height"])
    size = shown_size(*original, options)
    if size == original:
        same = Picture(image["data"], image["format"], *original, image["media"], image["name"])
        return same, list(objects)
    picture = scene.pixels.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    shown = [_seen(scene.row, item, (0, 0, *original), size) for item in objects]
    return encode_jpeg(picture, scene.media), shown


def crop(
    scene: Scene, objects: Sequence[ObjectRow], options: ConvertOptions
) -> tuple[Picture, list[ObjectRow]]:
    """A square around the object with a margin, moved (and at last shrunk) to lie within the picture."""
    [item] = objects
    x, y, width, height = item["bbox"]
    row_width, row_height = picture_size(scene.row)
    side = min(max(width, height) * (1 + 2 * options.context_fraction), row_width, row_height)
    side_px = max(round(side), 1)
    left = min(max(round(x + width / 2 - side / 2), 0), row_width - side_px)
    top = min(max(round(y + height / 2 - side / 2), 0), row_height - side_px)
    window = (left, top, left + side_px, top + side_px)
    size = _square(options)
    picture = scene.pixels.resize(size, Image.Resampling.BICUBIC, box=window, reducing_gap=2.0)
    return encode_jpeg(picture, scene.media), [_seen(scene.row, item, window, size)]


def outline(
    scene: Scene, objects: Sequence[ObjectRow], options: ConvertOptions
) -> tuple[Picture, list[ObjectRow]]:
    """The whole picture as a square, the object's mask (or box) outlined."""
    [item] = objects
    size = _square(options)
    picture = scene.pixels.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    shown = _seen(scene.row, item, (0, 0, *picture_size(scene.row)), size)
    mask = _mask_of(shown, size)
    if mask is None:
        x, y, width, height = shown["bbox"]
        ImageDraw.Draw(picture).rectangle((x, y, x + width, y + height), outline=OUTLINE_RGB, width=2)
    else:
        filled = Image.fromarray(mask.decode().astype(np.uint8) * 255)
        edge = np.asarray(filled.filter(ImageFilter.MaxFilter(5))) > np.asarray(filled)
        picture.paste(OUTLINE_RGB, mask=Image.fromarray(edge.astype(np.uint8) * 255))
    return encode_jpeg(picture, scene.media), [shown]


def _square(options: ConvertOptions) -> tuple[int, int]:
    side_px = options.image_size_px or SQUARE_PX
    return side_px, side_px


def _mask_of(item: ObjectRow, size: tuple[int, int]) -> Mask | None:
    """The object's mask in a picture of `size` (width, height)."""
    if item["rle_counts"] is None:
        return None
    return parse({"size": [size[1], size[0]], "counts": item["rle_counts"]}, "rle_counts")


def _seen(row: Row, item: ObjectRow, window: Window, size: tuple[int, int]) -> ObjectRow:
    """The object as it lies in `window` of the picture when that is resized to `size` (width, height)."""
    left, top, right, bottom = window
    across, down = size[0] / (right - left), size[1] / (bottom - top)
    points = item["keypoints"]
    moved = [
        (value - left) * across if place == 0 else (value - top) * down if place == 1 else value
        for index, value in enumerate(points or ())
        for place in (index % 3,)
    ]
    keypoints = moved if points is not None else None
    mask = _mask_of(item, picture_size(row))
    if mask is not None:
        pixels = Image.fromarray(mask.decode().astype(np.uint8) * 255).crop(window)
        resized = np.asarray(pixels.resize(size, Image.Resampling.BILINEAR)) > 127
        drawn = masked_object(item["object_id"], item["class_name"], from_array(resized))
        return {**drawn, "keypoints": keypoints, "attributes": item["attributes"]}
    x, y, width, height = item["bbox"]
    box = [(x - left) * across, (y - top) * down, width * across, height * down]
    return {**item, "bbox": box, "area": box[2] * box[3], "polygons": None, "keypoints": keypoints}
