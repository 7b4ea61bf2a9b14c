"""Pictures as the model is fed them, from the package's own `preprocessor_config.json` (or
`processor_config.json`), in numpy and pillow alone: the same numbers that the PIL image processors of
transformers make, which the gate compares.

Shape legend: C, H, W channels, height and width; N tiles of a picture.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Arrays = dict[str, Any]

# They scale, cut and normalise, in this order, each as its config says.
PLAIN = frozenset(
    f"{name}ImageProcessor"
    for name in (
        *("Blip", "CLIP", "ConditionalDetr", "ConvNext", "Detr", "Mask2Former", "RTDetr"),
        *("Segformer", "Siglip", "ViT", "Yolos"),
    )
)
TILED = frozenset({"Idefics3ImageProcessor", "SmolVLMImageProcessor"})
KNOWN = PLAIN | TILED
_LONGEST_PX = 4096


def read_config(package: Path) -> dict[str, Any]:
    """What the processor's config says of pictures. Raises FileNotFoundError."""
    for name in ("processor_config.json", "preprocessor_config.json"):
        if (package / name).is_file():
            content = json.loads((package / name).read_bytes())
            config: dict[str, Any] = content.get("image_processor", content)
            return config
    raise FileNotFoundError(f"{package} says nowhere how pictures are prepared")


def prepare(picture: Image.Image, config: dict[str, Any]) -> Arrays:
    """`pixel_values` (1, C, H, W); of processors that cut tiles (1, N, C, H, W), the whole picture last,
    beside `pixel_attention_mask` (1, N, H, W) and `grid`, their rows and columns, (0, 0) where it was not
    cut.
    """
    pixels_HWC = np.asarray(picture.convert("RGB"))
    if config["image_processor_type"] in TILED:
        tiles, grid = _tiles(pixels_HWC, config)
        values_NCHW = np.stack([_normalised(tile, config) for tile in tiles])
        seen_NHW = np.ones((len(tiles), *values_NCHW.shape[2:]), np.int64)
        return {
            "pixel_values": values_NCHW[None],
            "pixel_attention_mask": seen_NHW[None],
            "grid": np.array(grid),
        }
    if config.get("do_resize"):
        pixels_HWC = _resized(pixels_HWC, config)
    if config.get("do_center_crop"):
        pixels_HWC = _middle(pixels_HWC, (config["crop_size"]["height"], config["crop_size"]["width"]))
    return {"pixel_values": _normalised(pixels_HWC, config)[None]}


