"""Label Studio's run lengths of a brushed mask. Source: label-studio-converter, brush.py (decode_rle), after
thi.ng/rle-pack.

Bits, the highest of each byte first: 32 for how many values follow, 5 for the bits of a value less one, 4
each for four sizes less one. Then blocks: 1 bit for whether one value is repeated, 2 for which of the sizes
the length has, the length less one, and one value or as many as the length. The values are a picture's: red,
green, blue and alpha, row by row. The mask is where alpha is not 0.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from finemesh.data.faults import RowFault
from finemesh.data.rle import Mask, from_array

_CHANNELS: Final = 4
_ALPHA: Final = 3


def brush_mask(rle: Any, size: tuple[int, int], field: str) -> Mask:
    """The mask of `rle`, a list of bytes, in a picture of `size` (width, height). Raises RowFault
    (RLE_INVALID).
    """
    if not isinstance(rle, list) or not all(type(byte) is int and 0 <= byte <= 255 for byte in rle):
        raise RowFault("RLE_INVALID", "a brush's rle is not a list of bytes", field)
    width, height = size
    filled = _Bits(bytes(rle), field).filled(width * height * _CHANNELS)
    return from_array(filled.reshape(height, width, _CHANNELS)[:, :, _ALPHA])


class _Bits:
    """Reads numbers from bits. Raises RowFault (RLE_INVALID) beyond their end."""

    def __init__(self, data: bytes, field: str) -> None:
        self._data, self._field, self._at = data, field, 0

    def filled(self, count: int) -> npt.NDArray[np.bool_]:
        """bool[count], which values are not 0; RLE_INVALID for another number of values."""
        stated = self._read(32)
        if stated != count:
            message = f"the brush has {stated} values, but its picture {count}"
            raise RowFault("RLE_INVALID", message, self._field)
        value_bits = self._read(5) + 1
        length_bits = [self._read(4) + 1 for _ in range(4)]
        filled = np.zeros(count, dtype=np.bool_)
        at = 0
        while at < count:
            repeated = self._read(1)
            length = self._read(length_bits[self._read(2)]) + 1
            if at + length > count:
                raise RowFault("RLE_INVALID", "a run goes on behind the end of the picture", self._field)
            if repeated:
                filled[at : at + length] = self._read(value_bits) > 0
            else:
                filled[at : at + length] = self._read_filled(length, value_bits)
            at += length
        return filled

    def _read(self, bits: int) -> int:
        self._need(bits)
        first, last = self._at >> 3, (self._at + bits + 7) >> 3
        window = int.from_bytes(self._data[first:last], "big")
        self._at += bits
        return window >> (8 * last - self._at) & ((1 << bits) - 1)

    def _read_filled(self, count: int, bits: int) -> npt.NDArray[np.bool_]:
        """bool[count], which of the next `count` values are not 0."""
        self._need(count * bits)
        first, last = self._at >> 3, (self._at + count * bits + 7) >> 3
        unpacked = np.unpackbits(np.frombuffer(self._data, dtype=np.uint8)[first:last])
        start = self._at - 8 * first
        self._at += count * bits
        return np.asarray(unpacked[start : start + count * bits].reshape(count, bits).max(axis=1) > 0)

    def _need(self, bits: int) -> None:
        if self._at + bits > 8 * len(self._data):
            raise RowFault("RLE_INVALID", "the brush's rle ends too early", self._field)
