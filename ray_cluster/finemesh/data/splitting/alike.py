"""Which pictures of a dataset look alike: every distinct picture is read once, by all cores."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from finemesh.data.similarity import (
    SIDE,
    Hashes,
    Pairs,
    Pixels,
    digest_of,
    hash_pixels,
    iter_similar_pairs,
    shrink,
)
from finemesh.data.storage import iter_batches

_COLUMNS: Final = ("images.list.element.sha256", "images.list.element.data")
_WINDOW: Final = 64  # pictures that are held at a time
# What Pillow raises of a picture that is broken, or too large to be decoded without being asked to.
_UNREADABLE: Final = (
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    OverflowError,
    LookupError,
    struct.error,
)


@dataclass(frozen=True, slots=True, eq=False)
class AlikePictures:
    """The distinct pictures of a dataset, and how alike they are.

    Attributes:
        places: of each picture by its SHA-256, the place of its hash. Pictures in one place are alike.
        hashes: uint64[N], perceptual, each once: k equal ones would make k (k - 1) / 2 pairs.
        max_bits: hashes that differ in at most so many bits are alike.
        unreadable: pictures that could not be decoded, and are like none.
    """

    places: Mapping[str, int]
    hashes: Hashes
    max_bits: int
    unreadable: int = 0

    @classmethod
    def of(cls, pictures: Iterable[str], hashes: Hashes, max_bits: int, unreadable: int = 0) -> AlikePictures:
        """From the SHA-256 and the hash of each picture."""
        distinct, places = np.unique(hashes, return_inverse=True)
        return cls(dict(zip(pictures, places.tolist(), strict=True)), distinct, max_bits, unreadable)

    def pairs(self) -> Iterator[Pairs]:
        """int64[M, 2], different places that are alike, each pair once, in blocks of bounded size."""
        return (block for block in iter_similar_pairs(self.hashes, self.max_bits) if len(block))


def compare_pictures(dataset: Path, max_bits: int, progress: Callable[[int], None]) -> AlikePictures:
    """Read all pictures of a canonical dataset, a window at a time. `progress` is told the rows of each
    batch. Raises as `iter_batches`.
    """
    seen: dict[str, None] = {}
    hashes: list[Hashes] = [np.empty(0, np.uint64)]
    unreadable = 0
    pictures = _distinct(dataset, seen, progress)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while window := list(islice(pictures, _WINDOW)):
            shrunk = list(pool.map(_shrink, window))
            unreadable += sum(pixels is None for pixels in shrunk)
            hashes.append(_hashes(shrunk, window))
    return AlikePictures.of(seen, np.concatenate(hashes), max_bits, unreadable)


def _distinct(dataset: Path, seen: dict[str, None], progress: Callable[[int], None]) -> Iterator[bytes]:
    """The pictures, each once; those that came are in `seen` by their SHA-256, in this order."""
    for batch in iter_batches(dataset, _COLUMNS):
        pictures: Any = batch.column("images").flatten()
        data = pictures.field("data")
        for place, digest in enumerate(pictures.field("sha256").to_pylist()):
            if digest not in seen:
                seen[digest] = None
                yield data[place].as_py()
        progress(batch.num_rows)


def _shrink(data: bytes) -> Pixels | None:
    try:
        return shrink(data)
    except _UNREADABLE:
        return None


def _hashes(shrunk: list[Pixels | None], pictures: list[bytes]) -> Hashes:
    """A picture that could not be read is hashed as one of one colour is: by its bytes."""
    blank = np.zeros((SIDE, SIDE), np.uint8)
    pixels = np.stack([blank if each is None else each for each in shrunk])
    return hash_pixels(pixels, np.array([digest_of(data) for data in pictures], np.uint64))
