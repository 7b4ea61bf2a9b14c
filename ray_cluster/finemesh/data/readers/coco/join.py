"""Images of a COCO file with their annotations, which may stand anywhere in it, in memory that does not grow
with the file.

A small file is held. Of a large one the images and the annotations are written, in parts of some
images, to a scratch folder (Grace hash join: Kitsuregawa et al. 1983, with the images' order in place of the
hash), and read back part by part.
"""

from __future__ import annotations

import gc
import json
import shutil
import tempfile
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import orjson

from finemesh.core.errors import InvalidError
from finemesh.data.faults import RowFault
from finemesh.data.jsonio import malformed_annotations
from finemesh.data.jsonstream import Piece, iter_pieces, loads
from finemesh.data.readers.context import ReadContext

HELD_BYTES: Final = 16 << 20
PART_IMAGES: Final = 128
PART_IMAGES_WITH_MASKS: Final = 32  # outlines can be a hundred times as large as boxes
ID_TYPES: Final = frozenset({int, str})

Numbered = tuple[int, dict[str, Any]]
"""The index of an annotation in its file, and the annotation."""
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Placed:
    """Annotations.

    Attributes:
        ordinals: of each the index of its image, -1 without one.
        positions: of each its own index in its file.
    """

    ordinals: Indices
    positions: Indices
    values: Sequence[dict[str, Any]]

    def numbered(self) -> list[Numbered]:
        return list(zip(self.positions.tolist(), self.values, strict=True))

    def by_image(self) -> Placed:
        """In the order of their images; those of one as they came."""
        order = np.argsort(self.ordinals, kind="stable")
        values = [self.values[index] for index in order.tolist()]
        return Placed(self.ordinals[order], self.positions[order], values)

    def between(self, low: int, high: int) -> Placed:
        """Of the images from `low` to before `high`, if they are in the order of their images."""
        begin, end = np.searchsorted(self.ordinals, (low, high)).tolist()
        return Placed(self.ordinals[begin:end], self.positions[begin:end], self.values[begin:end])


@dataclass(frozen=True, slots=True)
class FilePart:
    """Some images, one after the other.

    Attributes:
        first: index of the first one in the file.
        annotations: theirs, in the order of the images.
    """

    first: int
    images: Sequence[Any]
    annotations: Placed

    def rows(self) -> Iterator[tuple[int, Any, list[Numbered]]]:
        """Index and value of every image with its annotations."""
        for ordinal, image in enumerate(self.images, start=self.first):
            yield ordinal, image, self.annotations.between(ordinal, ordinal + 1).numbered()


