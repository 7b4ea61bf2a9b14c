"""Pictures that look alike: a perceptual hash of each, and all pairs whose hashes are close.

The hash is the sign pattern of the 8 x 8 lowest frequencies (DCT-II) of the picture in grey at 32 x 32, each
against their median, after C. Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions"
(2010). Of 64 bits, a picture that was recompressed, scaled or watermarked differs in a few and another
picture in about 32. It was chosen over the gradient hash (dHash), which costs the same: among 700 photographs
and drawn scenes that one took a hundred times as many pairs for alike at 4 bits, and missed more of the
altered copies.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator
from itertools import combinations
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

Hashes = npt.NDArray[np.uint64]
Pairs = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.uint8]

SIDE: Final = 32
"""Width and height in pixels of what a hash is made from."""
ALIKE_BITS: Final = 4
"""Of so many different bits or fewer it is safe to say that two pictures look alike."""

_FREQUENCIES: Final = 8
_COSINES: Final = np.cos(np.pi * np.outer(np.arange(_FREQUENCIES), 2 * np.arange(SIDE) + 1) / (2 * SIDE))
_FLAT: Final = 1.0  # standard deviation in grey levels, below which there is nothing to see but noise
_BATCH: Final = 256
_BANDS: Final = 4
_BAND_BITS: Final = 16
_MAX_RADIUS: Final = 4  # in a band; with more there are as many places to look in as there are hashes
_BLOCK: Final = 1 << 20  # pairs that are looked at at once


def shrink(data: bytes) -> Pixels:
    """uint8[SIDE, SIDE], the picture in grey. All of the file is read, but a JPEG is decoded no larger than
    needed. Raises what PIL raises for data that is no picture, or a broken one.
    """
    with Image.open(io.BytesIO(data)) as image:
        image.draft("L", (SIDE, SIDE))
        return shrink_image(image)


def shrink_image(image: Image.Image) -> Pixels:
    """As `shrink`, of a picture that is open already."""
    if image.mode.startswith("I;16"):  # "L" would clip 16 bits at 255
        grey = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    else:
        grey = image.convert("L")
    return np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BOX))


def hash_pixels(pixels: Pixels, digests: Hashes) -> Hashes:
    """uint64[N], the hashes of pictures uint8[N, SIDE, SIDE].

    A picture of one colour has no pattern, and would be like any other such: it gets its digest of
    `digests`, uint64[N], so that it is like none that is not the same file.
    """
    grey = pixels.astype(np.float64)
    # Rounded, so that frequencies that are not there are equal on every machine.
    waves = np.round(_COSINES @ grey @ _COSINES.T, 1).reshape(len(grey), -1)
    bits = waves > np.median(waves, axis=1, keepdims=True)
    hashes = np.packbits(bits, axis=1).view(">u8")[:, 0].astype(np.uint64)
    return np.where(grey.std(axis=(1, 2)) < _FLAT, digests, hashes)


def digest_of(data: bytes) -> int:
    """64 bits of the SHA-256 of an encoded picture."""
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "big")


def picture_hash(data: bytes) -> int:
    """The hash of an encoded picture, 64 bits. Raises as `shrink`."""
    return int(hashes_of([data])[0])


def hashes_of(pictures: Iterable[bytes]) -> Hashes:
    """uint64[N], the hashes of encoded pictures, of which few are held at a time. Raises as `shrink`."""
    done: list[Hashes] = [np.empty(0, np.uint64)]
    pixels: list[Pixels] = []
    digests: list[int] = []
    for data in pictures:
        pixels.append(shrink(data))
        digests.append(digest_of(data))
        if len(pixels) == _BATCH:
            done.append(hash_pixels(np.stack(pixels), np.array(digests, np.uint64)))
            pixels, digests = [], []
    if pixels:
        done.append(hash_pixels(np.stack(pixels), np.array(digests, np.uint64)))
    return np.concatenate(done)


def similar_pairs(hashes: Hashes, max_bits: int) -> Pairs:
    """int64[M, 2], all i < j whose hashes differ in at most `max_bits` bits, each pair once, sorted.

    k equal hashes make k (k - 1) / 2 pairs: leave out copies of one file before.
    """
    blocks = list(iter_similar_pairs(hashes, max_bits))
    pairs = np.concatenate([np.empty((0, 2), np.int64), *blocks])
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def iter_similar_pairs(hashes: Hashes, max_bits: int) -> Iterator[Pairs]:
    """As `similar_pairs`, in blocks and in no order, so that memory is bounded.

    Hashes that differ in few bits are nearly equal in one of four bands of 16 bits: of 4 r + a differing
    bits, a band of the first a + 1 has at most r, or another has at most r - 1. So only those are compared
    that agree so far in a band; M. Norouzi, A. Punjani, D. J. Fleet, "Fast Exact Search in Hamming Space with
    Multi-Index Hashing" (2014).
    """
    radii = [max_bits // _BANDS - (band > max_bits % _BANDS) for band in range(_BANDS)]
    if max(radii) > _MAX_RADIUS or 2 * sum(len(_flips(radius)) for radius in radii) >= len(hashes):
        yield from _compare_all(hashes, max_bits)
        return
    bands = [(hashes >> np.uint64(_BAND_BITS * band)).astype(np.uint16) for band in range(_BANDS)]
    for band in range(_BANDS):
        for first, second in _near_in_band(bands[band], radii[band]):
            apart = hashes[first] ^ hashes[second]
            found = np.bitwise_count(apart) <= max_bits
            for earlier in range(band):  # found there already
                part = (apart >> np.uint64(_BAND_BITS * earlier)).astype(np.uint16)
                found &= np.bitwise_count(part).astype(np.int64) > radii[earlier]
            yield np.column_stack((first[found], second[found]))


def _near_in_band(values: npt.NDArray[np.uint16], radius: int) -> Iterator[tuple[Pairs, Pairs]]:
    """Pairs i < j of values that differ in at most `radius` bits, as two arrays, in blocks."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.searchsorted(ordered, np.arange((1 << _BAND_BITS) + 1))
    sizes = np.diff(starts)
    for flip in _flips(radius):
        partners = ordered ^ np.uint16(flip)
        for begin, end in _blocks(sizes[partners]):
            counts = sizes[partners[begin:end]]
            ends = np.cumsum(counts)
            within = np.arange(ends[-1]) - np.repeat(ends - counts, counts)
            first = np.repeat(order[begin:end], counts)
            second = order[np.repeat(starts[partners[begin:end]], counts) + within]
            rising = first < second
            yield first[rising], second[rising]


def _flips(radius: int) -> list[int]:
    """All numbers of 16 bits of which at most `radius` are set; none for a negative radius."""
    return [
        sum(1 << bit for bit in bits)
        for count in range(radius + 1)
        for bits in combinations(range(_BAND_BITS), count)
    ]


def _blocks(counts: npt.NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Ranges of `counts` that sum to about a block each, and to more only where a single count does."""
    ends = np.cumsum(counts)
    begin = 0
    while begin < len(counts) and ends[-1] > (done := int(ends[begin - 1]) if begin else 0):
        end = max(int(np.searchsorted(ends, done + _BLOCK, side="right")), begin + 1)
        if ends[end - 1] > done:
            yield begin, end
        begin = end


def _compare_all(hashes: Hashes, max_bits: int) -> Iterator[Pairs]:
    """For few hashes, or many bits: each with each."""
    step = max(_BLOCK // max(len(hashes), 1), 1)
    for begin in range(0, len(hashes), step):
        apart = hashes[begin : begin + step, None] ^ hashes[None, begin:]
        first, second = np.nonzero(np.bitwise_count(apart) <= max_bits)
        rising = first < second
        yield np.column_stack((first[rising], second[rising])) + begin
