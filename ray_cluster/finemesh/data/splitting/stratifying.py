"""Giving groups to splits so that each split gets its share of every class too.

Iterative stratification after K. Sechidis, G. Tsoumakas, I. Vlahavas, "On the Stratification of Multi-Label
Data" (2011), for groups instead of examples: the class that fewest groups are left of comes first, because
it is the one that could not be put right later, and its groups go to the split that lacks most of it.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

from finemesh.core.spec.data import Split
from finemesh.data.splitting.filling import Shares
from finemesh.data.splitting.groups import Group
from finemesh.data.splitting.keys import RowKey

Counts = Mapping[str, int]


def stratify(groups: Sequence[Group], keys: Sequence[RowKey], ratios: Mapping[Split, float]) -> list[Split]:
    """The split of each group. Groups without any class come last and go where rows are lacking."""
    counts = [_count(group, keys) for group in groups]
    shares = Shares(ratios, sum(map(len, groups)), len(groups))
    wanted = _wanted(counts, ratios)
    splits: dict[int, Split] = {}
    for place, name in _rarest_first(counts):
        size = len(groups[place])
        choices = shares.room_for(size)
        lacking = wanted[name]
        # Rounded, so that what is equal but for the order of subtractions is equal.
        split = max(choices, key=lambda choice: (round(lacking[choice], 6), shares.lacking(choice)))
        shares.give(split, size)
        for each, count in counts[place].items():
            wanted[each][split] -= count
        splits[place] = split
    for place, group in enumerate(groups):
        if place not in splits:
            splits[place] = shares.most_lacking()
            shares.give(splits[place], len(group))
    return [splits[place] for place in range(len(groups))]


def _count(group: Group, keys: Sequence[RowKey]) -> Counter[str]:
    total: Counter[str] = Counter()
    for place in group:
        total.update(keys[place].classes)
    return total


def _wanted(counts: Sequence[Counts], ratios: Mapping[Split, float]) -> dict[str, dict[Split, float]]:
    """Objects of each class that each split lacks at the beginning: its share of all."""
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return {
        name: {split: share * all_of for split, share in ratios.items()} for name, all_of in total.items()
    }


def _rarest_first(counts: Sequence[Counts]) -> Iterator[tuple[int, str]]:
    """Every place with a class once, and the class it is given away for."""
    holders: defaultdict[str, list[int]] = defaultdict(list)
    for place, each in enumerate(counts):
        for name in each:
            holders[name].append(place)
    left = {name: len(places) for name, places in holders.items()}
    queue = [(count, name) for name, count in left.items()]
    heapq.heapify(queue)
    given = [False] * len(counts)
    while queue:
        count, name = heapq.heappop(queue)
        if count != left[name]:
            continue  # some of them are given away since: it is in the queue again
        for place in holders[name]:
            if given[place]:
                continue
            given[place] = True
            yield place, name
            for other in counts[place]:
                left[other] -= 1
                if other != name and left[other]:
                    heapq.heappush(queue, (left[other], other))
        left[name] = 0
