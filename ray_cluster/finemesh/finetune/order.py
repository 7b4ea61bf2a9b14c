"""Which sample comes when: a pure function of seed, epoch and row ids, and a hash over what was consumed.

Nothing here depends on the machine, on library versions or on the order of the shards, so a resumed run on
another machine sees the same samples in the same order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

EMPTY_HASH = hashlib.sha256(b"").hexdigest()


def epoch_order(row_ids: Sequence[str], seed: int, epoch: int) -> list[int]:
    """A permutation of the indices of `row_ids`: sorted by SHA-256 of (seed, epoch, row id)."""

    def key(index: int) -> bytes:
        return hashlib.sha256(f"{seed}\0{epoch}\0{row_ids[index]}".encode()).digest()

    return sorted(range(len(row_ids)), key=key)


class SampleOrder:
    """The endless stream of sample indices, epoch after epoch, addressable by position."""

    def __init__(self, row_ids: Sequence[str], seed: int) -> None:
        self._row_ids = row_ids
        self._seed = seed
        self._epoch = -1
        self._order: list[int] = []

    def take(self, start: int, count: int) -> list[int]:
        """Indices of the samples at positions `start` to `start + count`."""
        return [self._at(position) for position in range(start, start + count)]

    def _at(self, position: int) -> int:
        epoch, offset = divmod(position, len(self._row_ids))
        if epoch != self._epoch:
            self._epoch, self._order = epoch, epoch_order(self._row_ids, self._seed, epoch)
        return self._order[offset]


def roll(digest: str, items: Iterable[str]) -> str:
    """Extend a rolling hash: SHA-256 in hex of the digest so far and each item in turn."""
    for item in items:
        digest = hashlib.sha256(f"{digest}\0{item}".encode()).hexdigest()
    return digest


def digest_of(items: Iterable[str]) -> str:
    """A digest over items in any order."""
    return roll(EMPTY_HASH, sorted(items))
