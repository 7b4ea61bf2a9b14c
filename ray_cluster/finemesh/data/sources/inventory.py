"""The entries of an archive: their names, kinds, number and size, judged together before any of them is used.

A name that was let through is relative, has no `..`, and is unique: joined to any folder it stays inside.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from finemesh.core.errors import InvalidError
from finemesh.core.spec.data import ImportOptions

# Below it a high ratio does no harm: an empty mask is a long row of zeros.
RATIO_FLOOR_BYTES: Final = 1 << 20
_MAX_NAME_BYTES: Final = 1024
_MAX_NAME_PARTS: Final = 64
_DRIVE: Final = re.compile(r"[A-Za-z]:")
# Control characters, halves of characters, line separators; and what turns the direction of writing, so that
# a name would show as another one.
_HOSTILE_CATEGORIES: Final = ("Cc", "Cs", "Zl", "Zp")
_TURNING: Final = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_LITTER_FOLDER: Final = "__MACOSX/"
_LITTER_FILES: Final = (".DS_Store", "Thumbs.db", "desktop.ini")
_LITTER_PREFIX: Final = "._"


class Inventory:
    """What an archive holds, taken up entry by entry. Every method raises InvalidError, with the entry in the
    metadata.
    """

    def __init__(self, options: ImportOptions) -> None:
        self._options = options
        self._files: set[str] = set()
        self._folders: set[str] = set()
        self._count = 0
        self.total_bytes = 0

    def count(self, number: int = 1) -> None:
        """There are so many entries more. Raises ARCHIVE_BOMB."""
        self._count += number
        if self._count > self._options.max_files:
            problem = f"it holds more than the {self._options.max_files} entries allowed"
            raise refusal("ARCHIVE_BOMB", "", problem, "split it, or raise max_files")

    def add(self, name: str, size_bytes: int, *, folder: bool) -> None:
        """Take up an entry. Raises ARCHIVE_BOMB or ARCHIVE_DUPLICATE."""
        self.total_bytes += size_bytes
        if self.total_bytes > self._options.max_total_bytes:
            problem = f"it unpacks to more than the {self._options.max_total_bytes} bytes allowed"
            raise refusal("ARCHIVE_BOMB", name, problem, "split it, or raise max_total_bytes")
        if folder:
            self._folders.add(name)
        elif name in self._files:
            raise refusal("ARCHIVE_DUPLICATE", name, "this name occurs twice", "keep one of the two")
        else:
            self._files.add(name)

    def close(self) -> None:
        """There are no more. Raises ARCHIVE_DUPLICATE for a name that is a file and a folder."""
        clash = next(iter(self._files & self._folders), None) or next(
            (parent for name in self._files for parent in _parents(name) if parent in self._files), None
        )
        if clash is not None:
            problem = "this name is a file and a folder"
            raise refusal("ARCHIVE_DUPLICATE", clash, problem, "rename one of the two")


def _parents(name: str) -> list[str]:
    return [name[:index] for index, letter in enumerate(name) if letter == "/"]


def safe_name(name: str) -> str:
    """The name with `/` between its parts, none of which can lead out of the archive.

    Raises:
        InvalidError: ARCHIVE_NAME, ARCHIVE_TRAVERSAL.
    """
    problem = name_problem(name)
    if problem:
        raise refusal("ARCHIVE_NAME", repr(name[:80]), problem, "rename the file")
    path = name.replace("\\", "/")
    parts = path.removesuffix("/").split("/")
    if path.startswith("/") or _DRIVE.match(path) or ".." in parts:
        problem = "its name leads out of the archive"
        raise refusal("ARCHIVE_TRAVERSAL", name, problem, "use plain relative names")
    if "" in parts or "." in parts:
        raise refusal("ARCHIVE_NAME", name, "its name has empty parts or '.'", "use plain relative names")
    return "/".join(parts)


def name_problem(name: str) -> str:
    """What makes a name unfit to be shown, stored or followed; empty if nothing does."""
    if not name:
        return "its name is empty"
    if len(name.encode("utf-8", "surrogatepass")) > _MAX_NAME_BYTES or name.count("/") >= _MAX_NAME_PARTS:
        return f"its name has more than {_MAX_NAME_BYTES} bytes or {_MAX_NAME_PARTS} parts"
    if not name.isprintable() and any(
        letter in _TURNING or unicodedata.category(letter) in _HOSTILE_CATEGORIES for letter in name
    ):
        return "its name holds control characters, or is not UTF-8"
    return ""


def check_ratio(name: str, unpacked_bytes: int, packed_bytes: int, max_ratio: float) -> None:
    """Raises InvalidError (ARCHIVE_BOMB)."""
    if unpacked_bytes > RATIO_FLOOR_BYTES and unpacked_bytes > max_ratio * max(packed_bytes, 1):
        ratio = unpacked_bytes / max(packed_bytes, 1)
        problem = f"it unpacks to {ratio:.0f} times its packed size, more than the {max_ratio:g} allowed"
        raise refusal("ARCHIVE_BOMB", name, problem, "raise max_ratio if the archive is yours")


def is_litter(name: str) -> bool:
    """What systems leave in folders and archives: views, thumbnails, resource forks."""
    base = name.rsplit("/", 1)[-1]
    return name.startswith(_LITTER_FOLDER) or base in _LITTER_FILES or base.startswith(_LITTER_PREFIX)


def refusal(reason: str, entry: str, problem: str, remedy: str) -> InvalidError:
    """The error that an archive is refused with."""
    where = f"the archive's entry {entry}" if entry else "the archive"
    metadata = {"entry": entry} if entry else {}
    return InvalidError(
        f"{where} is refused: {problem}. Nothing was unpacked; {remedy}", reason=reason, metadata=metadata
    )