def _resized(pixels_HWC: Any, config: dict[str, Any]) -> Any:
    size: dict[str, int] = config["size"]
    before = pixels_HWC.shape[:2]
    if config["image_processor_type"] == "ConvNextImageProcessor":
        edge = size["shortest_edge"]
        if edge >= 384:
            return scale(pixels_HWC, (edge, edge), config["resample"])
        larger = _by_shortest(before, int(edge / config["crop_pct"]))
        return _middle(scale(pixels_HWC, larger, config["resample"]), (edge, edge))
    after = _size_after(before, size)
    if config["image_processor_type"] == "YolosImageProcessor" and "longest_edge" in size:
        height, width = _by_both_edges(before, size["shortest_edge"], size["longest_edge"], early=False)
        after = (height // 16 * 16, width // 16 * 16)
    if divisor := config.get("size_divisor"):
        after = (math.ceil(after[0] / divisor) * divisor, math.ceil(after[1] / divisor) * divisor)
    return scale(pixels_HWC, after, config["resample"])


def _size_after(before: tuple[int, int], size: dict[str, int]) -> tuple[int, int]:
    """Height and width, as the keys of a processor's `size` ask for them."""
    if "shortest_edge" in size and "longest_edge" in size:
        return _by_both_edges(before, size["shortest_edge"], size["longest_edge"])
    if "shortest_edge" in size:
        return _by_shortest(before, size["shortest_edge"])
    if "max_height" in size:
        share = min(size["max_height"] / before[0], size["max_width"] / before[1])
        return int(before[0] * share), int(before[1] * share)
    return size["height"], size["width"]


def _by_shortest(before: tuple[int, int], edge: int) -> tuple[int, int]:
    height, width = before
    other = int(edge * max(before) / min(before))
    return (other, edge) if width <= height else (edge, other)


def _by_both_edges(
    before: tuple[int, int], shortest: int, longest: int, *, early: bool = True
) -> tuple[int, int]:
    """The shorter side becomes `shortest`, unless the other would exceed `longest`, with the roundings of
    DETR. `early`: a picture upright that has this width already is left alone, which YOLOS does not do.
    """
    height, width = before
    exact: float = shortest
    if max(before) / min(before) * shortest > longest:
        exact = longest * float(min(before)) / max(before)
        shortest = round(exact)
    if min(before) == shortest and (early or width >= height):
        return before
    if width < height:
        return int(exact * height / width), shortest
    return shortest, int(exact * width / height)


def scale(pixels_HWC: Any, size: tuple[int, int], resample: int) -> Any:
    """To a height and width, by pillow's filter of that number."""
    height, width = size
    return np.asarray(Image.fromarray(pixels_HWC).resize((width, height), Image.Resampling(resample)))


def _middle(pixels_HWC: Any, size: tuple[int, int]) -> Any:
    """The middle of a picture; what is smaller stands in the middle of zeros."""
    for axis, wanted in enumerate(size):
        before = pixels_HWC.shape[axis]
        if before < wanted:
            room = [(0, 0)] * 3
            first = math.ceil((wanted - before) / 2)
            room[axis] = (first, wanted - before - first)
            pixels_HWC = np.pad(pixels_HWC, room)
        else:
            first = (before - wanted) // 2
            pixels_HWC = pixels_HWC.take(range(first, first + wanted), axis)
    return pixels_HWC


def _normalised(pixels_HWC: Any, config: dict[str, Any]) -> Any:
    """(H, W, C) of bytes to (C, H, W) in fp32."""
    values_CHW = np.moveaxis(pixels_HWC, -1, 0)
    if config.get("do_rescale"):
        values_CHW = (values_CHW.astype(np.float64) * config["rescale_factor"]).astype(np.float32)
    if config.get("do_normalize"):
        mean_C11, std_C11 = (
            np.array(config[name], np.float32)[:, None, None] for name in ("image_mean", "image_std")
        )
        values_CHW = (values_CHW.astype(np.float32) - mean_C11) / std_C11
    return np.ascontiguousarray(values_CHW, np.float32)


def _tiles(pixels_HWC: Any, config: dict[str, Any]) -> tuple[list[Any], tuple[int, int]]:
    """The picture as Idefics3 sees it: scaled to whole tiles, cut into them, and once as a whole."""
    edge, resample = config["max_image_size"]["longest_edge"], config["resample"]
    if config.get("do_resize"):
        longest = config["size"]["longest_edge"]
        pixels_HWC = scale(pixels_HWC, _by_longest(pixels_HWC.shape[:2], longest), resample)
    if not config.get("do_image_splitting"):
        return [scale(pixels_HWC, (edge, edge), resample)], (0, 0)
    pixels_HWC = scale(pixels_HWC, _whole_tiles(pixels_HWC.shape[:2], edge), resample)
    rows, columns = (side // edge for side in pixels_HWC.shape[:2])
    if rows * columns == 1:
        return [pixels_HWC], (0, 0)
    cut = [
        pixels_HWC[row * edge : (row + 1) * edge, column * edge : (column + 1) * edge]
        for row in range(rows)
        for column in range(columns)
    ]
    return [*cut, scale(pixels_HWC, (edge, edge), resample)], (rows, columns)


def _by_longest(before: tuple[int, int], edge: int) -> tuple[int, int]:
    """The longer side becomes `edge`, the other even; then both stay within what such processors take."""
    ratio = before[1] / before[0]
    if ratio >= 1:
        height, width = int(edge / ratio), edge
        height += height % 2
    else:
        height, width = edge, int(edge * ratio)
        width += width % 2
    height, width = max(height, 1), max(width, 1)
    ratio = width / height
    if max(height, width) > _LONGEST_PX:
        longest = _LONGEST_PX
        height, width = (int(longest / ratio), longest) if ratio >= 1 else (longest, int(longest * ratio))
    return max(height, 1), max(width, 1)


def _whole_tiles(before: tuple[int, int], edge: int) -> tuple[int, int]:
    """Multiples of a tile: the longer side first, the other by the shape of the picture."""
    ratio = before[1] / before[0]
    if ratio >= 1:
        width = math.ceil(before[1] / edge) * edge
        return math.ceil(int(width / ratio) / edge) * edge, width
    height = math.ceil(before[0] / edge) * edge
    return height, math.ceil(int(height * ratio) / edge) * edge
