"""Compressed files: a tar, or one text file. They cannot be read from the middle, so they are unpacked once
into a scratch file, whose size is bounded before each write.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pyarrow as pa

from finemesh.core.errors import InvalidError
from finemesh.core.spec.data import ImportOptions
from finemesh.data.sources.inventory import check_ratio, refusal
from finemesh.data.sources.source import COPY_BYTES, writing_to

# How each compression begins, and Arrow's name of it. Sources: RFC 1952, RFC 8878, bzip2's manual, xz's.
_MAGIC: Final = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2"}
_XZ_MAGIC: Final = b"\xfd7zXZ\x00"
# What the names of compressed files end in, and what is left of it when they are unpacked.
_ENDINGS: Final = {
    ".tgz": ".tar",
    ".tzst": ".tar",
    ".tbz2": ".tar",
    ".tbz": ".tar",
    ".gz": "",
    ".zst": "",
    ".bz2": "",
}


def packing_of(head: bytes, name: str) -> str | None:
    """How a file that begins with `head` is compressed; None if it is not. Raises InvalidError
    (UNSUPPORTED_SOURCE) for a compression whose memory cannot be bounded.
    """
    if head.startswith(_XZ_MAGIC):
        message = f"{name} is compressed by xz, which is not supported: compress it by gzip or zstd"
        raise InvalidError(message, reason="UNSUPPORTED_SOURCE", metadata={"file": name})
    return next((packing for magic, packing in _MAGIC.items() if head.startswith(magic)), None)


def unpacked_name(name: str) -> str:
    """`scenes.tgz` -> `scenes.tar`, `rows.jsonl.zst` -> `rows.jsonl`."""
    for ending, instead in _ENDINGS.items():
        if name.lower().endswith(ending):
            return name[: -len(ending)] + instead
    return name


def unpack(path: Path, packing: str, target: Path, options: ImportOptions) -> None:
    """Write the content of a compressed file to `target`.

    Raises:
        InvalidError: ARCHIVE_BOMB before it grows beyond its limits, ARCHIVE_UNREADABLE if it is damaged or
            cut off.
        ResourceExhaustedError: DISK_FULL.
    """
    packed_bytes, total = path.stat().st_size, 0
    stream = pa.input_stream(str(path), compression=packing)
    with stream, writing_to(target), target.open("wb") as file:
        while chunk := _next(stream, path.name):
            total += len(chunk)
            check_ratio("", total, packed_bytes, options.max_ratio)
            if total > options.max_total_bytes:
                problem = f"it unpacks to more than the {options.max_total_bytes} bytes allowed"
                raise refusal("ARCHIVE_BOMB", "", problem, "split it, or raise max_total_bytes")
            file.write(chunk)


def _next(stream: pa.NativeFile, name: str) -> bytes:
    try:
        return stream.read(COPY_BYTES)
    except (OSError, pa.ArrowException) as error:
        message = f"{name} cannot be unpacked ({error}): upload it again, or make it anew"
        raise InvalidError(message, reason="ARCHIVE_UNREADABLE", metadata={"file": name}) from error
