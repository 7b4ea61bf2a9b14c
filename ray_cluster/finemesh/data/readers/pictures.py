"""The pictures of a source, found by the names that annotations give them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cached_property
from pathlib import PurePosixPath
from typing import Final

import numpy as np

from finemesh.data.faults import RowFault
from finemesh.data.images import ABSENT, STILL, Picture, check_picture, check_size
from finemesh.data.readers.context import ReadContext
from finemesh.data.render import Renderer
from finemesh.data.rle import Mask, from_window, parse
from finemesh.data.schema import ObjectRow

# Also of kinds that are refused: a picture that cannot be kept must not look as if it were not there.
PICTURE_SUFFIXES: Final = (
    *(".jpg", ".jpeg", ".png", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff"),
    *(".avif", ".heic", ".heif", ".jp2", ".mpo", ".pfm", ".dng"),
)


def is_picture(name: str) -> bool:
    return name.lower().endswith(PICTURE_SUFFIXES)


class Pictures:
    """Pictures by whole path, by its end, or by base name.

    Attributes:
        names: of all pictures, sorted.
        files: names of all files of the source.
    """

    def __init__(self, context: ReadContext, *, without: Collection[str] = ()) -> None:
        """Pictures in folders called as one of `without` are masks or the like, and not found."""
        self._context = context
        self.max_pixels = context.options.max_image_pixels
        self.names = [
            name
            for name in context.source.names
            if is_picture(name) and not (without and {*without}.intersection(name.split("/")[:-1]))
        ]
        self.files = frozenset(context.source.names)

    @cached_property
    def _by_base(self) -> dict[str, list[str]]:
        """Made when a name is first not a whole path: it holds every name again."""
        by_base: dict[str, list[str]] = {}
        for name in self.names:
            by_base.setdefault(name.rpartition("/")[2], []).append(name)
        return by_base

    def find(self, name: str, field: str, *, folder: str = "") -> str:
        """The path of the picture that annotations call `name`. Among several that fit, the one in a folder
        called `folder` is meant. Raises RowFault (IMAGE_MISSING, IMAGE_AMBIGUOUS).
        """
        path = name.replace("\\", "/").removeprefix("./").lstrip("/")
        if path in self.files and is_picture(path):
            return path
        same_base = self._by_base.get(PurePosixPath(path).name, [])
        fitting = [each for each in same_base if each.endswith("/" + path)] or same_base
        within = [each for each in fitting if folder and folder in PurePosixPath(each).parts[:-1]]
        chosen = fitting if len(fitting) == 1 else within
        if len(chosen) == 1:
            return chosen[0]
        if fitting:
            listed = ", ".join(fitting[:4])
            message = f"{name} may be any of {listed}: name it with its folder"
            raise RowFault("IMAGE_AMBIGUOUS", message, field)
        message = f"the source has no picture {name!r}: put it in, or remove its annotations"
        raise RowFault("IMAGE_MISSING", message, field)

    def read(self, path: str) -> Picture:
        """The picture at `path`, whole. Raises RowFault (see check_picture; FILE_UNREADABLE)."""
        return check_picture(self._context.source.read(path), STILL, self.max_pixels, name=path)

    def get(
        self,
        name: str,
        size: tuple[int, int],
        objects: Sequence[ObjectRow],
        *,
        key: str,
        field: str,
        folder: str = "",
    ) -> Picture:
        """The picture called `name`, which must be of `size` (width, height in pixels). A source without any
        picture gets one that is rendered from `objects`, by the seed and `key`, with a warning.

        Raises:
            RowFault: as find and read; IMAGE_SIZE_MISMATCH.
        """
        check_size(*size, self.max_pixels)
        if not self.names and not self._context.needs.pictures:
            self._context.warn("images missing: annotations alone")
            return Picture(b"", "", *size, ABSENT, name)
        if not self.names:
            self._context.warn("images missing: rendered from masks")
            return Renderer(self._context.options.seed, key, *size).picture(drawn(objects, size))
        picture = self.read(self.find(name, field, folder=folder))
        if (picture.width, picture.height) != size:
            message = (
                f"the picture is {picture.width} x {picture.height}, but {size[0]} x {size[1]} is declared"
            )
            raise RowFault("IMAGE_SIZE_MISMATCH", message, field)
        return picture


def drawn(objects: Sequence[ObjectRow], size: tuple[int, int]) -> list[tuple[str, Mask]]:
    """Id and mask of the objects; the box stands for an object without a mask."""
    width, height = size
    masks: list[tuple[str, Mask]] = []
    for item in objects:
        if item["rle_counts"] is not None:
            value = {"size": [height, width], "counts": item["rle_counts"]}
            masks.append((item["object_id"], parse(value, "objects")))
        elif item["visible"]:
            masks.append((item["object_id"], _boxed(item["bbox"], width, height)))
    return masks


def _boxed(box: list[float], width: int, height: int) -> Mask:
    left, right = (round(min(max(edge, 0), width)) for edge in (box[0], box[0] + box[2]))
    top, bottom = (round(min(max(edge, 0), height)) for edge in (box[1], box[1] + box[3]))
    return from_window(np.ones((bottom - top, right - left), dtype=np.bool_), left, top, (width, height))
