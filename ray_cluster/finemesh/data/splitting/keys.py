"""What decides the split of a row, read from a dataset without its pictures."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final

from finemesh.core.spec.data import SplitOptions, SplitStrategy
from finemesh.data.storage import iter_batches

_ALWAYS: Final = ("row_id", "video_id", "frame_index", "images.list.element.sha256")
_WORDS: Final = ("text", "messages", "rejected")
_CLASSES: Final = ("class_name", "objects.list.element.class_name", "objects.list.element.visible")
_NAMES: Final = ("images.list.element.name", "source.file", "split")
_GROUP_COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    "video_id": (),
    "class_name": ("class_name",),
    "source.file": ("source.file",),
    "folder": ("images.list.element.name",),
}


@dataclass(frozen=True, slots=True)
class RowKey:
    """What decides the split of a row. Those after `words` are of use to one strategy and empty for others.

    Attributes:
        images: SHA-256 of each picture.
        words: SHA-256 of what a row without pictures says; empty if it says nothing.
        classes: visible objects per class, or 1 for the class of the whole row (STRATIFIED).
        group: what the row is grouped by; None if it has no such thing (GROUPED).
        names: of the pictures in the source (PREDEFINED).
        source_file: path in the source (PREDEFINED).
        split: that the row has already (PREDEFINED).
    """

    row_id: str
    video_id: str | None
    frame_index: int | None
    images: tuple[str, ...]
    words: str = ""
    classes: Mapping[str, int] = field(default_factory=dict[str, int])
    group: str | None = None
    names: tuple[str, ...] = ()
    source_file: str = ""
    split: str = ""


def read_keys(dataset: Path, options: SplitOptions) -> list[RowKey]:
    """The keys of all rows, in order. Raises as `iter_batches`."""
    columns = dict.fromkeys([*_ALWAYS, *_WORDS, *_columns(options)])
    return [_key(row, options) for batch in iter_batches(dataset, [*columns]) for row in batch.to_pylist()]


def _columns(options: SplitOptions) -> tuple[str, ...]:
    match options.strategy:
        case SplitStrategy.STRATIFIED:
            return _CLASSES
        case SplitStrategy.GROUPED:
            return _GROUP_COLUMNS.get(options.group_key, ("attributes",))
        case SplitStrategy.PREDEFINED:
            return _NAMES
        case _:
            return ()


def _key(row: Mapping[str, Any], options: SplitOptions) -> RowKey:
    """The key of a row, as far as `options` need it."""
    images = tuple(image["sha256"] for image in row["images"])
    words = "" if images else _words(row)
    common = (row["row_id"], row["video_id"], row["frame_index"], images, words)
    match options.strategy:
        case SplitStrategy.STRATIFIED:
            return RowKey(*common, classes=_classes(row))
        case SplitStrategy.GROUPED:
            return RowKey(*common, group=_group(row, options.group_key))
        case SplitStrategy.PREDEFINED:
            names = tuple(image["name"] for image in row["images"] if image["name"])
            return RowKey(*common, names=names, source_file=row["source"]["file"] or "", split=row["split"])
        case _:
            return RowKey(*common)


def _words(row: Mapping[str, Any]) -> str:
    said = [row[name] for name in _WORDS]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest() if any(said) else ""


def _classes(row: Mapping[str, Any]) -> dict[str, int]:
    """Visible objects per class; of a row without any, the class of the whole."""
    named = [item["class_name"] for item in row["objects"] if item["visible"] and item["class_name"]]
    if not named and row["class_name"] is not None:
        return {row["class_name"]: 1}
    return dict(Counter(named))


def _group(row: Mapping[str, Any], group_key: str) -> str | None:
    """What the row is grouped by, as text in which different values differ."""
    match group_key:
        case "video_id" | "class_name":
            return row[group_key]
        case "source.file":
            return row["source"]["file"] or None
        case "folder":
            names = [image["name"] for image in row["images"] if image["name"]]
            return str(PurePosixPath(names[0]).parent) if names else None
        case _:
            value = json.loads(row["attributes"] or "{}").get(group_key)
            return None if value is None else json.dumps(value, sort_keys=True)
