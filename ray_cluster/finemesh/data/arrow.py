"""Between Arrow and numpy without pyarrow's own `to_numpy` and `array`: these load pandas where it is
installed, which takes longer than a whole look at a small dataset.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc


def numbers(array: Any) -> npt.NDArray[Any]:
    """The values of an array of numbers or truth values without nulls; not to be written to."""
    if pa.types.is_boolean(array.type):
        return np.from_dlpack(pc.cast(array, pa.uint8())).astype(np.bool_)
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
