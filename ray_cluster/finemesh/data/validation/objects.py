"""Checks of boxes and masks: sound, within the picture, agreeing with each other, each once."""

from __future__ import annotations

from typing import Any

import numpy as np

from finemesh.core.spec.data import ValidateOptions
from finemesh.data.arrow import numbers
from finemesh.data.validation.columns import Batch, Bools, Floats, Ints
from finemesh.data.validation.findings import Findings, Told
from finemesh.data.validation.masks import measure


def check_objects(batch: Batch, options: ValidateOptions, findings: Findings) -> None:
    """All checks of the objects of a batch."""
    if not len(batch.objects):
        return
    sound = _check_boxes(batch, options, findings)
    _check_masks(batch, sound, options, findings)
    _check_copies(batch, sound, findings)
    hidden = np.flatnonzero(~batch.visible)
    findings.add_all("OBJECT_INVISIBLE", hidden, lambda at: _tell(batch, at, "", "it is not visible"))


def _tell(batch: Batch, at: int, field: str, evidence: str) -> Told:
    """The finding about object `at` of the batch; `field` is one of the object, or ""."""
    row, slot = int(batch.objects.rows[at]), int(batch.objects.slots[at])
    path = f"objects[{slot}].{field}" if field else f"objects[{slot}]"
    object_id = batch.objects.arrow("object_id")[at].as_py()
    return batch.place(row), path, f"object {object_id}: {evidence}"


def _check_boxes(batch: Batch, options: ValidateOptions, findings: Findings) -> Bools:
    """Which boxes are sound, and so worth a further look."""
    boxes, sizes = batch.boxes, batch.row_sizes[batch.objects.rows]
    sound = np.isfinite(boxes).all(axis=1) & (boxes[:, 2] >= 0) & (boxes[:, 3] >= 0)

    def box(at: int, words: str = "") -> Told:
        return _tell(batch, at, "bbox", _numbers(boxes[at]) + words)

    findings.add_all("BOX_INVALID", np.flatnonzero(~sound), box)
    empty = sound & batch.visible & ((boxes[:, 2] == 0) | (boxes[:, 3] == 0))
    findings.add_all("BOX_EMPTY", np.flatnonzero(empty), box)
    with np.errstate(over="ignore", invalid="ignore"):
        reach = np.nan_to_num(np.maximum(-boxes[:, :2], boxes[:, :2] + boxes[:, 2:] - sizes).max(axis=1))
    outside = sound & (sizes[:, 0] > 0) & (reach > options.max_box_overhang_px)
    findings.add_all(
        "BOX_OUTSIDE",
        np.flatnonzero(outside),
        lambda at: box(at, f" reaches {reach[at]:.4g} pixels out of {sizes[at, 0]} x {sizes[at, 1]}"),
    )
    return sound


def _check_masks(batch: Batch, sound: Bools, options: ValidateOptions, findings: Findings) -> None:
    counts: Any = batch.objects.arrow("rle_counts")
    owners = np.flatnonzero(numbers(counts.is_valid()))
    if not len(owners):
        return
    sizes = batch.row_sizes[batch.objects.rows[owners]]
    found = measure(counts.drop_null(), sizes[:, 1])
    expected = sizes[:, 0] * sizes[:, 1]

    def mask(at: int, words: str) -> Told:
        return _tell(batch, int(owners[at]), "rle_counts", words)

    findings.add_all("RLE_INVALID", np.flatnonzero(found.broken), lambda at: mask(at, "no run lengths"))
    fits = ~found.broken & (found.pixels == expected)
    findings.add_all(
        "MASK_SIZE_MISMATCH",
        np.flatnonzero(~found.broken & ~fits),
        lambda at: mask(
            at,
            f"its runs sum to {found.pixels[at]}, but the picture has {sizes[at, 0]} x {sizes[at, 1]}"
            f" = {expected[at]} pixels",
        ),
    )
    shown = fits & batch.visible[owners]
    findings.add_all(
        "MASK_EMPTY",
        np.flatnonzero(shown & (found.area == 0)),
        lambda at: mask(at, "it is visible, but no pixel is set"),
    )
    _check_agreement(batch, owners, shown & (found.area > 0) & sound[owners], found.boxes, options, findings)


def _check_agreement(
    batch: Batch, owners: Ints, which: Bools, mask_boxes: Ints, options: ValidateOptions, findings: Findings
) -> None:
    """Boxes of the objects `owners` against the boxes of their masks, for those of `which`."""
    overlap = _overlap(batch.boxes[owners], mask_boxes.astype(np.float64))

    def tell(at: int) -> Told:
        box, filled = _numbers(batch.boxes[owners[at]]), _numbers(mask_boxes[at])
        words = f"{box}, but the mask fills {filled}: overlap (IoU) {overlap[at]:.2f}"
        return _tell(batch, int(owners[at]), "bbox", words)

    apart = np.flatnonzero(which & (overlap < options.min_box_iou))
    findings.add_all("BOX_MASK_DISAGREE", apart, tell)


def _overlap(a: Floats, b: Floats) -> Floats:
    """IoU of boxes float64[N, 4] with boxes float64[N, 4]; 0 where neither has an area."""
    with np.errstate(invalid="ignore", over="ignore"):
        sides = np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
        shared = np.maximum(sides, 0).prod(axis=1)
        union = a[:, 2:].prod(axis=1) + b[:, 2:].prod(axis=1) - shared
        return np.divide(shared, union, out=np.zeros(len(a)), where=union > 0)


def _check_copies(batch: Batch, sound: Bools, findings: Findings) -> None:
    """The same object twice in one row: by its id, or by its class, box and mask."""
    rows = batch.objects.rows
    ids: Any = batch.objects.arrow("object_id")
    codes = numbers(ids.dictionary_encode().indices)
    again, _ = _repeated(rows, codes)
    findings.add_all(
        "DUPLICATE_OBJECT_ID",
        np.sort(again),
        lambda at: _tell(batch, at, "object_id", "another object of the row has this id"),
    )
    alike = np.flatnonzero(sound & batch.visible)
    again, first = _repeated(rows[alike], *batch.boxes[alike].T)
    pairs = zip(alike[again].tolist(), alike[first].tolist(), strict=True)
    of = {at: original for at, original in pairs if _same(batch, at, original)}
    findings.add_all(
        "DUPLICATE_OBJECT",
        np.array(sorted(of), np.int64),
        lambda at: _tell(batch, at, "", f"the same as object {ids[of[at]].as_py()}"),
    )


def _repeated(*keys: Any) -> tuple[Ints, Ints]:
    """Indices whose keys are those of an earlier index, and that index."""
    order = np.lexsort(keys[::-1])
    new = np.zeros(len(order), np.bool_)
    new[:1] = True
    for key in keys:
        new[1:] |= key[order][1:] != key[order][:-1]
    firsts = order[new][np.cumsum(new) - 1]  # lexsort is stable: the first of equals comes first
    return order[~new], firsts[~new]


def _same(batch: Batch, one: int, other: int) -> bool:
    """Whether two objects with one box have one class and one mask too."""
    columns = (batch.objects.arrow(name) for name in ("class_name", "rle_counts"))
    return all(column[one].as_py() == column[other].as_py() for column in columns)


def _numbers(values: Any) -> str:
    return "[" + ", ".join(f"{value:.6g}" for value in values) + "]"
