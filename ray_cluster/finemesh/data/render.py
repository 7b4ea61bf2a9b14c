"""Pictures for masks whose video is missing: a quiet textured ground, and one colour per object that it keeps
in all frames.
"""

from __future__ import annotations

import colorsys
import hashlib
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from finemesh.data.faults import RowFault
from finemesh.data.images import RENDERED, Picture, encode_jpeg
from finemesh.data.rle import Mask

_GOLDEN: Final = 0.618_033_988_75  # successive multiples spread hues evenly
_MAX_SIDE: Final = 65_500  # of a JPEG, as libjpeg writes it
_MAX_PIXELS: Final = 32_000_000  # painting takes some 70 bytes for each


def seeded(*parts: object) -> np.random.Generator:
    """A generator that depends on `parts` alone, on every machine."""
    text = "\x1f".join(str(part) for part in parts)
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big"))


class Renderer:
    """Paints the frames of one video; equal for equal seed, video and masks. Raises RowFault
    (IMAGE_TOO_LARGE) when it is made for frames that no JPEG holds, or that take too much memory.
    """

    def __init__(self, seed: int, video_id: str, width: int, height: int) -> None:
        if max(width, height) > _MAX_SIDE or width * height > _MAX_PIXELS:
            message = f"{width} x {height} is too large to be rendered: put the picture into the source"
            raise RowFault("IMAGE_TOO_LARGE", message, "image")
        random = seeded("render", seed, video_id)
        self._ground = _ground(random, width, height)
        self._grain = random.normal(0, 4, (height, width, 1)).astype(np.float32)
        self._first_hue = float(random.random())
        self._colours: dict[str, npt.NDArray[np.float32]] = {}

    def picture(self, masks: Sequence[tuple[str, Mask]]) -> Picture:
        """The frame in which the objects of `masks` (id and mask of the frame's size) are seen; later ones
        lie on top.
        """
        pixels_HWC = self._ground.copy()
        height, width, _ = pixels_HWC.shape
        for object_id, mask in masks:
            if mask.area == 0 or (mask.height, mask.width) != (height, width):
                continue  # the reader quarantines a row whose mask is of another size
            x, y, box_width, box_height = (int(side) for side in mask.box())
            window = np.s_[y : y + box_height, x : x + box_width]
            inside = mask.decode()[window]
            light = np.linspace(1.15, 0.8, box_height, dtype=np.float32)[:, None, None]
            paint = self._colour(object_id) * light + self._grain[window]
            pixels_HWC[window][inside] = np.clip(paint, 0, 255)[inside]
        return encode_jpeg(Image.fromarray(pixels_HWC.astype(np.uint8)), RENDERED)

    def _colour(self, object_id: str) -> npt.NDArray[np.float32]:
        if object_id not in self._colours:
            hue = (self._first_hue + len(self._colours) * _GOLDEN) % 1
            self._colours[object_id] = np.array(colorsys.hsv_to_rgb(hue, 0.75, 0.9), dtype=np.float32) * 255
        return self._colours[object_id]


def _ground(random: np.random.Generator, width: int, height: int) -> npt.NDArray[np.float32]:
    """float32[height, width, 3], 0 to 255: two greyish tones from top to bottom under soft clouds and fine
    grain.
    """
    top, bottom = random.uniform(95, 165, 3), random.uniform(70, 140, 3)
    slope = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    coarse = Image.fromarray(random.integers(0, 256, (8, 8), dtype=np.uint8))
    clouds = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)[..., None]
    grain = random.normal(0, 2.5, (height, width, 1))
    ground = top * (1 - slope) + bottom * slope + (clouds - 128) * 0.18 + grain
    return np.clip(ground, 0, 255).astype(np.float32)
