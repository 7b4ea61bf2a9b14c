"""Splits that are given: by the lists of the request, or by the source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Final

from finemesh.core.errors import InvalidError
from finemesh.core.spec.data import Split, SplitOptions
from finemesh.data.splitting.keys import RowKey

OTHERS: Final = "*"
"""Listed instead of a name, it stands for all rows that no name stands for."""
_SHOWN: Final = 5


def look_up(keys: Sequence[RowKey], options: SplitOptions) -> tuple[dict[str, Split], list[str]]:
    """The split of every row by its id, and sentences about it.

    A row goes by the first of its names that is listed: its id, the names of its pictures, the same without
    folder or suffix, its video, its source file. Without any list it goes by the split it has. Nothing is
    guessed of a row that is left: it needs `*`.

    Raises:
        InvalidError: ASSIGNMENT_UNKNOWN (a name that stands for no row), ASSIGNMENT_CONFLICT (a row with
            pictures in two splits), ASSIGNMENT_INCOMPLETE (rows that nothing stands for).
    """
    listed = {name: Split(split) for name, split in options.assignments.items() if name != OTHERS}
    _refuse_unknown(keys, listed)
    others = options.assignments.get(OTHERS)
    splits: dict[str, Split] = {}
    left: list[str] = []
    for key in keys:
        split = _listed(key, listed) if listed else Split(key.split)
        if not split:
            left.append(key.row_id)
            split = Split(others or Split.NONE)
        splits[key.row_id] = split
    if left and others is None:
        raise _incomplete(left, given=bool(listed))
    return splits, [f"{len(left)} rows are in no list and lie in {others}, as * says"] if left else []


def _names(key: RowKey) -> list[tuple[str, ...]]:
    """The names that stand for a row, those that come first in front."""
    paths = [PurePosixPath(name) for name in key.names]
    bare = tuple(name for path in paths for name in (path.name, path.stem))
    names = [(key.row_id,), key.names, bare, (key.video_id or "",), (key.source_file,)]
    return [tuple(filter(None, each)) for each in names]


def _listed(key: RowKey, listed: Mapping[str, Split]) -> Split:
    for names in _names(key):
        found = {listed[name] for name in names if name in listed}
        if len(found) > 1:
            message = f"the pictures of row {key.row_id} are listed in {_some(found)}: list the row's id"
            raise InvalidError.of("options.assignments", message, reason="ASSIGNMENT_CONFLICT")
        if found:
            return found.pop()
    return Split.NONE


def _refuse_unknown(keys: Sequence[RowKey], listed: Mapping[str, Split]) -> None:
    known = {name for key in keys for names in _names(key) for name in names} if listed else set[str]()
    if unknown := listed.keys() - known:
        message = (
            f"{len(unknown)} of {len(listed)} listed names stand for no row ({_some(unknown)}): list row ids,"
            " names of pictures, videos or source files as the dataset has them"
        )
        raise InvalidError.of("options.assignments", message, reason="ASSIGNMENT_UNKNOWN")


def _incomplete(left: Sequence[str], *, given: bool) -> InvalidError:
    what = "are in no list" if given else "have no split from the source"
    message = (
        f"{len(left)} rows {what} ({_some(left)}): list them, or say with the name {OTHERS} where all others"
        " go, e.g. to train, or to gap to leave them out"
    )
    return InvalidError.of("options.assignments", message, reason="ASSIGNMENT_INCOMPLETE")


def _some(names: Iterable[str]) -> str:
    every = sorted(names)
    return ", ".join(every[:_SHOWN]) + (", …" if len(every) > _SHOWN else "")
