"""Which sample comes when: a pure function of seed, epoch and row ids, and a hash over what was consumed.

Nothing here depends on the machine, on library versions or on the order of the shards, so a resumed run on
another machine sees the same samples in the same order. Where samples are grouped by size, their sizes count
too, and these follow from the tokenizer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

EMPTY_HASH = hashlib.sha256(b"").hexdigest()
# Samples are sorted by size within so many batches: more would save little padding, and mix less.
_SORTED_BATCHES: Final = 64


@dataclass(frozen=True, slots=True)
class Grouping:
    """Batches of `batch` samples whose `sizes`, by index, are about equal."""

    sizes: Sequence[int]
    batch: int


def epoch_order(row_ids: Sequence[str], seed: int, epoch: int) -> list[int]:
    """A permutation of the indices of `row_ids`: sorted by SHA-256 of (seed, epoch, row id)."""

    def key(index: int) -> bytes:
        return hashlib.sha256(f"{seed}\0{epoch}\0{row_ids[index]}".encode()).digest()

    return sorted(range(len(row_ids)), key=key)


def grouped_order(order: Sequence[int], grouping: Grouping, seed: int, epoch: int) -> list[int]:
    """The permutation `order` of an epoch, rearranged so that batches have samples of about one size.

    The order is cut into portions of many batches; each is sorted by size and cut into batches, and all
    batches are shuffled. What fills up the last batch of the epoch before comes first, as it was, and so does
    what is left over at the end come last.
    """
    batch = grouping.batch
    first = -epoch * len(order) % batch
    left_over = max(0, len(order) - first) % batch
    head, middle = order[:first], order[first : len(order) - left_over]
    portion = batch * max(1, min(_SORTED_BATCHES, len(order) // (4 * batch)))
    batches: list[list[int]] = []
    for start in range(0, len(middle), portion):
        by_size = sorted(middle[start : start + portion], key=lambda index: grouping.sizes[index])
        batches += [by_size[at : at + batch] for at in range(0, len(by_size), batch)]
    shuffled = epoch_order([f"batch {number}" for number in range(len(batches))], seed, epoch)
    grouped = [index for number in shuffled for index in batches[number]]
    return [*head, *grouped, *order[first + len(grouped) :]]


class SampleOrder:
    """The endless stream of sample indices, epoch after epoch, addressable by position."""

    def __init__(self, row_ids: Sequence[str], seed: int, grouping: Grouping | None = None) -> None:
        self._row_ids = row_ids
        self._seed = seed
        self._grouping = grouping
        self._epoch = -1
        self._order: list[int] = []

    def take(self, start: int, count: int) -> list[int]:
        """Indices of the samples at positions `start` to `start + count`."""
        return [self._at(position) for position in range(start, start + count)]

    def _at(self, position: int) -> int:
        epoch, offset = divmod(position, len(self._row_ids))
        if epoch != self._epoch:
            order = epoch_order(self._row_ids, self._seed, epoch)
            if self._grouping:
                order = grouped_order(order, self._grouping, self._seed, epoch)
            self._epoch, self._order = epoch, order
        return self._order[offset]


def roll(digest: str, items: Iterable[str]) -> str:
    """Extend a rolling hash: SHA-256 in hex of the digest so far and each item in turn."""
    for item in items:
        digest = hashlib.sha256(f"{digest}\0{item}".encode()).hexdigest()
    return digest


def digest_of(items: Iterable[str]) -> str:
    """A digest over items in any order."""
    return roll(EMPTY_HASH, sorted(items))
