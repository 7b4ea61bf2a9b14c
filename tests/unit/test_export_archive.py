"""Packages as ZIP and tar files whose layout is known before a byte is read."""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import pytest
from finemesh.export.archive import Archive, ArchiveKind, Piece, lay_out
from finemesh.export.domain import PackageFile
from finemesh.export.ranges import Span, span_of

CONTENT = {
    "a.txt": b"hello",
    "b/empty": b"",
    "b/large.bin": bytes(range(256)) * 900,
    "c/Grüße 猫.json": b"{}",
    f"d/{'long-' * 50}name": b"x" * 511,
}
GIB = 1 << 30


def described(path: str, data: bytes) -> PackageFile:
    return PackageFile(path, len(data), hashlib.sha256(data).hexdigest(), zlib.crc32(data))


FILES = [described(path, data) for path, data in CONTENT.items()]


def bytes_of(piece: Piece) -> bytes:
    if piece.file is None:
        return piece.data
    return CONTENT[piece.file.path][piece.start : piece.start + piece.length]


def read_between(archive: Archive, begin: int, end: int) -> bytes:
    return b"".join(bytes_of(piece) for piece in archive.between(begin, end))


def whole(kind: ArchiveKind) -> bytes:
    archive = lay_out(FILES, kind, "package")
    return read_between(archive, 0, archive.size_bytes)


def read_zip(data: IO[bytes]) -> dict[str, bytes]:
    with zipfile.ZipFile(data) as archive:
        assert archive.testzip() is None
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        return {name: archive.read(name) for name in archive.namelist()}


def read_tar(data: IO[bytes]) -> dict[str, bytes]:
    with tarfile.open(fileobj=data) as archive:
        return {each.name: cast("IO[bytes]", archive.extractfile(each)).read() for each in archive}


@pytest.mark.parametrize(("kind", "read"), [(ArchiveKind.ZIP, read_zip), (ArchiveKind.TAR, read_tar)])
def test_the_archive_holds_every_file_in_order(
    kind: ArchiveKind, read: Callable[[IO[bytes]], dict[str, bytes]]
) -> None:
    found = read(io.BytesIO(whole(kind)))
    assert list(found.items()) == [(f"package/{path}", CONTENT[path]) for path in sorted(CONTENT)]
    assert whole(kind) == whole(kind)


@pytest.mark.parametrize(
    ("kind", "command"), [(ArchiveKind.ZIP, ("unzip", "-q")), (ArchiveKind.TAR, ("tar", "-xf"))]
)
def test_another_implementation_reads_it(tmp_path: Path, kind: ArchiveKind, command: tuple[str, ...]) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    (tmp_path / "package.archive").write_bytes(whole(kind))
    subprocess.run([*command, "package.archive"], cwd=tmp_path, check=True)
    for path, data in CONTENT.items():
        assert (tmp_path / "package" / path).read_bytes() == data


@pytest.mark.parametrize("kind", ArchiveKind)
def test_a_range_is_the_same_bytes_as_the_whole(kind: ArchiveKind) -> None:
    data, archive = whole(kind), lay_out(FILES, kind, "package")
    edges = [0]
    for piece in archive.pieces:
        edges.append(edges[-1] + piece.size_bytes)
    cuts = sorted({at + by for at in edges for by in (-1, 0, 1) if 0 <= at + by <= len(data)})
    for begin in cuts:
        for end in (begin, begin + 1, begin + 700, len(data)):
            assert read_between(archive, begin, end) == data[begin:end]


@dataclass
class Virtual(io.RawIOBase):
    """An archive of many GiB as a file that exists nowhere: its files hold zeros."""

    archive: Archive
    at: int = 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self.at = offset + (0, self.at, self.archive.size_bytes)[whence]
        return self.at

    def tell(self) -> int:
        return self.at

    def read(self, size: int = -1) -> bytes:
        end = self.archive.size_bytes if size < 0 else min(self.at + size, self.archive.size_bytes)
        pieces = self.archive.between(self.at, end)
        data = b"".join(bytes(piece.length) if piece.file else piece.data for piece in pieces)
        self.at = end
        return data


@pytest.mark.parametrize("size", [(1 << 32) - 2, (1 << 32) - 1, 1 << 32, 5 * GIB])
def test_files_and_archives_beyond_four_gib_have_their_place(size: int) -> None:
    """A file around the limit, one that begins beyond it, and one of 9 GiB, which tar cannot say in octal."""
    files = [PackageFile("a", size, ""), PackageFile("b", 9 * GIB, ""), PackageFile("c", 3, "", 0xFF41D912)]
    with zipfile.ZipFile(cast("IO[bytes]", Virtual(lay_out(files, ArchiveKind.ZIP, "p")))) as archive:
        assert [info.file_size for info in archive.infolist()] == [size, 9 * GIB, 3]
        assert archive.read("p/c") == bytes(3)  # its header is where the directory says
        with archive.open("p/b") as entry:
            assert entry.read(9) == bytes(9)
    with tarfile.open(fileobj=cast("IO[bytes]", Virtual(lay_out(files, ArchiveKind.TAR, "p")))) as tar:
        assert [member.size for member in tar.getmembers()] == [size, 9 * GIB, 3]
        assert cast("IO[bytes]", tar.extractfile("p/c")).read() == bytes(3)


def test_more_files_than_sixteen_bits_count() -> None:
    files = [PackageFile(f"{number:05}", 0, "") for number in range(1 << 16)]
    archive = lay_out(files, ArchiveKind.ZIP, "p")
    with zipfile.ZipFile(io.BytesIO(b"".join(piece.data for piece in archive.pieces))) as opened:
        assert len(opened.namelist()) == 1 << 16


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("", Span(0, 100, 100)),
        ("bytes=0-", Span(0, 100, 100, partial=True)),
        ("bytes=10-19", Span(10, 20, 100, partial=True)),
        ("bytes=90-1000", Span(90, 100, 100, partial=True)),
        ("bytes=-30", Span(70, 100, 100, partial=True)),
        ("bytes=-1000", Span(0, 100, 100, partial=True)),
        ("bytes=100-", Span(100, 100, 100, partial=True)),
        ("bytes=-0", Span(100, 100, 100, partial=True)),
        ("bytes=7-3", Span(0, 100, 100)),
        ("bytes=1-2,5-6", Span(0, 100, 100)),
        ("lines=1-2", Span(0, 100, 100)),
        ("bytes=", Span(0, 100, 100)),
    ],
)
def test_ranges_are_read_as_http_has_them(asked: str, expected: Span) -> None:
    assert span_of(100, offset=0, asked=asked, only_if="", etag='"e"') == expected
    assert span_of(100, offset=0, asked=asked, only_if='"e"', etag='"e"') == expected
    assert span_of(100, offset=0, asked=asked, only_if='"old"', etag='"e"') == Span(0, 100, 100)


def test_a_range_that_is_refused_says_how_much_there_is() -> None:
    refused = span_of(100, offset=0, asked="bytes=100-", only_if="", etag="")
    assert refused.refused
    assert refused.content_range == "bytes */100"
    assert span_of(100, offset=100, asked="", only_if="", etag="") == Span(100, 100, 100)
