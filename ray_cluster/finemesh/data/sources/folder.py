"""A folder of this machine, or one file of it."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NoReturn, Self

from finemesh.core.errors import InvalidError
from finemesh.core.spec.data import ImportOptions
from finemesh.data.faults import RowFault
from finemesh.data.sources.inventory import is_litter, name_problem
from finemesh.data.sources.source import Scratch, check_readable


class FolderSource:
    """Files of a folder. A link is followed only to a file within the folder. `scratch` is removed in the
    end, with whatever was unpacked there to be read.
    """

    def __init__(self, root: Path, names: list[str], scratch: Scratch | None = None) -> None:
        self._root = root.resolve()
        self._scratch = scratch or Scratch()
        self.names = sorted(names)

    def read(self, name: str) -> bytes:
        try:
            with self.local_path(name).open("rb") as file:
                check_readable(name, os.fstat(file.fileno()).st_size)
                return file.read()
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
        self._scratch.remove()


def walk(root: Path, options: ImportOptions) -> list[str]:
    """Names of all files under `root`.

    Raises:
        InvalidError: SOURCE_LINK for a link that leads outside or to a folder, SOURCE_DEVICE for anything but
            files, SOURCE_NAME, SOURCE_TOO_LARGE, SOURCE_UNREADABLE.
    """
    names: list[str] = []
    total = 0
    # Strings, not paths: a source may hold a million files.
    for folder, folders, files in os.walk(root, followlinks=False, onerror=_unreadable):
        within = os.path.relpath(folder, root)
        base = "" if within == os.curdir else f"{within}/"
        for name in folders:
            if Path(folder, name).is_symlink():
                raise _link(f"{base}{name}")
        for name in files:
            total += _size(root, f"{base}{name}")
            names.append(f"{base}{name}")
            if len(names) > options.max_files:
                raise too_large(root.name, f"more than {options.max_files} files", "max_files")
            if total > options.max_total_bytes:
                raise too_large(root.name, f"more than {options.max_total_bytes} bytes", "max_total_bytes")
    return [name for name in names if not is_litter(name)]


def _size(root: Path, name: str) -> int:
    """Of a file in bytes, once its name and kind are known to be harmless."""
    if problem := name_problem(name):
        message = f"the file {name[:80]!r} is refused: {problem}. Rename it"
        raise InvalidError(message, reason="SOURCE_NAME", metadata={"file": repr(name[:80])})
    try:
        status = os.lstat(f"{root}/{name}")
        if stat.S_ISLNK(status.st_mode):
            status = _inside(root.resolve(), root / name, name).stat()
    except OSError as error:
        _unreadable(error)
    check_regular(status.st_mode, name)
    return status.st_size


def check_regular(mode: int, name: str) -> None:
    """Raises InvalidError (SOURCE_DEVICE): opening a pipe would wait for ever."""
    if not stat.S_ISREG(mode):
        message = f"{name} is a device, pipe or socket: remove it from the folder"
        raise InvalidError(message, reason="SOURCE_DEVICE", metadata={"file": name})


def _inside(root: Path, path: Path, name: str) -> Path:
    """`path` with its links followed. Raises InvalidError (SOURCE_LINK) if it then lies outside `root` or
    nowhere.
    """
    target = Path(os.path.realpath(path))  # unlike Path.resolve it takes links that lead in a circle
    if not target.is_relative_to(root) or not target.exists():
        raise _link(name)
    return target


def _link(name: str) -> InvalidError:
    message = f"{name} is a link out of the source, to a folder, or to nothing: replace it by what it means"
    return InvalidError(message, reason="SOURCE_LINK", metadata={"file": name})


def _unreadable(error: OSError) -> NoReturn:
    message = f"{error.filename} cannot be read ({error.strerror}): let it be read, or remove it"
    raise InvalidError(message, reason="SOURCE_UNREADABLE") from error


def too_large(name: str, size: str, limit: str) -> InvalidError:
    return InvalidError(
        f"{name} holds {size}: import a part of it, or raise {limit}", reason="SOURCE_TOO_LARGE"
    )
