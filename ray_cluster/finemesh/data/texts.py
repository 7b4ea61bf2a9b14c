"""Arrow arrays of texts, made of their bytes: pyarrow's own way from Python lists first imports pandas, which
takes longer than a small conversion.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt
import pyarrow as pa


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
