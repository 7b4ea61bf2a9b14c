"""Pictures with boxes alone, in columns: the short way from a source of annotations to a form of boxes, some
times faster than row by row. It is for what is sound; whatever is not takes the long way, where faults have
names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from finemesh.data.rows import Candidate

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class BoxBatch:
    """Some pictures, of which the annotations alone are known, and their objects.

    Attributes:
        row_ids, names: id of the row and name of each picture, all different ids.
        sizes: float64[N, 2], width and height in pixels.
        pictures: int64[M], the picture of each object, ascending.
        boxes: float64[M, 4], x, y, width and height in pixels; none that is shown lies outside its picture.
        classes: int64[M], index in `class_names`.
        crowd: bool[M].
        class_names: of the source, in its order.
        split: of all of them.
        candidates: the same pictures, to be taken the long way.
    """

    row_ids: Sequence[str]
    names: Sequence[str]
    sizes: Numbers
    pictures: npt.NDArray[np.int64]
    boxes: Numbers
    classes: npt.NDArray[np.int64]
    crowd: npt.NDArray[np.bool_]
    class_names: Sequence[str]
    split: str
    candidates: Callable[[], list[Candidate]]

    @property
    def visible(self) -> npt.NDArray[np.bool_]:
        """bool[M], as that of objects: whether the box holds anything."""
        return (self.boxes[:, 2] > 0) & (self.boxes[:, 3] > 0)

    @property
    def shown(self) -> npt.NDArray[np.bool_]:
        """bool[M]: of objects that can be seen by themselves."""
        return self.visible & ~self.crowd

    @property
    def outside(self) -> npt.NDArray[np.bool_]:
        """bool[M]: nothing of the box lies in its picture."""
        near, far = clip_boxes(self.boxes, self.sizes[self.pictures])
        return np.any(far <= near, axis=1)


def clip_boxes(boxes: Numbers, sizes: Numbers) -> tuple[Numbers, Numbers]:
    """The corners nearest to and farthest from the origin, float64[M, 2] each, of what lies in the picture of
    the boxes float64[M, 4], given the width and height of the picture of each.
    """
    return np.maximum(boxes[:, :2], 0.0), np.minimum(boxes[:, :2] + boxes[:, 2:], sizes)
