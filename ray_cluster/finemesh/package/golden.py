"""The golden set: items of the dataset with what the trained model makes of them.

    golden/inputs.jsonl            per line row_id, group, messages (the prompt), image, expected, generated
    golden/images/000.png          the pictures, byte for byte those of the dataset
    golden/outputs.safetensors     per item `<index>/inputs/<name>`, what the training-time processor made of
                                   it, `<index>/outputs/<name>`, what the model said, and
                                   `<index>/decision/<name>`, what follows from that (see `shipped/decide.py`)

Conversations and pictures are made into items by `golden_text` and `golden_pictures`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from finemesh.core.errors import PreconditionError
from finemesh.finetune.order import epoch_order
from finemesh.finetune.rows import read_values
from finemesh.package.trained import Trained

GOLDEN: Final = "golden"
# What is fed to the model is kept of as many items as fit: it is large, and preprocessing is code, not data.
_MOST_INPUT_BYTES: Final = 64 << 20

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class GoldenItem:
    """One item, with what the trained model made of it.

    Attributes:
        group: the video it came from, or the row itself: what an interval resamples.
        messages: the prompt; empty for models that do not speak.
        image: the encoded picture, or nothing.
        expected: what the dataset says, for the task's metric: the answer; the class; objects.
        inputs: with an axis for the batch; outputs, decision: without.
        generated: the answer in words.
    """

    row_id: str
    group: str
    messages: list[Any]
    image: bytes
    expected: Any
    inputs: Arrays
    outputs: Arrays
    decision: Arrays
    generated: str = ""


def golden_split(trained: Trained) -> str:
    """The test split; if the spec names none, the validation split or, if that was held out, training's."""
    spec = trained.spec
    if not spec.test_split and spec.evaluation.holdout_fraction:  # then there may be no validation split
        return spec.train_split
    return spec.test_split or spec.validation_split or spec.train_split


def write_golden(
    trained: Trained,
    items_of: Callable[[Trained, str, list[str]], Iterator[GoldenItem]],
    split: str,
    items: int,
    folder: Path,
) -> int:
    """Write `items` items of a split, chosen by the hash of their ids, and their outputs. Returns their
    number.

    Args:
        trained: what was trained.
        items_of: (what was trained, split, row ids in the order of choice) -> those that can be used.
        split: of its dataset.
        items: how many.
        folder: `golden` of the package.

    Raises:
        PreconditionError: SPLIT_EMPTY, no row of the split can be used.
    """
    row_ids = [str(values["row_id"]) for values, _ in read_values(trained.dataset, split, ("row_id",))]
    order = epoch_order(row_ids, seed=0, epoch=0)
    # Twice as many as needed: a few may turn out unusable.
    wanted = [row_ids[index] for index in order[: 2 * items]]
    (folder / "images").mkdir(parents=True)
    arrays: Arrays = {}
    room, count = _MOST_INPUT_BYTES, 0
    with (folder / "inputs.jsonl").open("w", encoding="utf-8") as stream:
        for item in items_of(trained, split, wanted):
            size = sum(each.nbytes for each in item.inputs.values())
            kept = item.inputs if size <= room else {}
            room -= size if kept else 0
            for kind, each in (("inputs", kept), ("outputs", item.outputs), ("decision", item.decision)):
                arrays |= {f"{count}/{kind}/{name}": np.ascontiguousarray(a) for name, a in each.items()}
            stream.write(json.dumps(_line(item, count, folder), ensure_ascii=False) + "\n")
            count += 1
            if count == items:
                break
    if not count:
        raise PreconditionError(f"no row of the split {split!r} can be used", reason="SPLIT_EMPTY")
    save_file(arrays, folder / "outputs.safetensors")
    return count


def _line(item: GoldenItem, index: int, folder: Path) -> dict[str, Any]:
    image = ""
    if item.image:
        image = f"{GOLDEN}/images/{index:03d}{_suffix(item.image)}"
        (folder.parent / image).write_bytes(item.image)
    return {
        "row_id": item.row_id,
        "group": item.group,
        "messages": item.messages,
        "image": image,
        "expected": item.expected,
        "generated": item.generated,
    }


def _suffix(image: bytes) -> str:
    return ".png" if image.startswith(b"\x89PNG") else ".webp" if image[8:12] == b"WEBP" else ".jpg"
