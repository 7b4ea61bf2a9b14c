"""The jobs that wait, in memory: by project, and within it in lines of jobs that are alike.

Jobs of one line need the same and take about as long, so where the first has no room, no other has: a pass
looks at the heads of lines, however many jobs wait. The table of jobs is what counts; this is fed from it.
"""

from __future__ import annotations

import bisect
import functools
import heapq
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final, NamedTuple

from finemesh.core.spec.finetune import Resources
from finemesh.training.rooms import Gang

AGING_SECONDS: Final = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Demand:
    """A job that waits, by its resource name.

    Attributes:
        message: what it says about its waiting so far.
        not_before: when its back-off is over.
        seconds: how long it is expected to take; None while nobody knows.
    """

    name: str
    resources: Resources
    create_time: datetime
    priority: int = 0
    message: str = ""
    not_before: datetime | None = None
    seconds: float | None = None

    @property
    def project(self) -> str:
        return self.name.split("/", 2)[1]


class Kind(NamedTuple):
    """What the jobs of a line have in common. `seconds` is an upper bound, a power of 2; None if unknown."""

    gang: Gang
    seconds: float | None = None


class Place(NamedTuple):
    """Where a job stands in its project: the smaller, the earlier. One point of priority is worth as much as
    AGING_SECONDS of waiting, so the order of two jobs never changes and nobody waits behind later ones for
    ever.
    """

    rank: float
    name: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A job in its line."""

    place: Place
    demand: Demand
    kind: Kind


Lines = Mapping[Kind, "list[Place]"]


def entry_of(demand: Demand) -> Entry:
    rank = demand.create_time.timestamp() - demand.priority * AGING_SECONDS
    bound = None if demand.seconds is None else 2.0 ** math.ceil(math.log2(max(demand.seconds, 1.0)))
    return Entry(Place(rank, demand.name), demand, _kind_of(demand.resources, bound))


@functools.lru_cache(4096)
def _kind_of(resources: Resources, seconds: float | None) -> Kind:
    """One for all that are alike: of 100,000 jobs there are few kinds."""
    return Kind(Gang.of(resources), seconds)


@dataclass(slots=True)
class Waiting:
    """All jobs that wait."""

    entries: dict[str, Entry] = field(default_factory=dict[str, Entry])
    projects: dict[str, dict[Kind, list[Place]]] = field(default_factory=dict[str, dict[Kind, list[Place]]])
    _later: list[tuple[datetime, str]] = field(default_factory=list[tuple[datetime, str]])
    _backing_off: dict[str, Demand] = field(default_factory=dict[str, Demand])

    def __len__(self) -> int:
        return len(self.entries) + len(self._backing_off)

    def put(self, demand: Demand) -> bool:
        """Add a job, or replace what is known of it. Returns whether anything was not known."""
        known = self.entries.get(demand.name)
        if known is not None and known.demand == demand:
            return False
        self.discard(demand.name)
        if demand.not_before is not None:
            self._backing_off[demand.name] = demand
            heapq.heappush(self._later, (demand.not_before, demand.name))
            return True
        entry = entry_of(demand)
        self.entries[demand.name] = entry
        bisect.insort(self.projects.setdefault(demand.project, {}).setdefault(entry.kind, []), entry.place)
        return True

    def discard(self, name: str) -> None:
        """Forget a job, if it is there."""
        self._backing_off.pop(name, None)
        entry = self.entries.pop(name, None)
        if entry is None:
            return
        lines = self.projects[entry.demand.project]
        line = lines[entry.kind]
        del line[bisect.bisect_left(line, entry.place)]
        if not line:
            del lines[entry.kind]
        if not lines:
            del self.projects[entry.demand.project]

    def wake(self, now: datetime) -> None:
        """Let those wait again whose back-off is over."""
        while self._later and self._later[0][0] <= now:
            due, name = heapq.heappop(self._later)
            demand = self._backing_off.get(name)
            if demand is not None and demand.not_before == due:
                self.put(replace(demand, not_before=None))

    def first(self, kind: Kind, count: int) -> Iterator[Demand]:
        """The first `count` jobs of each project's line of this kind."""
        for lines in self.projects.values():
            for place in lines.get(kind, ())[:count]:
                yield self.entries[place.name].demand
