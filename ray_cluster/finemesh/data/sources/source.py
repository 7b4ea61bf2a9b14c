"""What all sources have in common."""

from __future__ import annotations

import errno
import io
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Protocol, Self

from finemesh.core.errors import ResourceExhaustedError
from finemesh.data.faults import RowFault

COPY_BYTES: Final = 1 << 20
MAX_READ_BYTES: Final = 512 << 20
"""Of a file that is held whole. What may be larger is read as a stream."""


class Source(Protocol):
    """Files by name, with `/` between the parts. Close it (it is a context manager) to remove what was
    unpacked.
    """

    @property
    def names(self) -> list[str]:
        """Names of all files, sorted."""
        ...

    def read(self, name: str) -> bytes:
        """The bytes of a file. Raises RowFault: FILE_UNREADABLE; FILE_TOO_LARGE beyond MAX_READ_BYTES."""
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


class Scratch:
    """A folder for what has to be unpacked, made within `parent` (None: the system's folder for such) when it
    is first needed.
    """

    def __init__(self, parent: Path | None = None) -> None:
        self._parent = parent
        self._folder: Path | None = None

    @property
    def folder(self) -> Path:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="finemesh-import-", dir=self._parent))
        return self._folder

    def remove(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


class ArchiveSource(ABC):
    """Files inside one other file. Only what must be seekable is copied out, under names of our own."""

    def __init__(self, names: list[str], scratch: Scratch) -> None:
        self.names = sorted(names)
        self._scratch = scratch
        self._copies: dict[str, Path] = {}

    @abstractmethod
    def open(self, name: str) -> BinaryIO: ...

    @abstractmethod
    def size(self, name: str) -> int: ...

    @abstractmethod
    def close(self) -> None:
        """Let go of the archive."""

    def read(self, name: str) -> bytes:
        check_readable(name, self.size(name))
        with self.open(name) as file:
            return file.read()

    def local_path(self, name: str) -> Path:
        path = self._copies.get(name)
        if path is None:
            path = self._scratch.folder / f"{len(self._copies)}{Path(name).suffix}"
            with writing_to(path), self.open(name) as packed, path.open("wb") as file:
                shutil.copyfileobj(packed, file, COPY_BYTES)
            self._copies[name] = path
        return path

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        self._scratch.remove()


@contextmanager
def writing_to(path: Path) -> Generator[None]:
    """Raises ResourceExhaustedError (DISK_FULL) where writing finds no room."""
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        message = f"there is no room left in {path.parent}: free some, or import the source in parts"
        raise ResourceExhaustedError(message, reason="DISK_FULL") from error


def check_readable(name: str, size_bytes: int) -> None:
    """Raises RowFault (FILE_TOO_LARGE) for a file that is too large for the memory."""
    if size_bytes > MAX_READ_BYTES:
        message = f"{name} has {size_bytes} bytes, more than the {MAX_READ_BYTES} that are held in memory"
        raise RowFault("FILE_TOO_LARGE", f"{message}: divide it", "file")


def unreadable(name: str, error: object) -> RowFault:
    return RowFault("FILE_UNREADABLE", f"{name} cannot be unpacked: {error}", "file")


def buffered(raw: io.RawIOBase) -> BinaryIO:
    """A stream that also reads line by line at speed."""
    return io.BufferedReader(raw, 1 << 16)
