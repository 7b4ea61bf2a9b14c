"""The files of a form: what the ids of their rows begin with, and which files are of another form."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

from finemesh.data.readers.context import ReadContext


def short_names(names: Sequence[str]) -> dict[str, str]:
    """The stem of each file; of those that share a stem the path without its suffix, and where that is shared
    too, the whole path.

    >>> short_names(["a/export.json", "b/export.json", "c.json", "c.jsonl"])
    {'a/export.json': 'a/export', 'b/export.json': 'b/export', 'c.json': 'c.json', 'c.jsonl': 'c.jsonl'}
    """
    stems = Counter(PurePosixPath(name).stem for name in names)
    bare = Counter(str(PurePosixPath(name).with_suffix("")) for name in names)

    def short(path: PurePosixPath) -> str:
        if stems[path.stem] == 1:
            return path.stem
        without = str(path.with_suffix(""))
        return without if bare[without] == 1 else str(path)

    return {name: short(PurePosixPath(name)) for name in names}


def warn_unread(context: ReadContext, names: Sequence[str], read: Sequence[str]) -> None:
    """Say which of the files `names` are not among those that are read."""
    known = frozenset(read)
    left = [name for name in names if name not in known]
    if left:
        more = f" and {len(left) - 1} others were" if len(left) > 1 else " was"
        context.warn(f"{left[0]}{more} not read: of another form")
