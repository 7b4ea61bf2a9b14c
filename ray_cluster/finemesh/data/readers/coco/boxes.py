"""Parts of a COCO file as boxes in columns, where all of a part is sound."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np

from finemesh.data.boxes import BoxBatch, Numbers
from finemesh.data.readers.coco.join import ID_TYPES, FilePart
from finemesh.data.rows import Candidate


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
        try:
            return self._batch(part, candidates)
        except (KeyError, TypeError, ValueError, OverflowError):
            return None

    def _batch(self, part: FilePart, candidates: Callable[[], list[Candidate]]) -> BoxBatch:
        images, annotations = part.images, part.annotations.values
        row_ids = [f"{self._prefix}/{identity}" for identity in _ids(images)]
        names = [image["file_name"] for image in images]
        _require({*map(type, names)} <= {str} and len({*row_ids}) == len(row_ids))
        "".join([*row_ids, *names]).encode()  # fails for half a surrogate pair
        identities = [str(identity) for identity in _ids(annotations)]
        _require(len({*identities}) == len(identities))
        _require(not any("keypoints" in annotation or "score" in annotation for annotation in annotations))
        made = BoxBatch(
            row_ids,
            names,
            self._sizes(images),
            part.annotations.ordinals - part.first,
            _boxes(annotations),
            np.array([self._codes[identity] for identity in _ids(annotations, "category_id")], np.int64),
            np.array([annotation.get("iscrowd", 0) == 1 for annotation in annotations], np.bool_),
            self._names,
            self._split,
            candidates,
        )
        _require(not (made.outside & made.shown).any())
        return made

    def _sizes(self, images: Sequence[Any]) -> Numbers:
        sizes = _numbers([image[side] for image in images for side in ("width", "height")]).reshape(-1, 2)
        _require((sizes >= 1).all() and (sizes == np.floor(sizes)).all())
        _require((sizes.prod(axis=1) <= self._max_pixels).all())
        return sizes


def _require(sound: object) -> None:
    if not sound:
        raise ValueError


def _ids(values: Sequence[Any], key: str = "id") -> list[Any]:
    found = [value[key] for value in values]
    _require({*map(type, found)} <= ID_TYPES)
    return found


def _numbers(values: list[Any]) -> Numbers:
    _require({*map(type, values)} <= {int, float})
    found = np.array(values, np.float64)
    _require((np.abs(found) < 1e15).all())
    return found


def _boxes(annotations: Sequence[Any]) -> Numbers:
    boxes = [annotation["bbox"] for annotation in annotations]
    _require({*map(type, boxes)} <= {list} and {*map(len, boxes)} <= {4})
    found = _numbers(list(chain.from_iterable(boxes))).reshape(-1, 4)
    _require((found[:, 2:] >= 0).all())
    return found
