"""Checks of pictures: by what is stated of them, and, at STRICT, by reading every one of them."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq

from finemesh.core.spec.data import ValidateOptions
from finemesh.data.faults import RowFault
from finemesh.data.images import DECODER_ERRORS, STILL, check_picture
from finemesh.data.similarity import Hashes, Pixels, hash_pixels, shrink
from finemesh.data.storage import load_manifest
from finemesh.data.validation.columns import Batch, Bools, Items
from finemesh.data.validation.findings import Findings, Found, Place, Told

_COLUMNS: Final = ("row_id", "images")
_TASK: Final = 16  # pictures looked at by one thread before it asks for more
_AHEAD: Final = 2  # groups of rows that are in memory at a time
_BLANK: Final = 0.5  # standard deviation in grey levels of a picture on which nothing is to be seen
Done = Callable[[int], None]
"""Told of rows whose pictures are done."""


def check_stated_sizes(batch: Batch, options: ValidateOptions, findings: Findings) -> None:
    """What the stated sizes tell: pictures that are missing, too large, or of an odd shape."""
    bare = np.flatnonzero((batch.images.lengths == 0) & (batch.objects.lengths > 0))
    findings.add_all("IMAGE_MISSING", bare, lambda row: (batch.place(row), "images", "objects without one"))
    sizes = batch.image_sizes

    def image(at: int, words: str = "") -> Told:
        row, slot = int(batch.images.rows[at]), int(batch.images.slots[at])
        return batch.place(row), f"images[{slot}]", f"{sizes[at, 0]} x {sizes[at, 1]}{words}"

    real = (sizes > 0).all(axis=1)
    findings.add_all("IMAGE_SIZE_MISMATCH", np.flatnonzero(~real), lambda at: image(at, " is no size"))
    large = sizes.prod(axis=1) > options.max_image_pixels
    limit = f" is more than {options.max_image_pixels} pixels"
    findings.add_all("IMAGE_TOO_LARGE", np.flatnonzero(real & large), lambda at: image(at, limit))
    ratio = sizes.max(axis=1, initial=1) / np.maximum(sizes.min(axis=1, initial=1 << 30), 1)
    odd = np.flatnonzero(real & (ratio > options.max_aspect_ratio))
    findings.add_all("ASPECT_RATIO", odd, lambda at: image(at, f" is {ratio[at]:.1f} to 1"))


@dataclass(frozen=True, slots=True)
class Hashed:
    """The perceptual hash of each picture, in order, and of which there is one.

    Attributes:
        hashes: uint64[pictures].
        known: bool[pictures]; false for those that could not be read, and for copies of one that was.
    """

    hashes: Hashes
    known: Bools


@dataclass(frozen=True, slots=True)
class _Look:
    """What came of looking at one picture."""

    found: tuple[Found, ...]
    pixels: Pixels | None = None
    digest: int = 0


@dataclass(frozen=True, slots=True)
class _Group:
    """Rows of one row group, their pictures being looked at."""

    batch: Batch
    looks: list[Future[list[_Look]]]


def check_pictures(dataset: Path, options: ValidateOptions, findings: Findings, done: Done) -> Hashed:
    """Read every picture to its end, on all cores. About two row groups are in memory at a time."""
    hashes: list[Hashes] = []
    known: list[Bools] = []
    groups: deque[_Group] = deque()
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    seen: set[int] = set()
    with ThreadPoolExecutor(workers, "pictures") as pool:
        for batch in _row_groups(dataset):
            groups.append(_Group(batch, list(_submit(pool, batch.images, options.max_image_pixels, seen))))
            if len(groups) >= _AHEAD:
                _collect(groups.popleft(), findings, hashes, known, done)
        while groups:
            _collect(groups.popleft(), findings, hashes, known, done)
    return Hashed(
        np.concatenate([np.zeros(0, np.uint64), *hashes]), np.concatenate([np.zeros(0, np.bool_), *known])
    )


def _row_groups(dataset: Path) -> Iterator[Batch]:
    """Rows with their pictures, as they were written together, which bounds their bytes."""
    first = 0
    for shard in load_manifest(dataset).shards:
        with pq.ParquetFile(dataset / shard.path) as file:
            for group in range(file.num_row_groups):
                for table in file.read_row_group(group, list(_COLUMNS)).to_batches():
                    yield Batch(first, table)
                    first += table.num_rows


def _submit(
    pool: ThreadPoolExecutor, images: Items, max_pixels: int, seen: set[int]
) -> Iterator[Future[list[_Look]]]:
    stated = [images.arrow(name).to_pylist() for name in ("sha256", "format", "width", "height")]
    data: Any = images.arrow("data")
    for begin in range(0, len(images), _TASK):
        part = slice(begin, begin + _TASK)
        yield pool.submit(_look_at, data[part], [column[part] for column in stated], max_pixels, seen)


def _look_at(data: Any, stated: Sequence[Sequence[Any]], max_pixels: int, seen: set[int]) -> list[_Look]:
    """Pictures one after the other. `seen` has the sound ones, which need no second look: several
    conversations may be about one.
    """
    looks: list[_Look] = []
    for value, *words in zip(data, *stated, strict=True):
        picture, key = value.as_py(), hash(tuple(words))  # of SHA-256, format and size
        if key in seen and hashlib.sha256(picture).hexdigest() == words[0]:
            looks.append(_Look(()))
            continue
        looks.append(_look(picture, *words, max_pixels=max_pixels))
        if not looks[-1].found:
            seen.add(key)
    return looks


def _look(data: bytes, sha256: str, form: str, width: int, height: int, *, max_pixels: int) -> _Look:
    """One picture, against what is stated of it."""
    if not data:
        return _Look((("IMAGE_MISSING", "", "it has no bytes"),))
    found: list[Found] = []
    digest = hashlib.sha256(data)
    if digest.hexdigest() != sha256:
        found.append(("IMAGE_HASH_MISMATCH", "", f"its digest is not {sha256[:12]}…"))
    try:
        picture = check_picture(data, STILL, max_pixels, decode=False)
        if (picture.width, picture.height) != (width, height):
            words = f"{picture.width} x {picture.height} instead of {width} x {height}"
            found.append(("IMAGE_SIZE_MISMATCH", "", words))
        if picture.format != form:
            found.append(("IMAGE_FORMAT_MISMATCH", "", f"{picture.format} instead of {form}"))
        pixels = shrink(data)
    except RowFault as fault:
        kind = "IMAGE_TOO_LARGE" if fault.reason == "IMAGE_TOO_LARGE" else "IMAGE_UNREADABLE"
        return _Look((*found, (kind, "", fault.message)))
    except DECODER_ERRORS as error:
        kind = "IMAGE_TRUNCATED" if _is_cut(data, str(error)) else "IMAGE_UNREADABLE"
        return _Look((*found, (kind, "", f"{len(data)} bytes: {error}")))
    if float(pixels.std()) < _BLANK:
        found.append(("IMAGE_BLANK", "", f"all of it has the grey level {pixels.mean():.0f} of 255"))
    return _Look(tuple(found), pixels, int.from_bytes(digest.digest()[:8], "big"))


def _is_cut(data: bytes, error: str) -> bool:
    """Whether a picture that cannot be decoded lacks its end, by its decoder's words or by its own length."""
    webp = data[:4] == b"RIFF" and len(data) < int.from_bytes(data[4:8], "little") + 8
    return webp or "truncat" in error.lower()


def _collect(group: _Group, findings: Findings, hashes: list[Hashes], known: list[Bools], done: Done) -> None:
    looks = [look for future in group.looks for look in future.result()]
    images = group.batch.images
    for at, look in enumerate(looks):
        if look.found:
            place: Place = group.batch.place(int(images.rows[at]))
            field = f"images[{images.slots[at]}]"
            findings.add(place, ((kind, field, evidence) for kind, _, evidence in look.found))
    read = np.array([look.pixels is not None for look in looks], np.bool_)
    values = np.zeros(len(looks), np.uint64)
    if read.any():
        pixels = np.stack([look.pixels for look in looks if look.pixels is not None])
        values[read] = hash_pixels(pixels, np.array([look.digest for look in looks], np.uint64)[read])
    hashes.append(values)
    known.append(read)
    done(group.batch.first + len(group.batch))
