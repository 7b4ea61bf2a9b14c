"""Telling what a source is. Content decides before names do: an upload may be called anything."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Final

from finemesh.core.errors import InvalidError, NotFoundError
from finemesh.core.spec.data import ImportOptions
from finemesh.data.sources.folder import FolderSource, check_regular, too_large, walk
from finemesh.data.sources.packed import packing_of, unpack, unpacked_name
from finemesh.data.sources.source import Scratch, Source
from finemesh.data.sources.tars import TarSource
from finemesh.data.sources.zips import ZipSource

# Files that are a source by themselves; all but the last also compressed.
TEXT_SUFFIXES: Final = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".txt", ".xml")
FILE_SUFFIXES: Final = (*TEXT_SUFFIXES, ".parquet")
_ZIP_MAGIC: Final = (b"PK\x03\x04", b"PK\x05\x06")
_TAR_MAGIC: Final = slice(257, 262)
_HEAD_BYTES: Final = 512
_KINDS: Final = (
    "a folder, a ZIP, a tar (also .gz, .zst, .bz2), a Parquet file, or a JSON, JSON Lines, CSV, TSV, text or"
    " XML file (also .gz, .zst, .bz2)"
)


def open_source(path: Path, options: ImportOptions, scratch: Path | None = None) -> Source:
    """The source at `path`. What has to be unpacked goes into `scratch`, or the system's folder for such.

    Raises:
        NotFoundError: there is nothing.
        InvalidError: what is there is refused (see `open_archive`, `judge_tar` and `walk`), or is of no kind
            that is known (UNSUPPORTED_SOURCE).
    """
    if not path.exists():
        raise NotFoundError(f"there is no {path}: give {_KINDS}", reason="SOURCE_NOT_FOUND")
    if path.is_dir():
        return FolderSource(path, walk(path, options))
    check_regular(path.stat().st_mode, path.name)
    space = Scratch(scratch)
    try:
        return _open_file(path, options, space)
    except BaseException:
        space.remove()
        raise


def _open_file(path: Path, options: ImportOptions, scratch: Scratch) -> Source:
    head = _head(path)
    if head.startswith(_ZIP_MAGIC) or path.suffix.lower() == ".zip":
        return ZipSource(path, options, scratch)
    packing = packing_of(head, path.name)
    if packing:
        target = scratch.folder / "unpacked" / (unpacked_name(path.name) or "source")
        target.parent.mkdir()
        unpack(path, packing, target, options)
        path, head = target, _head(target)
    if head[_TAR_MAGIC] == b"ustar" or path.suffix.lower() == ".tar":
        return TarSource(path, options, scratch)
    if path.suffix.lower() in (TEXT_SUFFIXES if packing else FILE_SUFFIXES):
        if path.stat().st_size > options.max_total_bytes:
            raise too_large(path.name, f"more than {options.max_total_bytes} bytes", "max_total_bytes")
        return FolderSource(path.parent, [path.name], scratch)
    if not packing and zipfile.is_zipfile(path):  # with something before its first entry
        return ZipSource(path, options, scratch)
    raise InvalidError(
        f"{path.name} is of no kind that is known: give {_KINDS}",
        reason="UNSUPPORTED_SOURCE",
        metadata={"file": path.name},
    )


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD_BYTES)
