"""Hard negatives: classes that are not in a picture, but usually are beside what is.

Source: Li et al. 2023, Evaluating Object Hallucination in Large Vision-Language Models (POPE), the
adversarial setting.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from collections.abc import Set as AbstractSet

from finemesh.data.schema import Row


class CoOccurrence:
    """How often two classes are in one picture."""

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self._pictures: Counter[str] = Counter()
        self._pairs: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for row in rows:
            names = sorted({item["class_name"] for item in row["objects"] if item["class_name"]})
            self._pictures.update(names)
            for name in names:
                self._pairs[name].update(other for other in names if other != name)

    def hard_negatives(self, present: AbstractSet[str], count: int, row_id: str, seed: int) -> list[str]:
        """At most `count` classes that are not `present`, those first that are most often seen with one of
        them; then the frequent ones, and among equals as the seed draws. `present` holds the hidden ones too.
        """
        beside: Counter[str] = Counter()
        for name in present:
            beside.update(self._pairs[name])

        def rank(name: str) -> tuple[int, int, bytes]:
            drawn = hashlib.sha256(f"{seed}\0{row_id}\0{name}".encode()).digest()
            return (-beside[name], -self._pictures[name], drawn)

        return sorted(self._pictures.keys() - present, key=rank)[:count]
