"""Gathering what is found: all of it counted, the first few of each kind told in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from finemesh.core.spec.data import Severity, ValidationStatus
from finemesh.data.validation.rules import RULES

Found = tuple[str, str, str]
"""What a check yields about one row or the whole: rule, field, evidence."""
Indices = npt.NDArray[np.int64]

_ORDER: Final = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.INFO: 2}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something found. `row_id` and `field` are empty where it concerns the dataset as a whole."""

    id: str
    severity: Severity
    row_id: str
    field: str
    evidence: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Place:
    """A row: its number in the dataset, counted from 0, and its id."""

    row: int
    row_id: str


WHOLE: Final = Place(-1, "")
"""The dataset as a whole."""

Told = tuple[Place, str, str]
"""Of one finding: where it is, the field, the evidence."""


class Findings:
    """All findings counted, the first few of each kind kept."""

    def __init__(self, max_examples: int) -> None:
        self._max_examples = max_examples
        self._kept: dict[str, list[tuple[Finding, int]]] = {}
        self.counts: Counter[str] = Counter()

    def add(self, place: Place, found: Iterable[Found]) -> None:
        for kind, field, evidence in found:
            self._keep(kind, place, field, evidence)

    def add_all(self, kind: str, indices: Indices, tell: Callable[[int], Told]) -> None:
        """One finding for each of `indices`. `tell` is called for those alone that are kept."""
        room = max(self._max_examples - self.counts[kind], 0)
        for index in indices[:room].tolist():
            self._keep(kind, *tell(index))
        self.counts[kind] += len(indices[room:])

    def _keep(self, kind: str, place: Place, field: str, evidence: str) -> None:
        self.counts[kind] += 1
        if self.counts[kind] <= self._max_examples:
            rule = RULES[kind]
            finding = Finding(kind, rule.severity, place.row_id, field, evidence, rule.remedy)
            self._kept.setdefault(kind, []).append((finding, place.row))

    @property
    def kinds(self) -> dict[str, int]:
        """How often each kind was found, the gravest first, of these the most frequent."""
        found = {kind: count for kind, count in self.counts.items() if count}
        return dict(
            sorted(found.items(), key=lambda item: (_ORDER[RULES[item[0]].severity], -item[1], item[0]))
        )

    @property
    def gravest_first(self) -> tuple[Finding, ...]:
        return tuple(finding for finding, _ in self.placed)

    @property
    def placed(self) -> list[tuple[Finding, int]]:
        """As `gravest_first`, each with the number of its row, or -1."""
        return [kept for kind in self.kinds for kept in self._kept.get(kind, [])]


def summarise(counts: Mapping[str, int]) -> ValidationStatus:
    """The status that follows from the kinds that were found."""
    severities = {RULES[kind].severity for kind, count in counts.items() if count}
    if Severity.ERROR in severities:
        return ValidationStatus.FAILED
    if Severity.WARNING in severities:
        return ValidationStatus.PASSED_WITH_WARNINGS
    return ValidationStatus.PASSED
