"""The files of a form: what the ids of their rows begin with, and which files are of another form."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

from finemesh.data.readers.context import ReadContext


def short_names(names: Sequence[str]) -> dict[str, str]:
    """The stem of each file; the path without its suffix for those that share a stem.

    >>> short_names(["a/export.json", "b/export.json", "c.json"])
    {'a/export.json': 'a/export', 'b/export.json': 'b/export', 'c.json': 'c'}
    """
    counts = Counter(PurePosixPath(name).stem for name in names)
    return {
        name: path.stem if counts[path.stem] == 1 else str(path.with_suffix(""))
        for name in names
        for path in (PurePosixPath(name),)
    }


def warn_unread(context: ReadContext, names: Sequence[str], read: Sequence[str]) -> None:
    """Say which of the files `names` are not among those that are read."""
    known = frozenset(read)
    left = [name for name in names if name not in known]
    if left:
        more = f" and {len(left) - 1} others were" if len(left) > 1 else " was"
        context.warn(f"{left[0]}{more} not read: of another form")
