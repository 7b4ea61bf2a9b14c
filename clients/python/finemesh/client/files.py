"""Pictures, tables and files on their way into a recording, in a thread of their own: encoding a picture or
copying a checkpoint must not hold up the loop that logs it.
"""

from __future__ import annotations

import csv
import io
import logging
import queue
import re
import struct
import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from finemesh.client.recording import Recording

# What waits: pictures are copied when they are logged, so memory is what bounds them.
MAX_WAITING_BYTES: Final = 256 << 20
MAX_WAITING: Final = 1000

_log = logging.getLogger("finemesh.run")


class FileThread:
    """Adds files to a recording, in order. `add` returns at once; beyond the limits it drops, and says so."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._queue: queue.SimpleQueue[tuple[str, int, Callable[[], object]] | None] = queue.SimpleQueue()
        self._waiting = 0
        self._bytes = 0
        self._count = threading.Lock()
        self._thread: threading.Thread | None = None
        self.lost: list[str] = []

    def add(self, path: str, size_bytes: int, work: Callable[[], object]) -> None:
        """Do `work`, which adds the file at `path`, when it is its turn. `size_bytes` is what it holds."""
        with self._count:
            fits = self._waiting < MAX_WAITING and self._bytes + size_bytes <= MAX_WAITING_BYTES
            if fits or not self._waiting:
                self._waiting += 1
                self._bytes += size_bytes
            else:
                self._lose(path, "too many files are waiting to be written: log fewer, or less often")
                return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="finemesh-files", daemon=True)
            self._thread.start()
        self._queue.put((path, size_bytes, work))

    def close(self) -> None:
        """Wait until all is written."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            path, size_bytes, work = item
            try:
                work()
            except Exception as error:
                self._lose(path, f"{type(error).__name__}: {error}")
            with self._count:
                self._waiting -= 1
                self._bytes -= size_bytes

    def _lose(self, path: str, why: str) -> None:
        self.lost.append(path)
        _log.error("%s was not kept: %s", path, why)


def picture_bytes(picture: Any) -> bytes:
    """A picture as PNG; bytes and files of PNG or JPEG as they are.

    Arrays are [height, width], or [height, width, 1, 3 or 4]: uint8, or floats from 0 to 1.
    Raises ValueError.
    """
    if isinstance(picture, bytes | bytearray):
        return bytes(picture)
    if isinstance(picture, str | Path):
        return Path(picture).read_bytes()
    if hasattr(picture, "save"):  # pillow's
        stream = io.BytesIO()
        picture.save(stream, "PNG", compress_level=1)
        return stream.getvalue()
    return _png(_as_uint8(picture))


def _png(array: Any) -> bytes:
    """uint8[height, width] or uint8[height, width, 3 or 4] as PNG, every line unfiltered.

    Format: https://www.w3.org/TR/png-3/, colour types 0, 2 and 6.
    """
    height, width = array.shape[:2]
    channels = array.shape[2] if array.ndim == 3 else 1
    pixels, stride = array.tobytes(), width * channels
    lines = b"".join(b"\0" + pixels[row * stride : (row + 1) * stride] for row in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, {1: 0, 3: 2, 4: 6}[channels], 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines, 1)), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _as_uint8(array: Any) -> Any:
    if not hasattr(array, "__array_interface__"):
        raise ValueError(
            f"a {type(array).__name__} is no picture: log an array, a PIL image, bytes or a path"
        )
    if array.ndim not in {2, 3} or (array.ndim == 3 and array.shape[2] not in {1, 3, 4}):
        raise ValueError(
            f"an array of shape {array.shape} is no picture: use [height, width] or [height, width, channels]"
        )
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.dtype.kind == "f":
        array = (array.clip(0, 1) * 255 + 0.5).astype("uint8")
    elif array.dtype.kind == "b":
        array = array.astype("uint8") * 255
    return array if array.dtype.name == "uint8" else array.clip(0, 255).astype("uint8")


def picture_snapshot(picture: Any) -> tuple[Any, int]:
    """A copy of a picture that its owner may go on drawing in, and the bytes that it takes."""
    if hasattr(picture, "detach"):  # a tensor of torch
        picture = picture.detach().cpu().numpy()
    if hasattr(picture, "copy") and not isinstance(picture, str | bytes):
        copy = picture.copy()
        size = getattr(copy, "nbytes", 0) or 4 * getattr(copy, "width", 0) * getattr(copy, "height", 0)
        return copy, int(size)
    return picture, len(picture) if isinstance(picture, bytes | bytearray) else 0


def table_of(columns: Mapping[str, Any]) -> dict[str, list[Any]]:
    """A copy of columns of equal length as plain lists: of arrays, tensors or any sequences.

    Raises ValueError: they differ in length.
    """
    plain = {name: plain_list(column) for name, column in columns.items()}
    if len({len(column) for column in plain.values()}) > 1:
        lengths = ", ".join(f"{name} {len(column)}" for name, column in plain.items())
        raise ValueError(f"the columns of a table differ in length: {lengths}")
    return plain


def table_bytes(columns: Mapping[str, Sequence[Any]]) -> bytes:
    """A table as CSV (RFC 4180, UTF-8) with a header."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return stream.getvalue().encode()


def plain_list(column: Any) -> list[Any]:
    """A list of what Python itself knows: of an array, a tensor or any sequence."""
    return column.tolist() if hasattr(column, "tolist") else list(column)


def file_name(key: str) -> str:
    """A metric's or table's name as a path: its slashes stay, what a path may not hold becomes `_`."""
    parts = [re.sub(r"[^\w.@=+-]", "_", part).strip(".") or "_" for part in key.split("/") if part]
    return "/".join(parts)[:300] or "_"
