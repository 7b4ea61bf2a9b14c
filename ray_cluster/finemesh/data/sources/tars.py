"""Tar archives, judged as a whole before a file of them is used; files are then read in place.

Format: POSIX.1-2001 (pax) and GNU tar. Headers are walked here, block by block, since `tarfile` reads long
headers whole, whatever their size, follows sparse maps, and takes a cut archive for a short one; one header
block is parsed by the library.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

from finemesh.core.errors import InvalidError
from finemesh.core.spec.data import ImportOptions
from finemesh.data.sources.inventory import Inventory, is_litter, refusal, safe_name
from finemesh.data.sources.source import COPY_BYTES, ArchiveSource, Scratch, buffered, unreadable

_BLOCK: Final = tarfile.BLOCKSIZE
# Longest extended header, in bytes. Names are far shorter; attributes of file systems may be this long.
_MAX_HEADER_BYTES: Final = 1 << 20
_FILES: Final = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_LINKS: Final = (tarfile.SYMTYPE, tarfile.LNKTYPE)
_DEVICES: Final = (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)
_EXTENDED: Final = (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)


@dataclass(frozen=True, slots=True)
class Member:
    """Where the bytes of a file lie in the archive."""

    offset: int
    size_bytes: int


class TarSource(ArchiveSource):
    """A tar that was judged as a whole and is not compressed."""

    def __init__(self, path: Path, options: ImportOptions, scratch: Scratch) -> None:
        self._file = path.open("rb")
        try:
            self._members = judge_tar(self._file, options)
        except BaseException:
            self._file.close()
            raise
        super().__init__(list(self._members), scratch)

    def open(self, name: str) -> BinaryIO:
        return buffered(_Section(self._file.fileno(), self._members[name], name))

    def size(self, name: str) -> int:
        return self._members[name].size_bytes

    def close(self) -> None:
        self._file.close()


class _Section(io.RawIOBase):
    """The bytes of one member. Sections do not share a position."""

    def __init__(self, descriptor: int, member: Member, name: str) -> None:
        super().__init__()
        self._descriptor, self._name = descriptor, name
        self._position, self._end = member.offset, member.offset + member.size_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), self._end - self._position)
        try:
            chunk = os.pread(self._descriptor, wanted, self._position)
        except OSError as error:
            raise unreadable(self._name, error.strerror) from error
        if wanted and not chunk:
            raise unreadable(self._name, "the archive has become shorter")
        buffer[: len(chunk)] = chunk
        self._position += len(chunk)
        return len(chunk)


def judge_tar(file: BinaryIO, options: ImportOptions) -> dict[str, Member]:
    """The files of a tar by normalised name, once all its entries were found harmless.

    Raises:
        InvalidError: reason ARCHIVE_UNREADABLE, ARCHIVE_TRAVERSAL, ARCHIVE_NAME, ARCHIVE_LINK,
            ARCHIVE_DEVICE, ARCHIVE_DUPLICATE, ARCHIVE_UNSUPPORTED or ARCHIVE_BOMB, with the entry in the
            metadata.
    """
    inventory = Inventory(options)
    members: dict[str, Member] = {}
    for entry in _entries(file, inventory):
        # `tar -C folder .` writes `./` before every name, and an entry for the folder itself.
        relative = entry.name.removeprefix("./")
        if entry.kind == tarfile.DIRTYPE and relative in {"", "."}:
            continue
        name = safe_name(relative)
        _check_kind(entry, name)
        folder = entry.kind == tarfile.DIRTYPE
        inventory.add(name, 0 if folder else entry.member.size_bytes, folder=folder)
        if not folder and not is_litter(name):
            members[name] = entry.member
    inventory.close()
    return members


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    kind: bytes
    member: Member


@dataclass(slots=True)
class _Extension:
    """What extended headers say of the entry that follows them."""

    name: str | None = None
    size_bytes: int | None = None
    kinds: set[bytes] = field(default_factory=set[bytes])

    def take(self, kind: bytes, payload: bytes) -> None:
        if kind in self.kinds:
            raise _broken("two extended headers of one kind stand before one entry")
        self.kinds.add(kind)
        if kind == tarfile.GNUTYPE_LONGNAME:
            self.name = payload.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
        elif kind == tarfile.XHDTYPE:
            records = _pax_records(payload)
            self.name = records.get("path", self.name)
            if "size" in records:
                self.size_bytes = _whole_number(records["size"])


def _entries(file: BinaryIO, inventory: Inventory) -> Iterator[_Entry]:
    """Every entry, in the archive's order."""
    end = os.fstat(file.fileno()).st_size
    extension = _Extension()
    offset = 0
    while (info := _header(file, offset)) is not None:
        offset += _BLOCK
        size_bytes = info.size if extension.size_bytes is None else extension.size_bytes
        # Some archives give folders a size, but no bytes follow.
        stored = 0 if info.type == tarfile.DIRTYPE else size_bytes
        if size_bytes < 0 or offset + stored > end:
            raise _broken(f"{info.name!r:.80} is longer than the archive")
        if info.type in _EXTENDED:
            extension.take(info.type, _payload(file, offset, stored))
        else:
            inventory.count()
            if info.type == tarfile.XGLTYPE:
                _check_global(_payload(file, offset, stored))
            else:
                name = info.name if extension.name is None else extension.name
                yield _Entry(name, info.type, Member(offset, stored))
                extension = _Extension()
        offset += -(-stored // _BLOCK) * _BLOCK
    if extension.kinds:
        raise _broken("it ends after an extended header")
    _check_rest(file, offset)


def _header(file: BinaryIO, offset: int) -> tarfile.TarInfo | None:
    """The header at `offset`; None at the end of the archive, which is a block of zeros."""
    file.seek(offset)
    block = file.read(_BLOCK)
    if len(block) < _BLOCK:
        raise _broken("it ends without the mark of its end: it is cut off, or no tar at all")
    if not block.strip(b"\0"):
        return None
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError, OverflowError) as error:
        raise _broken(f"the header at byte {offset} is damaged ({error})") from error


