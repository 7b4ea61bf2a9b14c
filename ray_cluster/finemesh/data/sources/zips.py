"""ZIP archives, judged as a whole before a byte of them is unpacked.

The directory of a ZIP says names, kinds and sizes; `zipfile` never yields more bytes of an entry than its
directory declares and checks the CRC, so what is refused here is refused for good.
"""

from __future__ import annotations

import io
import lzma
import stat
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any, BinaryIO, Final

from finemesh.core.errors import InvalidError
from finemesh.core.spec.data import ImportOptions
from finemesh.data.sources.inventory import Inventory, check_ratio, is_litter, refusal, safe_name
from finemesh.data.sources.source import ArchiveSource, Scratch, buffered, unreadable

_METHODS: Final = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}
_ENCRYPTED: Final = 0x1
# What zipfile lets through from broken entries; NotImplementedError (a RuntimeError) for a forged header.
_UNPACK_ERRORS: Final = (
    zipfile.BadZipFile,
    EOFError,
    OSError,
    ValueError,
    RuntimeError,
    zlib.error,
    lzma.LZMAError,
)


class ZipSource(ArchiveSource):
    """A ZIP that was judged as a whole. Entries are read in place."""

    def __init__(self, path: Path, options: ImportOptions, scratch: Scratch) -> None:
        self._archive, self._entries = open_archive(path, options)
        super().__init__(list(self._entries), scratch)

    def open(self, name: str) -> BinaryIO:
        try:
            return buffered(_Unpacking(self._archive.open(self._entries[name]), name))
        except _UNPACK_ERRORS as error:
            raise unreadable(name, error) from error

    def size(self, name: str) -> int:
        return self._entries[name].file_size

    def close(self) -> None:
        self._archive.close()


class _Unpacking(io.RawIOBase):
    """An entry that is being unpacked; damage shows as RowFault where it lies."""

    def __init__(self, packed: IO[bytes], name: str) -> None:
        super().__init__()
        self._packed, self._name = packed, name

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            chunk = self._packed.read(len(buffer))
        except _UNPACK_ERRORS as error:
            raise unreadable(self._name, error) from error
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def close(self) -> None:
        self._packed.close()
        super().close()


def open_archive(path: Path, options: ImportOptions) -> tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]:
    """Open a ZIP after all its entries were found harmless; the second value maps normalised names of files
    to entries.

    Raises:
        InvalidError: reason ARCHIVE_UNREADABLE, ARCHIVE_TRAVERSAL, ARCHIVE_NAME, ARCHIVE_LINK,
            ARCHIVE_DEVICE, ARCHIVE_DUPLICATE, ARCHIVE_ENCRYPTED, ARCHIVE_UNSUPPORTED or ARCHIVE_BOMB, with
            the entry in the metadata.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, struct.error) as error:
        message = f"{path.name} is not a readable ZIP ({error}): upload it again, or make the archive anew"
        raise InvalidError(message, reason="ARCHIVE_UNREADABLE", metadata={"file": path.name}) from error
    try:
        return archive, _judge(archive.infolist(), path.stat().st_size, options)
    except BaseException:
        archive.close()
        raise


def _judge(
    entries: list[zipfile.ZipInfo], archive_bytes: int, options: ImportOptions
) -> dict[str, zipfile.ZipInfo]:
    inventory = Inventory(options)
    inventory.count(len(entries))
    files: dict[str, zipfile.ZipInfo] = {}
    packed = 0
    for entry in entries:
        name = safe_name(entry.orig_filename)
        _check_kind(entry)
        packed += entry.compress_size
        folder = entry.is_dir() or stat.S_ISDIR(entry.external_attr >> 16)
        inventory.add(name, entry.file_size, folder=folder)
        check_ratio(name, entry.file_size, entry.compress_size, options.max_ratio)
        if not folder and not is_litter(name):
            files[name] = entry
    inventory.close()
    check_ratio("", inventory.total_bytes, archive_bytes, options.max_ratio)
    if packed > archive_bytes:
        problem = "its entries share packed bytes: they overlap"
        raise refusal("ARCHIVE_BOMB", "", problem, "make the archive anew")
    return files


def _check_kind(entry: zipfile.ZipInfo) -> None:
    kind = stat.S_IFMT(entry.external_attr >> 16)
    name = entry.filename
    if kind == stat.S_IFLNK:
        raise refusal("ARCHIVE_LINK", name, "it is a link", "put the file itself into the archive")
    if kind not in ({0, stat.S_IFDIR} if entry.is_dir() else {0, stat.S_IFREG}):
        raise refusal("ARCHIVE_DEVICE", name, "it is neither a file nor a folder", "leave it out")
    if entry.flag_bits & _ENCRYPTED:
        raise refusal("ARCHIVE_ENCRYPTED", name, "it is encrypted", "make the archive without a password")
    if entry.compress_type not in _METHODS:
        problem = f"its compression method {entry.compress_type} is not supported"
        raise refusal("ARCHIVE_UNSUPPORTED", name, problem, "use deflate")
