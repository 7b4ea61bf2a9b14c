"""Parts of a COCO file as boxes in columns, where all of a part is sound."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from finemesh.data.boxes import BoxBatch
from finemesh.data.polygons import is_number
from finemesh.data.readers.coco.join import FilePart, is_id
from finemesh.data.rows import Candidate

_NUMBERS = {int, float}
_IDS = {int, str}


class BoxMaker:
    """Makes batches of the images of one file. `categories` are its category names, as found, by id;
    `prefix` is what the ids of its rows begin with.
    """

    def __init__(self, categories: dict[Any, Any], prefix: str, split: str, max_pixels: int) -> None:
        self._prefix, self._split, self._max_pixels = prefix, split, max_pixels
        sound = all(isinstance(name, str) and name.strip() for name in categories.values())
        named = {identity: name.strip() for identity, name in categories.items()} if sound else {}
        self._names = list(dict.fromkeys(named.values()))
        codes = {name: code for code, name in enumerate(self._names)}
        self._codes = {identity: codes[name] for identity, name in named.items()}

    def batch(self, part: FilePart, candidates: Callable[[], list[Candidate]]) -> BoxBatch | None:
        """None if there is anything about the part that row by row would get a fault, or has no column."""
        images, annotations = part.images, [annotation for _, _, annotation in part.annotations]
        if not self._are_sound(images) or not _are_boxes(annotations):
            return None
        row_ids = [f"{self._prefix}/{image['id']}" for image in images]
        names = [image["file_name"] for image in images]
        codes = [self._codes.get(annotation["category_id"]) for annotation in annotations]
        if None in codes or len(set(row_ids)) < len(row_ids) or not _encodable([*row_ids, *names]):
            return None
        sizes = np.array([(image["width"], image["height"]) for image in images], np.float64)
        made = BoxBatch(
            row_ids,
            names,
            sizes,
            np.array([ordinal for ordinal, _, _ in part.annotations], np.int64) - part.first,
            np.array([annotation["bbox"] for annotation in annotations], np.float64).reshape(-1, 4),
            np.array(codes, np.int64),
            np.array([annotation.get("iscrowd", 0) == 1 for annotation in annotations], np.bool_),
            self._names,
            self._split,
            candidates,
        )
        return _in_order(made) if _is_placed(made) else None

    def _are_sound(self, images: Sequence[Any]) -> bool:
        return all(
            isinstance(image, dict)
            and is_id(image.get("id"))
            and isinstance(image.get("file_name"), str)
            and _is_side(image.get("width"))
            and _is_side(image.get("height"))
            and image["width"] * image["height"] <= self._max_pixels
            for image in images
        )


def _is_side(value: Any) -> bool:
    return is_number(value) and value >= 1 and value == int(value)


def _are_boxes(annotations: Sequence[dict[str, Any]]) -> bool:
    """Whether each has an id, a category and a box of four numbers, and nothing that must be judged."""
    try:
        boxes = [annotation["bbox"] for annotation in annotations]
        ids = [annotation["id"] for annotation in annotations]
        return (
            {type(box) for box in boxes} <= {list}
            and {len(box) for box in boxes} <= {4}
            and {type(number) for box in boxes for number in box} <= _NUMBERS
            and {type(identity) for identity in ids} <= _IDS
            and {type(annotation["category_id"]) for annotation in annotations} <= _IDS
            and len({str(identity) for identity in ids}) == len(ids)
            and not any("keypoints" in annotation or "score" in annotation for annotation in annotations)
        )
    except KeyError:
        return False


def _is_placed(batch: BoxBatch) -> bool:
    """Whether all boxes are finite, and those that will be written reach into their picture."""
    boxes = batch.boxes
    if not (np.abs(boxes) < 1e15).all() or (boxes[:, 2:] < 0).any():
        return False
    shown = batch.visible & ~batch.crowd
    near = np.maximum(boxes[shown, :2], 0.0)
    far = np.minimum(boxes[shown, :2] + boxes[shown, 2:], batch.sizes[batch.pictures[shown]])
    return bool((far > near).all())


def _in_order(batch: BoxBatch) -> BoxBatch:
    """By picture; within a picture as they came."""
    pictures = batch.pictures
    if (pictures[1:] >= pictures[:-1]).all():
        return batch
    order = np.argsort(pictures, kind="stable")
    columns = (pictures[order], batch.boxes[order], batch.classes[order], batch.crowd[order])
    rest = (batch.class_names, batch.split, batch.candidates)
    return BoxBatch(batch.row_ids, batch.names, batch.sizes, *columns, *rest)


def _encodable(texts: Sequence[str]) -> bool:
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:  # half a surrogate pair
        return False
    return True
