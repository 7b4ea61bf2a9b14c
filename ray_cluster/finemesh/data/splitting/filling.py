"""Giving groups to splits so that each split gets its share of the rows."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final

from finemesh.core.spec.data import Split
from finemesh.data.splitting.groups import Group
from finemesh.data.splitting.keys import RowKey

_ROUNDING: Final = 1e-6  # rows; shares of a count are not exact


class Shares:
    """The rows that each split still lacks, while groups are given to them.

    When every group goes to the split that lacks most, or to one that it does not overfill, no split is off
    by more than the largest group: a split that was overfilled lacked most, so no other lacks more than it
    got too much beyond that group. Only to leave no split empty may more be needed.
    """

    def __init__(self, ratios: Mapping[Split, float], rows: int, groups: int) -> None:
        self._lacking = {split: share * rows for split, share in ratios.items()}
        self._empty = set(ratios)
        self._groups = groups

    def lacking(self, split: Split) -> float:
        return self._lacking[split]

    def most_lacking(self) -> Split:
        return max(self._waiting(), key=self.lacking)

    def room_for(self, rows: int) -> list[Split]:
        """The splits that a group of so many rows may go to, at least one."""
        fitting = [split for split in self._waiting() if self._lacking[split] >= rows - _ROUNDING]
        return fitting or [self.most_lacking()]

    def give(self, split: Split, rows: int) -> None:
        """A group of so many rows goes to `split`."""
        self._lacking[split] -= rows
        self._empty.discard(split)
        self._groups -= 1

    def _waiting(self) -> list[Split]:
        """All splits, or the empty ones when there are no more groups than those."""
        only_empty = self._groups <= len(self._empty)
        return [split for split in self._lacking if not only_empty or split in self._empty]


def in_drawn_order(groups: Sequence[Group], keys: Sequence[RowKey], seed: int) -> list[Group]:
    """The groups in an order that the seed draws, whatever order they come in."""
    return sorted(
        groups, key=lambda group: hashlib.sha256(f"{seed}\0{keys[group[0]].row_id}".encode()).digest()
    )


def fill(groups: Sequence[Group], ratios: Mapping[Split, float]) -> list[Split]:
    """The split of each group: the one that lacks most rows when its turn comes."""
    shares = Shares(ratios, sum(map(len, groups)), len(groups))
    splits: list[Split] = []
    for group in groups:
        split = shares.most_lacking()
        shares.give(split, len(group))
        splits.append(split)
    return splits
