"""What folders and lists of a split are called. Source of the names: the keywords of Hugging Face's
`datasets`, data_files.py, without those that also mean other things.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Final

from finemesh.core.spec.data import Split

SPLIT_NAMES: Final[Mapping[Split, tuple[str, ...]]] = {
    Split.TRAIN: ("train", "training"),
    Split.VAL: ("val", "valid", "validation", "dev"),
    Split.TEST: ("test", "testing"),
}
_BY_NAME: Final = {name: split for split, names in SPLIT_NAMES.items() for name in names}


def split_named(name: str) -> Split:
    """The split of that name; NONE if it is not one."""
    return _BY_NAME.get(name.strip().lower(), Split.NONE)


def split_of_path(path: str) -> Split:
    """The split whose name a folder of `path` has, the nearest to the file; NONE without one."""
    folders = reversed(PurePosixPath(path).parts[:-1])
    return next((split for folder in folders if (split := split_named(folder))), Split.NONE)


@lru_cache(maxsize=64)
def split_of_file(name: str) -> Split:
    """The split that a file's name says, as `chat_train.jsonl` does, or else its folder; NONE without one."""
    words = re.split(r"[^a-z]+", PurePosixPath(name).stem.lower())
    said = {split for word in words if (split := split_named(word))}
    return said.pop() if len(said) == 1 else split_of_path(name)
