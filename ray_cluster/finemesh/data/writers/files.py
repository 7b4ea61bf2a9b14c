"""Files of a form that come one by one: pictures, labels."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path, PurePosixPath
from typing import Final

from finemesh.core.spec.data import ShardInfo
from finemesh.data.schema import ImageRow

SUFFIXES: Final = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "": ".jpg"}
_UNSAFE: Final = re.compile(r"[^\w. -]+")
_MAX_NAME: Final = 120


class FileTree:
    """Writes small files below `root` and describes them. Folders are made once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folders: set[str] = set()
        self.written: list[ShardInfo] = []

    def write(self, path: str, data: bytes, sha256: str | None = None) -> None:
        """`path` is relative, with `/`. `sha256` saves computing it again."""
        folder = path.rpartition("/")[0]
        if folder not in self._folders:
            (self._root / folder).mkdir(parents=True, exist_ok=True)
            self._folders.add(folder)
        descriptor = os.open(f"{self._root}/{path}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(descriptor, left) :]
        finally:
            os.close(descriptor)
        digest = sha256 or hashlib.sha256(data).hexdigest()
        self.written.append(ShardInfo(path, digest, len(data), 0))


class PictureNames:
    """Names for pictures: those they had, made harmless, and unique within a split. `flat` leaves out their
    folders.
    """

    def __init__(self, *, flat: bool) -> None:
        self._flat = flat
        self._taken: dict[str, set[str]] = {}

    def give(self, split: str, image: ImageRow, name: str, row_id: str) -> str:
        """A name for the picture, which its source calls `name`; by its row where that is taken."""
        wanted = self._safe(name, image)
        taken = self._taken.setdefault(split, set())
        stem = wanted.rpartition(".")[0].lower()
        if not stem or stem in taken:
            digest = hashlib.sha256(row_id.encode()).hexdigest()[:12]
            folder, _, base = wanted.rpartition("/")
            wanted = f"{folder}/{digest}-{base}".lstrip("/")
            stem = wanted.rpartition(".")[0].lower()
        taken.add(stem)
        return wanted

    def _safe(self, name: str, image: ImageRow) -> str:
        parts = [_UNSAFE.sub("_", part)[-_MAX_NAME:] for part in PurePosixPath(name.replace("\\", "/")).parts]
        harmless = [part for part in parts if part.strip("._ ")]
        kept = (harmless[-1:] if self._flat else harmless) or ["picture"]
        path = PurePosixPath(*kept)
        suffix = SUFFIXES[image["format"]]
        same = path.suffix.lower() == suffix or (suffix == ".jpg" and path.suffix.lower() == ".jpeg")
        return str(path if same else path.with_name(path.name + suffix))