class CocoFile:
    """The COCO file `name`, with its annotations, or those of the results file `annotations`.

    Attributes:
        images, orphans: how many images there are, and annotations without one.
        categories: name, as found, by id.
        header: what stands at the top beside images and annotations.

    Raises:
        InvalidError: MALFORMED_JSON, MALFORMED_ANNOTATIONS, FILE_UNREADABLE.
    """

    def __init__(self, context: ReadContext, name: str, annotations: str) -> None:
        self._source = context.source
        self.name, self._annotations_name = name, annotations
        self.images = self.orphans = 0
        self.header: dict[str, Any] = {}
        self.categories: dict[Any, Any] = {}
        self._ordinals: dict[Any, int] = {}
        masks, held = context.needs.masks, self._size() <= HELD_BYTES
        self._part_images = PART_IMAGES_WITH_MASKS if masks else PART_IMAGES
        self._store = _Held(self._part_images) if held else _Spilled(self._part_images, masks=masks)

    def __enter__(self) -> Self:
        try:
            self._load()
        except BaseException:
            self._store.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._store.close()

    def parts(self) -> Iterator[FilePart]:
        """All images, in order, some at a time, with their annotations."""
        for number, first in enumerate(range(0, self.images, self._part_images)):
            yield FilePart(first, *self._store.part(number))

    def lost(self) -> list[Numbered]:
        """Annotations whose image is not listed."""
        return self._store.part(-1)[1].numbered()

    def _size(self) -> int:
        """Of the files in bytes."""
        try:
            return sum(self._source.size(each) for each in {self.name, self._annotations_name})
        except RowFault as fault:
            raise InvalidError(fault.message, reason=fault.reason, metadata={"file": self.name}) from fault

    def _load(self) -> None:
        own = self.name == self._annotations_name
        skip, seen = {"annotations"}, set[str]()
        placed = False
        for piece in self._pieces(self.name, skip):
            seen.add(piece.key)
            if piece.key in {"images", "annotations"} and piece.first < 0:
                raise malformed_annotations(self.name, piece.key, "is not a list")
            if piece.key == "images":
                self._add_images(piece.values)
                if own:
                    skip.clear()  # what follows can be placed
            elif piece.key != "annotations":
                self._add_header(piece.key, piece.first, piece.values)
            elif not skip:
                self._add_annotations(piece.first, piece.values)
                placed = True
        for key in ("images", "annotations"):
            if key not in seen:
                raise malformed_annotations(self.name, key, "is missing")
        self._name_categories()
        if not placed:
            self._load_annotations(seen)
        self._ordinals.clear()  # all are placed

    def _load_annotations(self, keys: Collection[str]) -> None:
        """Those of the results file; or of the file with these keys, once its images are known."""
        own = self.name == self._annotations_name
        wanted = "annotations" if own else ""
        for piece in self._pieces(self._annotations_name, {*keys} - {wanted}):
            if not own and piece.key != wanted:
                raise malformed_annotations(self._annotations_name, "the top", "is not a list of results")
            if piece.key == wanted:
                self._add_annotations(piece.first, piece.values)

    def _pieces(self, name: str, skip: Collection[str]) -> Iterator[Piece]:
        try:
            if isinstance(self._store, _Held):  # it is held anyway: all of it at once is faster
                with _without_collecting():
                    value = loads(self._source.read(name), name)
                yield from whole_pieces(value)
                return
            with self._source.open(name) as stream:
                yield from iter_pieces(stream, name, skip=skip)
        except RowFault as fault:
            raise InvalidError(fault.message, reason=fault.reason, metadata={"file": name}) from fault

    def _add_images(self, values: list[Any]) -> None:
        for ordinal, image in enumerate(values, start=self.images):
            identity = image.get("id") if isinstance(image, dict) else None
            if is_id(identity):
                self._ordinals.setdefault(identity, ordinal)
        self._store.add_images(self.images, values)
        self.images += len(values)

    def _add_header(self, key: str, first: int, values: list[Any]) -> None:
        if first < 0:
            self.header[key] = values[0]
        else:
            self.header.setdefault(key, []).extend(values)

    def _name_categories(self) -> None:
        table = self.header.get("categories", [])
        if not isinstance(table, list):
            raise malformed_annotations(self.name, "categories", "is not a list")
        for index, item in enumerate(table):
            if not isinstance(item, dict) or not is_id(item.get("id")):
                raise malformed_annotations(self.name, f"categories[{index}]", "is not an object with an id")
            self.categories[item["id"]] = item.get("name")

    def _add_annotations(self, first: int, values: list[Any]) -> None:
        for position, annotation in enumerate(values, start=first):
            if not isinstance(annotation, dict):
                where = f"annotations[{position}]"
                raise malformed_annotations(self._annotations_name, where, "is not an object")
        ids = [annotation.get("image_id") for annotation in values]
        known = self._ordinals.get
        places = [known(identity, -1) if type(identity) in ID_TYPES else -1 for identity in ids]
        ordinals = np.array(places, np.int64)
        self.orphans += int((ordinals < 0).sum())
        self._store.add_annotations(Placed(ordinals, np.arange(first, first + len(values)), values))


