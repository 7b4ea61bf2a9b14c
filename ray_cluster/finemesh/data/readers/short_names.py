"""Row ids that begin with a file's name: short where it is the only one of that name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath


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
