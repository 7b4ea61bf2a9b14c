"""Between Arrow and numpy without pyarrow's own `to_numpy` and `array`: these load pandas where it is
installed, which takes longer than a whole look at a small dataset.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa


def numbers(array: Any) -> npt.NDArray[Any]:
    """The values of an array of numbers or truth values without nulls; not to be written to."""
    if pa.types.is_boolean(array.type):
        return np.from_dlpack(array.cast(pa.uint8())).astype(np.bool_)
    return np.from_dlpack(array)


def places(indices: npt.NDArray[np.int64]) -> pa.Array:
    """Indices to take rows by."""
    buffer: Any = pa.py_buffer(np.ascontiguousarray(indices))
    return pa.Array.from_buffers(pa.int64(), len(indices), [None, buffer])


def letters(texts: Any, width: int) -> npt.NDArray[np.uint8]:
    """uint8[N, width], the first bytes of texts without nulls; zeros where a text ends before."""
    _, offset_buffer, data = texts.buffers()
    found = np.zeros((len(texts), width), np.uint8)
    if not len(texts) or data is None:
        return found
    offsets = np.frombuffer(offset_buffer, np.int32, len(texts) + 1, 4 * texts.offset).astype(np.int64)
    raw = np.frombuffer(data, np.uint8)
    reach = np.minimum(np.diff(offsets), width)
    inside = np.arange(width) < reach[:, None]
    found[inside] = raw[(offsets[:-1, None] + np.arange(width))[inside]]
    return found


def text_array(values: Sequence[str]) -> pa.StringArray:
    encoded = [value.encode() for value in values]
    offsets = _offsets(np.fromiter(map(len, encoded), np.int32, len(encoded)))
    return pa.StringArray.from_buffers(len(encoded), offsets, pa.py_buffer(b"".join(encoded)))


def text_list_array(values: Sequence[Sequence[str]]) -> pa.ListArray:
    offsets = _offsets(np.fromiter(map(len, values), np.int32, len(values)))
    numbers = pa.Int32Array.from_buffers(pa.int32(), len(values) + 1, [None, offsets])
    return pa.ListArray.from_arrays(numbers, text_array(list(chain.from_iterable(values))))


def _offsets(lengths: npt.NDArray[np.int32]) -> pa.Buffer:
    offsets = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    return pa.py_buffer(offsets)
