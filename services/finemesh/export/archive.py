"""A package as one ZIP or tar file whose every byte has its place before one is read.

Nothing is compressed and no copy is built: an archive is headers that are known, and the files between them.
So a download can begin anywhere. The same package gives the same bytes: files come in the order of their
paths and carry no time of their own.

Formats: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT (sections 4.3 and 4.5.3), and
https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html.
"""

from __future__ import annotations

import struct
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from finemesh.export.domain import PackageFile

_EPOCH: Final = (1980, 1, 1, 0, 0, 0)  # the first date that ZIP knows
_DOS_DATE: Final = 1 << 5 | 1
_UNIX: Final = 3
_MODE: Final = 0o644
_ZIP_ATTRIBUTES: Final = (0o100000 | _MODE) << 16
_ZIP64_VERSION: Final = 45
_MAX_16: Final = 0xFFFF
_MAX_32: Final = 0xFFFFFFFF
_TAR_ENDING: Final = bytes(2 * tarfile.BLOCKSIZE)


class ArchiveKind(StrEnum):
    """The value is the ending of the file's name."""

    ZIP = "zip"
    TAR = "tar"


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an archive: `data`, or `length` bytes of `file` from `start` on."""

    data: bytes = b""
    file: PackageFile | None = None
    start: int = 0
    length: int = 0

    @property
    def size_bytes(self) -> int:
        return self.length if self.file else len(self.data)

    def cut(self, begin: int, end: int) -> Piece:
        """What lies from `begin` to before `end`, both counted from the piece's own begin."""
        if self.file is None:
            return Piece(self.data[begin:end])
        return Piece(file=self.file, start=self.start + begin, length=end - begin)


@dataclass(frozen=True, slots=True)
class Archive:
    """The layout of an archive."""

    pieces: tuple[Piece, ...]

    @property
    def size_bytes(self) -> int:
        return sum(piece.size_bytes for piece in self.pieces)

    def between(self, begin: int, end: int) -> Iterator[Piece]:
        """The pieces that make up the bytes from `begin` to before `end`."""
        at = 0
        for piece in self.pieces:
            first, last = max(begin - at, 0), min(end - at, piece.size_bytes)
            if first < last:
                yield piece.cut(first, last)
            at += piece.size_bytes


def lay_out(files: Sequence[PackageFile], kind: ArchiveKind, folder: str) -> Archive:
    """The archive that holds `files` under `folder`/. For a ZIP every file's CRC-32 has to be known."""
    ordered = sorted(files)
    return Archive(tuple(_zip(ordered, folder) if kind is ArchiveKind.ZIP else _tar(ordered, folder)))


def _content(file: PackageFile) -> Piece:
    return Piece(file=file, length=file.size_bytes)


def _tar(files: Sequence[PackageFile], folder: str) -> Iterator[Piece]:
    for file in files:
        info = tarfile.TarInfo(f"{folder}/{file.path}")
        info.size, info.mode = file.size_bytes, _MODE
        yield Piece(info.tobuf(tarfile.PAX_FORMAT))
        yield _content(file)
        yield Piece(bytes(-file.size_bytes % tarfile.BLOCKSIZE))
    yield Piece(_TAR_ENDING)


def _zip(files: Sequence[PackageFile], folder: str) -> Iterator[Piece]:
    at, directory = 0, bytearray()
    for file in files:
        info = zipfile.ZipInfo(f"{folder}/{file.path}", _EPOCH)
        info.create_system, info.external_attr = _UNIX, _ZIP_ATTRIBUTES
        info.file_size = info.compress_size = file.size_bytes
        info.CRC, info.header_offset = file.crc32, at
        header = Piece(info.FileHeader())
        directory += _directory_entry(info)
        yield header
        yield _content(file)
        at += header.size_bytes + file.size_bytes
    yield Piece(bytes(directory) + _zip_ending(len(files), len(directory), at))


def _directory_entry(info: zipfile.ZipInfo) -> bytes:
    """The central directory's entry for a file (4.3.12). What needs more than 32 bits is in an extra field
    (4.5.3).
    """
    name = info.filename.encode()
    wide = [each for each in (info.file_size, info.compress_size, info.header_offset) if each >= _MAX_32]
    extra = struct.pack(f"<HH{len(wide)}Q", 1, 8 * len(wide), *wide) if wide else b""
    version = _ZIP64_VERSION if wide else zipfile.DEFAULT_VERSION
    fixed = struct.pack(
        "<4sBBHHHHHIIIHHHHHII",
        b"PK\x01\x02",
        version,
        _UNIX,
        version,
        0 if info.filename.isascii() else 0x800,  # the name is UTF-8
        zipfile.ZIP_STORED,
        0,
        _DOS_DATE,
        info.CRC,
        min(info.compress_size, _MAX_32),
        min(info.file_size, _MAX_32),
        len(name),
        len(extra),
        0,
        0,
        0,
        info.external_attr,
        min(info.header_offset, _MAX_32),
    )
    return fixed + name + extra


def _zip_ending(files: int, directory_bytes: int, at: int) -> bytes:
    """What follows the central directory, which begins `at` (4.3.14 to 4.3.16)."""
    wide = b""
    if files >= _MAX_16 or directory_bytes >= _MAX_32 or at >= _MAX_32:
        wide = struct.pack(
            "<4sQHHIIQQQQ",
            b"PK\x06\x06",
            44,  # what follows, in bytes
            _ZIP64_VERSION,
            _ZIP64_VERSION,
            0,
            0,
            files,
            files,
            directory_bytes,
            at,
        ) + struct.pack("<4sIQI", b"PK\x06\x07", 0, at + directory_bytes, 1)
    count = min(files, _MAX_16)
    sizes = (min(directory_bytes, _MAX_32), min(at, _MAX_32))
    return wide + struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, count, count, *sizes, 0)
