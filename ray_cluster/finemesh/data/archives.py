"""ZIP archives, judged as a whole before a byte of them is unpacked.

The directory of a ZIP says names, kinds and sizes; `zipfile` never yields more bytes of an entry than its
directory declares and checks the CRC, so what is refused here is refused for good.
"""

from __future__ import annotations

import stat
import struct
import zipfile
from pathlib import Path, PurePosixPath
from typing import Final

from finemesh.core.errors import InvalidError
from finemesh.core.spec.data import ImportOptions

_RATIO_FLOOR_BYTES: Final = (
    1 << 20
)  # below it a high ratio does no harm: an empty mask is a long row of zeros
_MAX_NAME_BYTES: Final = 1024
_METHODS: Final = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}
_ENCRYPTED: Final = 0x1
_LITTER: Final = ("__MACOSX/", ".DS_Store", "Thumbs.db")


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
    if len(entries) > options.max_files:
        raise _refusal(
            "ARCHIVE_BOMB",
            "",
            f"it holds {len(entries)} entries, more than the {options.max_files} allowed",
            "raise max_files",
        )
    files: dict[str, zipfile.ZipInfo] = {}
    folders: set[str] = set()
    total = packed = 0
    for entry in entries:
        name = _safe_name(entry)
        _check_kind(entry)
        total, packed = total + entry.file_size, packed + entry.compress_size
        if total > options.max_total_bytes:
            reason = f"it unpacks to more than the {options.max_total_bytes} bytes allowed"
            raise _refusal("ARCHIVE_BOMB", name, reason, "split it, or raise max_total_bytes")
        _check_ratio(name, entry.file_size, entry.compress_size, options.max_ratio)
        if entry.is_dir() or stat.S_ISDIR(entry.external_attr >> 16):
            folders.add(name)
            continue
        if name in files:
            raise _refusal("ARCHIVE_DUPLICATE", name, "this name occurs twice", "keep one of the two")
        files[name] = entry
        folders.update(str(parent) for parent in PurePosixPath(name).parents)
    _check_ratio("", total, archive_bytes, options.max_ratio)
    if packed > archive_bytes:
        raise _refusal(
            "ARCHIVE_BOMB", "", "its entries share packed bytes: they overlap", "make the archive anew"
        )
    for name in files.keys() & folders:
        raise _refusal("ARCHIVE_DUPLICATE", name, "this name is a file and a folder", "rename one of the two")
    return {name: entry for name, entry in files.items() if not _is_litter(name)}


def _safe_name(entry: zipfile.ZipInfo) -> str:
    """The entry's name with `/` between its parts, none of which can lead out of the archive."""
    name = entry.orig_filename
    if not name or len(name.encode("utf-8", "surrogateescape")) > _MAX_NAME_BYTES or not name.isprintable():
        problem = "its name is empty, too long, or holds control characters"
        raise _refusal("ARCHIVE_NAME", repr(name[:80]), problem, "rename the file")
    path = name.replace("\\", "/")
    parts = path.removesuffix("/").split("/")
    if path.startswith("/") or ":" in parts[0] or ".." in parts:
        raise _refusal(
            "ARCHIVE_TRAVERSAL", name, "its name leads out of the archive", "use plain relative names"
        )
    if "" in parts or "." in parts:
        raise _refusal("ARCHIVE_NAME", name, "its name has empty parts or '.'", "use plain relative names")
    return "/".join(parts)


def _check_kind(entry: zipfile.ZipInfo) -> None:
    kind = stat.S_IFMT(entry.external_attr >> 16)
    name = entry.filename
    if kind == stat.S_IFLNK:
        raise _refusal("ARCHIVE_LINK", name, "it is a link", "put the file itself into the archive")
    if kind not in ({0, stat.S_IFDIR} if entry.is_dir() else {0, stat.S_IFREG}):
        raise _refusal("ARCHIVE_DEVICE", name, "it is neither a file nor a folder", "leave it out")
    if entry.flag_bits & _ENCRYPTED:
        raise _refusal("ARCHIVE_ENCRYPTED", name, "it is encrypted", "make the archive without a password")
    if entry.compress_type not in _METHODS:
        problem = f"its compression method {entry.compress_type} is not supported"
        raise _refusal("ARCHIVE_UNSUPPORTED", name, problem, "use deflate")


def _check_ratio(name: str, unpacked_bytes: int, packed_bytes: int, max_ratio: float) -> None:
    if unpacked_bytes > _RATIO_FLOOR_BYTES and unpacked_bytes > max_ratio * max(packed_bytes, 1):
        ratio = unpacked_bytes / max(packed_bytes, 1)
        problem = f"it unpacks to {ratio:.0f} times its packed size, more than the {max_ratio:g} allowed"
        raise _refusal("ARCHIVE_BOMB", name, problem, "raise max_ratio if the archive is yours")


def _is_litter(name: str) -> bool:
    return name.startswith(_LITTER[0]) or name.rsplit("/", 1)[-1] in _LITTER[1:]


def _refusal(reason: str, entry: str, problem: str, remedy: str) -> InvalidError:
    where = f"the archive's entry {entry}" if entry else "the archive"
    metadata = {"entry": entry} if entry else {}
    return InvalidError(
        f"{where} is refused: {problem}. Nothing was unpacked; {remedy}", reason=reason, metadata=metadata
    )
