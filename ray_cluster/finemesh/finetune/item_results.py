"""What an evaluation wrote of its items (JSON lines), as columns of figures that runs can be compared by."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from finemesh.core.errors import InvalidError
from finemesh.finetune.rows import read_values

# Of an item that a model gets right or wrong, the mean is the accuracy.
_NAMES: Final = {"correct": "accuracy"}
# What counts or names an item, and is no figure of its quality.
_BESIDE: Final = ("row_id", "group", "tokens", "weight", "correct_tokens")
# What an item is: neither where it came from, nor pictures, for which their digests stand.
_CONTENT: Final = (
    *("images.list.element.sha256", "objects", "class_name", "captions"),
    *("text", "messages", "rejected", "tools"),
)
_DIGEST_LENGTH: Final = 16


@dataclass(frozen=True, slots=True)
class ItemResults:
    """The items of one evaluation, as columns of equal length.

    Attributes:
        variant: empty for the trained model, or the baseline: `untrained`, `blanked`.
        values: per metric; NaN where it says nothing of an item.
        weights: per metric whose items weigh differently in its mean.
    """

    variant: str
    ids: list[str]
    groups: list[str]
    values: dict[str, list[float]]
    weights: dict[str, list[float]]


def read_results(folder: Path, split: str) -> Iterator[ItemResults]:
    """What was written of a split: one for each `<split>.jsonl` and `<split>_<variant>.jsonl` with items."""
    for path in sorted(folder.glob(f"{split}*.jsonl")):
        with path.open(encoding="utf-8") as lines:
            items: list[dict[str, Any]] = [json.loads(line) for line in lines]
        if items and "row_id" in items[0]:
            yield _results(path.stem.removeprefix(split).removeprefix("_"), items)


def row_digests(dataset: Path, wanted: Collection[str]) -> dict[str, str]:
    """Of the rows among `wanted`, a digest of what they hold, whatever dataset they are in.

    Raises InvalidError (DATASET_CORRUPT).
    """
    names = set(wanted)
    digests: dict[str, str] = {}
    for values, _ in read_values(dataset, None, ("row_id", *_CONTENT)):
        if values["row_id"] in names:
            content = {name: value for name, value in values.items() if name not in {"row_id", "split"}}
            digests[values["row_id"]] = _digest(content)
    return digests


def item_digests(ids: Collection[str], digests: Mapping[str, str], max_tokens: int) -> list[str]:
    """The digest of each item. The pieces `<row>#<n>` of a long text follow from the row and its cuts.

    Raises InvalidError, reason DATASET_CORRUPT: the dataset has no such row.
    """
    found: list[str] = []
    for each in ids:
        row, _, piece = (each, "", "") if each in digests else each.rpartition("#")
        if row not in digests:
            raise InvalidError(
                f"item {each} is in no row of the dataset: fetch it again", reason="DATASET_CORRUPT"
            )
        found.append(_digest([digests[row], piece, max_tokens]) if piece else digests[row])
    return found


def _results(variant: str, items: list[dict[str, Any]]) -> ItemResults:
    figures = dict.fromkeys(name for item in items for name, value in item.items() if _is_figure(value))
    values = {
        _NAMES.get(name, name): [_number(item.get(name)) for item in items]
        for name in figures
        if name not in _BESIDE
    }
    sizes = [float(item.get("tokens", item.get("weight", 1))) for item in items]
    weights = {"loss": sizes} if "loss" in values and len(set(sizes)) > 1 else {}
    if "correct_tokens" in figures:
        values["token_accuracy"] = [
            item["correct_tokens"] / size for item, size in zip(items, sizes, strict=True)
        ]
        weights |= {"token_accuracy": sizes} if weights else {}
    ids, groups = ([str(item[name]) for item in items] for name in ("row_id", "group"))
    return ItemResults(variant, ids, groups, values, weights)


def _is_figure(value: Any) -> bool:
    return isinstance(value, bool | int | float)


def _number(value: Any) -> float:
    return float(value) if _is_figure(value) else math.nan


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:_DIGEST_LENGTH]
