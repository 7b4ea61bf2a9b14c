"""Where annotations and pictures come from: a ZIP, a folder, or a single JSON file. Read only, never followed
outside.
"""

from __future__ import annotations

import io
import lzma
import os
import shutil
import stat
import tempfile
import zipfile
import zlib
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Protocol, Self, cast

from finemesh.core.errors import InvalidError, NotFoundError
from finemesh.core.spec.data import ImportOptions
from finemesh.data.archives import open_archive
from finemesh.data.faults import RowFault

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


class Source(Protocol):
    """Files by name, with `/` between the parts. Close it (it is a context manager) to remove what was
    unpacked.
    """

    @property
    def names(self) -> list[str]:
        """Names of all files, sorted."""
        ...

    def read(self, name: str) -> bytes:
        """The bytes of a file. Raises RowFault (FILE_UNREADABLE) if they cannot be read whole."""
        ...

    def open(self, name: str) -> BinaryIO:
        """The bytes of a file as a stream, from its start. Raises RowFault (FILE_UNREADABLE); so does a read
        from the stream of a damaged file.
        """
        ...

    def size(self, name: str) -> int:
        """Of the file in bytes, unpacked."""
        ...

    def local_path(self, name: str) -> Path:
        """A path on this machine with the file's bytes, for libraries that seek. Raises RowFault
        (FILE_UNREADABLE).
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class FolderSource:
    """A folder, or one file of it. A link is followed only to a file within the folder."""

    def __init__(self, root: Path, names: list[str]) -> None:
        self._root = root.resolve()
        self.names = sorted(names)

    def read(self, name: str) -> bytes:
        try:
            return self.local_path(name).read_bytes()
        except OSError as error:
            raise RowFault("FILE_UNREADABLE", f"{name} cannot be read: {error.strerror}", "file") from error

    def open(self, name: str) -> BinaryIO:
        try:
            return self.local_path(name).open("rb")
        except OSError as error:
            raise RowFault("FILE_UNREADABLE", f"{name} cannot be read: {error.strerror}", "file") from error

    def size(self, name: str) -> int:
        return self.local_path(name).stat().st_size

    def local_path(self, name: str) -> Path:
        return _inside(self._root, self._root / name, name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing was unpacked, nothing is removed."""


class _Unpacking(io.RawIOBase, BinaryIO):
    """An entry that is being unpacked; damage shows as RowFault where it lies."""

    def __init__(self, packed: BinaryIO, name: str) -> None:
        super().__init__()
        self._packed, self._name = packed, name

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            chunk = self._packed.read(len(buffer))
        except _UNPACK_ERRORS as error:
            raise RowFault("FILE_UNREADABLE", f"{self._name} cannot be unpacked: {error}", "file") from error
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def close(self) -> None:
        self._packed.close()
        super().close()


class ZipSource:
    """A ZIP that was judged as a whole. Entries are read in place; only what must be seekable is unpacked."""

    def __init__(self, path: Path, options: ImportOptions) -> None:
        self._archive, self._entries = open_archive(path, options)
        self.names = sorted(self._entries)
        self._scratch: Path | None = None
        self._unpacked: dict[str, Path] = {}

    def read(self, name: str) -> bytes:
        try:
            return self._archive.read(self._entries[name])
        except _UNPACK_ERRORS as error:
            raise RowFault("FILE_UNREADABLE", f"{name} cannot be unpacked: {error}", "file") from error

    def open(self, name: str) -> BinaryIO:
        try:
            return _Unpacking(cast("BinaryIO", self._archive.open(self._entries[name])), name)
        except _UNPACK_ERRORS as error:
            raise RowFault("FILE_UNREADABLE", f"{name} cannot be unpacked: {error}", "file") from error

    def size(self, name: str) -> int:
        return self._entries[name].file_size

    def local_path(self, name: str) -> Path:
        if self._scratch is None:
            self._scratch = Path(tempfile.mkdtemp(prefix="finemesh-import-"))
        path = self._unpacked.get(name)
        if path is None:
            path = self._scratch / f"{len(self._unpacked)}{Path(name).suffix}"
            with self.open(name) as packed, path.open("wb") as file:
                shutil.copyfileobj(packed, file, 1 << 20)
            self._unpacked[name] = path
        return path

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._archive.close()
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)


def open_source(path: Path, options: ImportOptions) -> Source:
    """The source at `path`.

    Raises:
        NotFoundError: there is nothing.
        InvalidError: what is there is refused (see `open_archive`; SOURCE_LINK, SOURCE_DEVICE,
            SOURCE_TOO_LARGE for folders), or is of no kind that is known (UNSUPPORTED_SOURCE).
    """
    if not path.exists():
        raise NotFoundError(
            f"there is no {path}: give a ZIP, a folder or a JSON file", reason="SOURCE_NOT_FOUND"
        )
    if path.is_dir():
        return FolderSource(path, _walk(path, options))
    if path.suffix.lower() == ".json":
        if path.stat().st_size > options.max_total_bytes:
            raise _too_large(path.name, f"more than {options.max_total_bytes} bytes", "max_total_bytes")
        return FolderSource(path.parent, [path.name])
    if path.suffix.lower() == ".zip" or zipfile.is_zipfile(path):
        return ZipSource(path, options)
    raise InvalidError(
        f"{path.name} is not a ZIP, a folder or a JSON file: give one of these", reason="UNSUPPORTED_SOURCE"
    )


def _walk(root: Path, options: ImportOptions) -> list[str]:
    """Names of all files under `root`. Raises InvalidError for a link that leads outside and for anything but
    files.
    """
    names: list[str] = []
    total = 0
    for folder, folders, files in os.walk(root, followlinks=False):
        for name in folders:
            if (Path(folder) / name).is_symlink():
                raise _link(str((Path(folder) / name).relative_to(root)))
        for name in files:
            path = Path(folder) / name
            relative = path.relative_to(root).as_posix()
            target = _inside(root.resolve(), path, relative) if path.is_symlink() else path
            status = target.stat()
            if not stat.S_ISREG(status.st_mode):
                message = f"{relative} is a device, pipe or socket: remove it from the folder"
                raise InvalidError(message, reason="SOURCE_DEVICE", metadata={"file": relative})
            total += status.st_size
            names.append(relative)
            if len(names) > options.max_files:
                raise _too_large(root.name, f"more than {options.max_files} files", "max_files")
            if total > options.max_total_bytes:
                raise _too_large(root.name, f"more than {options.max_total_bytes} bytes", "max_total_bytes")
    return names


def _inside(root: Path, path: Path, name: str) -> Path:
    """`path` with its links followed. Raises InvalidError (SOURCE_LINK) if it then lies outside `root` or
    nowhere.
    """
    target = path.resolve()
    if not target.is_relative_to(root) or not target.exists():
        raise _link(name)
    return target


def _link(name: str) -> InvalidError:
    message = f"{name} is a link out of the source, to a folder, or to nothing: replace it by what it means"
    return InvalidError(message, reason="SOURCE_LINK", metadata={"file": name})


def _too_large(name: str, size: str, limit: str) -> InvalidError:
    return InvalidError(
        f"{name} holds {size}: import a part of it, or raise {limit}", reason="SOURCE_TOO_LARGE"
    )
