"""Rows that must stay together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from finemesh.data.splitting.alike import AlikePictures
from finemesh.data.splitting.keys import RowKey

_FEW: Final = 1000  # pairs

Group = list[int]
"""Places of rows that lie in one split, rising."""
Tie = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Groups:
    """Rows in groups, by their ties and by pictures that are the same.

    Attributes:
        apart: without a look at similar pictures.
        tied: with it.
    """

    apart: list[Group]
    tied: list[Group]


class _Sets:
    """Disjoint sets of the numbers below `count`, each named by the least of its members."""

    def __init__(self, count: int) -> None:
        self._above = list(range(count))

    def find(self, member: int) -> int:
        above = self._above
        while above[member] != member:
            above[member] = member = above[above[member]]
        return member

    def join(self, one: int, other: int) -> None:
        first, second = sorted((self.find(one), self.find(other)))
        self._above[second] = first

    def names(self) -> npt.NDArray[np.int64]:
        """The name of each member's set."""
        names = np.array(self._above, np.int64)
        while not np.array_equal(above := names[names], names):
            names = above
        return names

    def groups(self) -> list[Group]:
        found: defaultdict[int, Group] = defaultdict(list)
        for member, name in enumerate(self.names().tolist()):
            found[name].append(member)
        return list(found.values())


def group_rows(
    keys: Sequence[RowKey], tie_of: Callable[[RowKey], Tie | None], alike: AlikePictures | None
) -> Groups:
    """Groups of rows that share a tie, a picture or a similar one, or all words where there are no pictures,
    and so on through all of these.
    """
    sets = _Sets(len(keys))
    first_with: dict[Tie, int] = {}
    for place, key in enumerate(keys):
        ties: list[Tie] = [("image", digest) for digest in key.images]
        if key.words:
            ties.append(("words", key.words))
        if (tie := tie_of(key)) is not None:
            ties.append(tie)
        for each in ties:
            sets.join(place, first_with.setdefault(each, place))
    apart = sets.groups()
    if alike is None:
        return Groups(apart, apart)
    row_at: dict[int, int] = {}
    for digest, place in alike.places.items():
        row = first_with["image", digest]
        sets.join(row, row_at.setdefault(place, row))
    rows = np.array([row_at[place] for place in range(len(alike.hashes))], np.int64)
    for block in alike.pairs():
        _join_all(sets, rows[block])
    return Groups(apart, sets.groups())


def _join_all(sets: _Sets, pairs: npt.NDArray[np.int64]) -> None:
    """Most pairs of a large block lie in one set already, so those are left out all at once."""
    if len(pairs) > _FEW:
        pairs = sets.names()[pairs]
        pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    for one, other in pairs.tolist():
        sets.join(one, other)
