"""What packages decided, judged: figures that can be worked out by hand. Boxes are in the stranger's test."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from finemesh.package.judging import Judged, judge
from pycocotools import mask as coco

SIDE_PX = 8


def mask_of(rows: slice, columns: slice) -> tuple[str, Any]:
    """A rectangle as run lengths and as pixels."""
    mask_HW = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    mask_HW[rows, columns] = 1
    packed: Any = coco.encode(np.asfortranarray(mask_HW))
    return packed["counts"].decode(), mask_HW


def thing(label: str, counts: str) -> dict[str, Any]:
    return {"label": label, "box": [0.0, 0.0, 8.0, 8.0], "mask": counts, "crowd": False}


def test_answers_are_compared_in_words() -> None:
    items = [
        Judged(f"row-{i}", f"row-{i}", "a red ball", said=said)
        for i, said in enumerate(["a red ball", "a ball"])
    ]
    found = judge("LANGUAGE", [], items)
    assert found["exact_match"] == 0.5
    assert found["token_f1"] == pytest.approx((1 + 0.8) / 2)
    assert "count_error" not in found  # no number was expected


def test_classes_are_counted() -> None:
    labels = ["cat", "dog"]
    pairs = [("cat", 0), ("cat", 0), ("cat", 1), ("dog", 1)]
    items = [
        Judged(f"row-{i}", f"row-{i}", expected, (1, 1), {"label": np.array([said])})
        for i, (expected, said) in enumerate(pairs)
    ]
    found = judge("IMAGE_CLASSIFICATION", labels, items)
    assert found["accuracy"] == 0.75
    assert found["macro_f1"] == pytest.approx((0.8 + 2 / 3) / 2)
    assert found["accuracy_low"] < 0.75 < found["accuracy_high"]


@pytest.mark.parametrize(
    ("background", "expected"), [("background", 0.5 * (32 / 48 + 16 / 32)), ("", 0.5 / 2)]
)
def test_pixels_are_counted_with_and_without_background(background: str, expected: float) -> None:
    """The left half is an object; half of that is found. What none covers counts only if it has a class."""
    counts, _ = mask_of(slice(0, 8), slice(0, 4))
    _, found_HW = mask_of(slice(0, 4), slice(0, 4))
    item = Judged("row", "row", [thing("ball", counts)], (SIDE_PX, SIDE_PX), {"map": found_HW})
    figures = judge("SEMANTIC_SEGMENTATION", ["background", "ball"], [item], background=background)
    assert figures["mean_iou"] == pytest.approx(expected)


def test_masks_are_matched_by_their_overlap() -> None:
    counts, whole_HW = mask_of(slice(0, 8), slice(0, 4))
    _, most_HW = mask_of(slice(0, 5), slice(0, 4))  # 20 of 32 pixels: found at overlaps up to 0.6
    for found_HW, expected in ((whole_HW, 1.0), (most_HW, 0.3)):
        decision = {"masks": found_HW[None], "scores": np.array([0.9]), "labels": np.array([0])}
        item = Judged("row", "row", [thing("ball", counts)], (SIDE_PX, SIDE_PX), decision)
        assert judge("INSTANCE_SEGMENTATION", ["ball"], [item])["map"] == pytest.approx(expected)
