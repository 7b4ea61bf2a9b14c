"""The masks of SegmentationObject: a PNG whose pixel values, or whose colours, number the objects."""

from __future__ import annotations

import io
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from finemesh.data.faults import RowFault
from finemesh.data.images import STILL, check_picture
from finemesh.data.rle import Mask, from_array

_VOID: Final = 255


def object_masks(data: bytes, name: str, max_pixels: int) -> dict[int, Mask]:
    """The mask of each object by its number from 1. Raises RowFault (MASK_INVALID, and as check_picture)."""
    check_picture(data, STILL, max_pixels, name=name)
    with Image.open(io.BytesIO(data)) as image:
        if image.mode in {"P", "L"}:
            numbers_HW = np.asarray(image)
        elif image.mode in {"RGB", "RGBA"}:
            numbers_HW = _of_colours(np.asarray(image.convert("RGB")), name)
        else:
            message = f"{name} is of mode {image.mode}: save it with a palette, in grey or in RGB"
            raise RowFault("MASK_INVALID", message, name)
    found = [int(number) for number in np.unique(numbers_HW) if number not in {0, _VOID}]
    return {number: from_array(numbers_HW == number) for number in found}


def _of_colours(pixels_HWC: npt.NDArray[np.uint8], name: str) -> npt.NDArray[np.uint8]:
    """The numbers whose colours of VOC's palette the pixels have."""
    colours = (pixels_HWC.astype(np.int64) << np.array([16, 8, 0])).sum(axis=2)
    palette = np.array([_colour(number) for number in range(256)])
    order = np.argsort(palette)
    place = np.minimum(np.searchsorted(palette[order], colours), 255)
    numbers = order[place]
    if (palette[numbers] != colours).any():
        raise RowFault("MASK_INVALID", f"{name} has colours that are not of VOC's palette", name)
    return numbers.astype(np.uint8)


def _colour(number: int) -> int:
    """VOC's colour of a number, as 0xRRGGBB: its bits by threes, from the highest bit of each channel on."""
    channels = [0, 0, 0]
    for place in range(8):
        for channel in range(3):
            channels[channel] |= (number >> (3 * place + channel) & 1) << (7 - place)
    return channels[0] << 16 | channels[1] << 8 | channels[2]
