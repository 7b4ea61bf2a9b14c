"""What several exports of one checkpoint start from, made once on a node: folders of files that are shared.

A process holds the lock of a folder while it makes it and while it takes its files. The kernel frees the lock
of a process that is killed; what it had begun has another name and is made anew. Weights are shared by hard
links, so that whoever has them keeps them when the folder is forgotten; all else is small, and copied, since
some of it may be written to.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

KEEP_SECONDS: Final = 1800.0
_LOCK: Final = ".lock"
_DRAFT: Final = ".draft"
_WEIGHTS: Final = ".safetensors"
_POLL_SECONDS: Final = 0.1


@dataclass(frozen=True)
class SharedFolders:
    """Folders below `root`, on the file system of the packages, of things that belong to `key`.

    `on_wait` is called over and over while another process makes what is wanted; it may raise.
    """

    root: Path
    key: str
    on_wait: Callable[[], None]

    def fill(self, out: Path, name: str, make: Callable[[Path], None]) -> None:
        """Fill `out` with the files of the folder `name`, which `make` writes if it is not there."""
        folder = self.root / f"{self.key}-{name}"
        self.root.mkdir(parents=True, exist_ok=True)
        with _locked(folder.with_suffix(_LOCK), self.on_wait):
            if not folder.is_dir():
                draft = folder.with_suffix(_DRAFT)
                shutil.rmtree(draft, ignore_errors=True)  # of a process that was killed
                try:
                    make(draft)
                except BaseException:  # such as of a full disk, which is not to stay full
                    shutil.rmtree(draft, ignore_errors=True)
                    raise
                draft.replace(folder)
            os.utime(folder)
            shutil.copytree(folder, out, copy_function=_take, dirs_exist_ok=True)


def forget_unused(root: Path, keep_seconds: float = KEEP_SECONDS) -> None:
    """Remove the folders, whole or not, that nobody has asked for within `keep_seconds`."""
    for lock in root.glob(f"*{_LOCK}"):
        with suppress(FileNotFoundError, BlockingIOError), _locked(lock, _refuse):
            folder = lock.with_suffix("")
            for path in (folder, folder.with_suffix(_DRAFT)):
                if path.is_dir() and time.time() - path.stat().st_mtime >= keep_seconds:
                    shutil.rmtree(path)


def _take(source: str, target: str) -> None:
    (os.link if source.endswith(_WEIGHTS) else shutil.copy2)(source, target)


def _refuse() -> None:
    raise BlockingIOError


@contextmanager
def _locked(path: Path, on_wait: Callable[[], None]) -> Generator[None]:
    with path.open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                on_wait()
                time.sleep(_POLL_SECONDS)
        yield
