"""Files of a form that come one by one: pictures, labels."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Final

from finemesh.core.spec.data import ShardInfo

SUFFIXES: Final = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "": ".jpg"}
_UNSAFE: Final = re.compile(r"[^\w. -]+")
_MAX_NAME: Final = 120
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL
_OVER: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC


class FileTree:
    """Writes small files below `root` and describes them. Folders are made once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folders: set[str] = set()
        self.written: list[ShardInfo] = []

    def is_taken(self, path: str) -> bool:
        return os.path.lexists(f"{self._root}/{path}")

    def write(self, path: str, data: bytes, sha256: str | None = None, *, new: bool = False) -> bool:
        """`path` is relative, with `/`. `sha256` saves computing it again. False, and nothing written, if it
        must be `new` and is there.
        """
        folder = path.rpartition("/")[0]
        if folder not in self._folders:
            (self._root / folder).mkdir(parents=True, exist_ok=True)
            self._folders.add(folder)
        try:
            descriptor = os.open(f"{self._root}/{path}", _NEW if new else _OVER, 0o666)
        except FileExistsError:
            return False
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(descriptor, left) :]
        finally:
            os.close(descriptor)
        digest = sha256 or hashlib.sha256(data).hexdigest()
        self.written.append(ShardInfo(path, digest, len(data), 0))
        return True


def picture_name(name: str, image_format: str, *, flat: bool) -> str:
    """What the source calls a picture, made harmless as a path, with the suffix of its format; `flat` leaves
    out the folders.
    """
    parts = [_UNSAFE.sub("_", part)[-_MAX_NAME:] for part in name.replace("\\", "/").split("/")]
    harmless = [part for part in parts if part.strip("._ ")] or ["picture"]
    path = harmless[-1] if flat else "/".join(harmless)
    if not image_format and "." in path.rpartition("/")[2].lstrip("."):
        return path  # of a picture that is elsewhere
    suffix = SUFFIXES[image_format]
    return path if path.lower().endswith((suffix, suffix.replace("jpg", "jpeg"))) else path + suffix


def wanted_name(row_id: str, video_id: str | None, name: str) -> str:
    """What a row's picture would be called: what its source calls it, and a frame by its video too, since
    frames of all videos are called alike.
    """
    if video_id is None:
        return name or row_id
    return f"{video_id}-{(name or row_id).rpartition('/')[2]}"


def base_stem(path: str) -> str:
    """`train/a.jpg` -> `a`."""
    return path.rpartition("/")[2].rpartition(".")[0]


def by_row(path: str, row_id: str) -> str:
    """`path` with a base name that no other row has."""
    folder, slash, base = path.rpartition("/")
    return f"{folder}{slash}{hashlib.sha256(row_id.encode()).hexdigest()[:12]}-{base}"