def _payload(file: BinaryIO, offset: int, size_bytes: int) -> bytes:
    if size_bytes > _MAX_HEADER_BYTES:
        problem = f"an extended header has {size_bytes} bytes, more than the {_MAX_HEADER_BYTES} allowed"
        raise refusal("ARCHIVE_BOMB", "", problem, "make the archive without extended attributes")
    file.seek(offset)
    return file.read(size_bytes)


def _pax_records(payload: bytes) -> dict[str, str]:
    """The records `length key=value` of an extended header."""
    records: dict[str, str] = {}
    position = 0
    while position < len(payload) and payload[position]:
        space = payload.find(b" ", position, position + 8)
        digits = payload[position : max(space, position)]
        end = position + int(digits) if digits.isdigit() else position
        if not position < space < end <= len(payload) or payload[end - 1] != ord("\n"):
            raise _broken("a record of an extended header is damaged")
        key, _, value = payload[space + 1 : end - 1].partition(b"=")
        records[key.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
        position = end
    if any(key.startswith("GNU.sparse.") for key in records):
        raise _sparse("")
    return records


def _whole_number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise _broken(f"an extended header gives the size {text!r:.40}")
    return int(text)


def _check_global(payload: bytes) -> None:
    """A header for all entries may hold a comment, as that of `git archive` does, but no name or size."""
    if not _pax_records(payload).keys().isdisjoint({"path", "size"}):
        problem = "a header gives all its files one name or size"
        raise refusal("ARCHIVE_UNSUPPORTED", "", problem, "make the archive anew")


def _check_kind(entry: _Entry, name: str) -> None:
    if entry.kind in _LINKS:
        raise refusal("ARCHIVE_LINK", name, "it is a link", "put the file itself into it (tar -h)")
    if entry.kind in _DEVICES:
        raise refusal("ARCHIVE_DEVICE", name, "it is a device or a pipe", "leave it out")
    if entry.kind == tarfile.GNUTYPE_SPARSE:
        raise _sparse(name)
    if entry.kind not in (*_FILES, tarfile.DIRTYPE):
        problem = f"it is of the type {entry.kind!r}, neither a file nor a folder"
        raise refusal("ARCHIVE_UNSUPPORTED", name, problem, "make the archive with GNU tar or Python")


def _check_rest(file: BinaryIO, offset: int) -> None:
    """After the end there may be zeros only: what else is there would be lost in silence."""
    file.seek(offset)
    while chunk := file.read(COPY_BYTES):
        if chunk.strip(b"\0"):
            raise _broken("there is something after its end, maybe a second archive: make one of the two")


def _sparse(name: str) -> InvalidError:
    problem = "a file with holes is stored as a map of them"
    return refusal("ARCHIVE_UNSUPPORTED", name, problem, "make the archive without --sparse")


def _broken(problem: str) -> InvalidError:
    return refusal("ARCHIVE_UNREADABLE", "", problem, "upload it again, or make the archive anew")
