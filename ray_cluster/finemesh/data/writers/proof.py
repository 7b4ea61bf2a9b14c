"""The proof that a form holds the masks it was given: what was written is read back, drawn again by COCO's
own tools, and compared with the mask.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from finemesh.core.spec.data import MaskProof
from finemesh.data.faults import RowFault


class MaskProver:
    """Compares masks, and gathers what the manifest says of it. `floor` is the least overlap, 0 to 1."""

    def __init__(self, floor: float) -> None:
        self._floor = floor
        self._masks = self._below = 0
        self._sum = self._seconds = 0.0
        self._least = 1.0

    def compare(
        self, written: Sequence[Any], counts: Sequence[str], size: tuple[int, int], fields: Sequence[str]
    ) -> RowFault | None:
        """The fault of a row of whose masks one changed; None if they are what they were.

        Args:
            written: each mask as read back: polygons `[[x0, y0, ...], ...]` in pixels, or an RLE.
            counts: compressed run lengths of the masks they should be.
            size: width and height of the picture.
            fields: where each stands in the row.
        """
        began = time.process_time()
        overlaps = [_overlap(again, mask, size) for again, mask in zip(written, counts, strict=True)]
        self._seconds += time.process_time() - began
        worst = min(range(len(overlaps)), key=lambda index: overlaps[index], default=None)
        self._masks += len(overlaps)
        self._sum += sum(overlaps)
        if worst is None:
            return None
        self._least = min(self._least, overlaps[worst])
        if overlaps[worst] >= self._floor:
            return None
        self._below += sum(overlap < self._floor for overlap in overlaps)
        message = (
            f"read back, the mask overlaps with what it was by {overlaps[worst]:.3f}, less than"
            f" {self._floor:g}: lower min_mask_iou, or write run lengths"
        )
        return RowFault("MASK_CHANGED", message, fields[worst])

    def report(self) -> MaskProof:
        mean = self._sum / self._masks if self._masks else 1.0
        return MaskProof(self._masks, mean, self._least, self._below, round(self._seconds, 3))


def _overlap(again: Any, counts: str, size: tuple[int, int]) -> float:
    """Intersection over union; 1 for two empty masks."""
    from pycocotools import mask as coco_mask

    width, height = size
    drawn: Any = again
    if isinstance(again, list):
        drawn = coco_mask.merge(coco_mask.frPyObjects(again, height, width)) if again else None
    elif isinstance(again["counts"], list):
        drawn = coco_mask.frPyObjects(again, height, width)
    whole: Any = {"size": [height, width], "counts": counts.encode()}
    if drawn is None:
        return float(int(coco_mask.area(whole)) == 0)
    if int(coco_mask.area(whole)) == 0 == int(coco_mask.area(drawn)):
        return 1.0
    overlaps: Any = coco_mask.iou([drawn], [whole], [0])
    return float(overlaps[0, 0])
