"""Arrays beside the memory of the process: in a file without a name, which is gone when the process is.

What is read again and again stays in the system's cache of files, and leaves it when memory is short.
"""

from __future__ import annotations

import os
import tempfile
import threading
import weakref
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

K = TypeVar("K", bound=Hashable)
Arrays = Mapping[str, npt.NDArray[Any]]


class _Kept(NamedTuple):
    """Where an array lies in the file, in bytes, and what it is."""

    at: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


class ArrayFile(Generic[K]):
    """Named arrays by key, while there is room for them. For any thread.

    Attributes:
        bytes_left: room for arrays.
    """

    def __init__(self, max_bytes: int) -> None:
        self.bytes_left = max_bytes
        self._kept: dict[K, dict[str, _Kept]] = {}
        self._file: int | None = None
        self._end = 0
        self._writing = threading.Lock()

    def put(self, key: K, arrays: Arrays) -> dict[str, npt.NDArray[Any]]:
        """Keep `arrays`, unless they are kept already or there is no room, on the disk neither.

        Returns them as `get` does, kept or not: in C order. Over another layout a convolution adds up in
        another order, and a resumed run, which keeps at other times, would not be equal bit for bit.
        """
        ordered = {name: np.asarray(array, order="C") for name, array in arrays.items()}
        size = sum(array.nbytes for array in ordered.values())
        with self._writing:
            if key not in self._kept and size <= self.bytes_left:
                try:
                    self._kept[key] = {name: self._write(array) for name, array in ordered.items()}
                    self.bytes_left -= size
                except OSError:  # a full disk: what was to be kept is made again each time
                    self.bytes_left = 0
        return ordered

    def get(self, key: K) -> dict[str, npt.NDArray[Any]] | None:
        """The arrays of a key as they were put; None if they were not kept."""
        kept = self._kept.get(key)
        return {name: self._read(each) for name, each in kept.items()} if kept is not None else None

    def _write(self, array: npt.NDArray[Any]) -> _Kept:
        if self._file is None:
            self._file = self._open()
        at, left = self._end, array.reshape(-1).view(np.uint8).data
        while left:
            written = os.pwrite(self._file, left, self._end)
            self._end, left = self._end + written, left[written:]
        return _Kept(at, array.dtype, array.shape)

    def _open(self) -> int:
        file, name = tempfile.mkstemp(prefix="finemesh-arrays-")
        Path(name).unlink()
        weakref.finalize(self, os.close, file)
        return file

    def _read(self, kept: _Kept) -> npt.NDArray[Any]:
        assert self._file is not None
        array = np.empty(kept.shape, kept.dtype)
        at, left = kept.at, array.reshape(-1).view(np.uint8).data
        while left:
            count = os.preadv(self._file, [left], at)
            if not count:
                raise OSError(f"the file of kept arrays ends at byte {at}: its disk has lost the rest")
            at, left = at + count, left[count:]
        return array