@contextmanager
def _without_collecting() -> Generator[None]:
    """No cyclic garbage is looked for while thousands of values are made of which none is garbage."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def whole_pieces(value: Any) -> Iterator[Piece]:
    """A value as `iter_pieces` would give it, each list whole, and the annotations last."""
    tables = value if isinstance(value, dict) else {"": value}
    for key, table in sorted(tables.items(), key=lambda item: item[0] == "annotations"):
        yield Piece(key, 0, table) if isinstance(table, list) else Piece(key, -1, [table])


def is_id(value: object) -> bool:
    return type(value) in ID_TYPES


_NONE: Final = Placed(np.zeros(0, np.int64), np.zeros(0, np.int64), [])


class _Held:
    """Everything in memory; each list of a file comes whole."""

    def __init__(self, part_images: int) -> None:
        self._part_images = part_images
        self._images: list[Any] = []
        self._annotations = _NONE

    def add_images(self, first: int, images: list[Any]) -> None:
        del first
        self._images = images

    def add_annotations(self, placed: Placed) -> None:
        self._annotations = placed.by_image()

    def part(self, number: int) -> tuple[list[Any], Placed]:
        """Images and annotations of a part; part -1 has the annotations without an image."""
        if number < 0:
            return [], self._annotations.between(-1, 0)
        begin, end = number * self._part_images, (number + 1) * self._part_images
        return self._images[begin:end], self._annotations.between(begin, end)

    def close(self) -> None:
        """Nothing is open."""


class _Spilled:
    """Everything in a scratch folder: two files per part, whose lines are lists of what came together:
    images, or of each annotation the index of its image, its own, and itself; without `masks`, the outlines
    of what has a box, which are nearly all of a large file, stay away.
    """

    def __init__(self, part_images: int, *, masks: bool) -> None:
        self._part_images, self._masks = part_images, masks
        self._root = Path(tempfile.mkdtemp(prefix="finemesh-coco-"))

    def add_images(self, first: int, images: list[Any]) -> None:
        groups: dict[int, list[Any]] = {}
        for ordinal, image in enumerate(images, start=first):
            groups.setdefault(ordinal // self._part_images, []).append(image)
        self._append("i", groups)

    def add_annotations(self, placed: Placed) -> None:
        for annotation in placed.values if not self._masks else ():
            if annotation.get("bbox") is not None:
                annotation.pop("segmentation", None)
        groups: dict[int, list[Any]] = {}
        for each in zip(placed.ordinals.tolist(), placed.positions.tolist(), placed.values, strict=True):
            groups.setdefault(each[0] // self._part_images, []).append(each)  # -1 of an orphan stays -1
        self._append("a", groups)

    def _append(self, kind: str, groups: Mapping[int, list[Any]]) -> None:
        for number, values in groups.items():
            with (self._root / f"{kind}{number}").open("ab") as file:
                file.write(_dumps(values) + b"\n")

    def part(self, number: int) -> tuple[list[Any], Placed]:
        """As that of _Held."""
        triples = self._values(f"a{number}")
        if not triples:
            return self._values(f"i{number}"), _NONE
        ordinals, positions, values = zip(*triples, strict=True)
        placed = Placed(np.array(ordinals, np.int64), np.array(positions, np.int64), values)
        return self._values(f"i{number}"), placed.by_image()

    def _values(self, name: str) -> list[Any]:
        try:
            with (self._root / name).open("rb") as lines:
                return [value for line in lines for value in loads(line, name)]
        except FileNotFoundError:
            return []

    def close(self) -> None:
        shutil.rmtree(self._root, ignore_errors=True)


def _dumps(values: list[Any]) -> bytes:
    """One line of JSON; whole numbers beyond 64 bits by the library that knows them."""
    try:
        return orjson.dumps(values)
    except TypeError:
        return json.dumps(values).encode()


def drop_keys(value: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """`value` without some of its keys."""
    return {key: item for key, item in value.items() if key not in keys}
