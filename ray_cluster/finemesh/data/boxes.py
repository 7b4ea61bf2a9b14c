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


@dataclass(frozen=True, slots=True)
class BoxBatch:
    """Some pictures, of which the annotations alone are known, and their objects.

    Attributes:
        row_ids, names: id of the row and name of each picture, all different ids.
        sizes: float64[N, 2], width and height in pixels.
        pictures: int64[M], the picture of each object, ascending.
        boxes: float64[M, 4], x, y, width and height in pixels; none lies wholly outside its picture.
        classes: int64[M], index in `class_names`.
        crowd: bool[M].
        class_names: of the source, in its order.
        split: of all of them.
        candidates: the same pictures, to be taken the long way.
    """

    row_ids: Sequence[str]
    names: Sequence[str]
    sizes: npt.NDArray[np.float64]
    pictures: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float64]
    classes: npt.NDArray[np.int64]
    crowd: npt.NDArray[np.bool_]
    class_names: Sequence[str]
    split: str
    candidates: Callable[[], list[Candidate]]

    @property
    def visible(self) -> npt.NDArray[np.bool_]:
        """bool[M], as that of objects: whether the box holds anything."""
        return (self.boxes[:, 2] > 0) & (self.boxes[:, 3] > 0)
