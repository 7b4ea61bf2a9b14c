"""What nodes have and what jobs need: gangs of equal workers, and where all of a gang fit at once.

A gang goes onto one node where any node of the cluster is large enough for all of it, and onto several
otherwise: as the cluster's own placement groups do (STRICT_PACK, PACK). A whole GPU is never made of parts of
several: of 1.5 free GPUs one can be given whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from finemesh.core.attempts import Cluster, NodeCapacity
from finemesh.core.spec.finetune import Resources
from finemesh.training.estimates.domain import gigabytes

_EPSILON: Final = 1e-6
_PLAIN: Final = -1  # the shelf of nodes without a GPU


class Room(NamedTuple):
    """Amounts of the three resources."""

    cpus: float
    gpus: float
    memory_bytes: float

    def plus(self, other: Room, times: float = 1.0) -> Room:
        return Room(
            self.cpus + times * other.cpus,
            self.gpus + times * other.gpus,
            self.memory_bytes + times * other.memory_bytes,
        )

    def at_most(self, other: Room) -> Room:
        return Room(*map(min, self, other))

    def __str__(self) -> str:
        return f"{self.cpus:g} CPUs, {self.gpus:g} GPUs and {gigabytes(self.memory_bytes)}"


NOTHING: Final = Room(0.0, 0.0, 0.0)


def sum_of(rooms: Iterable[Room]) -> Room:
    total = NOTHING
    for room in rooms:
        total = total.plus(room)
    return total


@dataclass(frozen=True, slots=True)
class Gang:
    """`workers` processes that start together or not at all; each needs `each`."""

    workers: int
    each: Room

    @classmethod
    def of(cls, resources: Resources) -> Gang:
        ranks = resources.ranks
        shares = Room(resources.cpus / ranks, resources.gpus / ranks, resources.memory_bytes / ranks)
        return cls(ranks, shares)

    @property
    def total(self) -> Room:
        return NOTHING.plus(self.each, self.workers)

    def fits_into(self, room: Room) -> int:
        """How many of the workers `room` holds. What is not needed may be missing: free memory, for one,
        may be reported below zero.
        """
        count = self.workers
        for have, wanted in zip(room, self.each, strict=True):
            if wanted > 0:
                count = min(count, math.floor(have / wanted + _EPSILON))
        if self.each.gpus >= 1:
            count = min(count, math.floor(math.floor(room.gpus + _EPSILON) / self.each.gpus + _EPSILON))
        return max(count, 0)

    def __str__(self) -> str:
        total = self.total
        parts = [f"{total.cpus:g} CPUs"]
        parts += [f"{total.gpus:g} GPUs"] if total.gpus else []
        parts += [gigabytes(total.memory_bytes)] if total.memory_bytes else []
        spread = f" for {self.workers} workers" if self.workers > 1 else ""
        return ", ".join(parts) + spread


class Node:
    """A node during a pass. `free` is what is left of it, `open` what of that nobody has reserved."""

    __slots__ = ("draining", "free", "id", "open", "total")

    def __init__(self, node_id: str, total: Room, free: Room, *, draining: bool = False) -> None:
        self.id = node_id
        self.total = total
        self.free = free
        self.open = NOTHING if draining else free
        self.draining = draining

    @property
    def shelf(self) -> int:
        return _PLAIN if self.total.gpus <= 0 else max(0, math.floor(self.open.gpus + _EPSILON))


# Node ids, each with how many of the workers it takes.
Spots = Mapping[str, int]


class Site:
    """A cluster during a pass: its nodes, sorted by the whole GPUs that are open on them.

    Where a cluster tells nothing of its nodes it counts as a single one, which is named by "".
    """

    def __init__(self, cluster_id: str, nodes: Iterable[Node]) -> None:
        self.id = cluster_id
        self.nodes = {node.id: node for node in nodes}
        self._sizes = {node.total for node in self.nodes.values()}  # there are few sizes, and many nodes
        self._shelves: dict[int, dict[str, None]] = {}
        for node in self.nodes.values():
            self._shelves.setdefault(node.shelf, {})[node.id] = None

    def __str__(self) -> str:
        """What is in use of it, for people."""
        usable = [node.total for node in self.nodes.values() if not node.draining]
        drained = len(self.nodes) - len(usable)
        if not usable:
            return "drained nodes alone"
        text = str(sum_of(usable))
        if len(usable) > 1:
            largest = Room(*map(max, zip(*usable, strict=True)))
            text = f"{text} on {len(usable)} nodes, of which none has more than {largest}"
        return f"{text} (and {drained} drained)" if drained else text

    @property
    def total(self) -> Room:
        return sum_of(node.total for node in self.nodes.values())

    def wants_one_node(self, gang: Gang) -> bool:
        """Whether the gang has to be on one node, because there is one that is large enough."""
        return gang.workers == 1 or any(gang.fits_into(size) == gang.workers for size in self._sizes)

    def could_hold(self, gang: Gang) -> bool:
        """Whether the gang would fit if nothing else ran here."""
        usable = [node for node in self.nodes.values() if not node.draining]
        if self.wants_one_node(gang):
            return any(gang.fits_into(node.total) == gang.workers for node in usable)
        return sum(gang.fits_into(node.total) for node in usable) >= gang.workers

    def fit(self, gang: Gang) -> Spots | None:
        """Where the gang fits into what is open. Of several places the fullest, so that what is left stays in
        one piece for a larger gang; nodes without GPUs come first for what needs none.
        """
        return self._fit_one(gang) if self.wants_one_node(gang) else self._fit_several(gang)

    def _fit_one(self, gang: Gang) -> Spots | None:
        gpus = gang.total.gpus
        lowest = _PLAIN if gpus <= 0 else math.floor(gpus + _EPSILON)
        for shelf in sorted(self._shelves):
            if shelf < lowest:
                continue
            fitting = (i for i in self._shelves[shelf] if gang.fits_into(self.nodes[i].open) == gang.workers)
            found = self._fullest(fitting) if gpus % 1 or gpus <= 0 else next(fitting, None)
            if found is not None:
                return {found: gang.workers}
        return None

    def _fullest(self, ids: Iterable[str]) -> str | None:
        return min(ids, key=lambda i: (self.nodes[i].open, i), default=None)

    def _fit_several(self, gang: Gang) -> Spots | None:
        """The emptiest nodes first, so that the gang is on few of them; the last is the fullest that does."""
        spots: dict[str, int] = {}
        missing = gang.workers
        for shelf in sorted(self._shelves, reverse=True):
            for node_id in self._shelves[shelf]:
                count = min(missing, gang.fits_into(self.nodes[node_id].open))
                if count:
                    spots[node_id] = count
                    missing -= count
                if not missing:
                    return spots
        return None

    def take(self, gang: Gang, spots: Spots, *, lent: bool = False) -> None:
        """Give the gang its room; `lent` is room that stays reserved."""
        for node_id, workers in spots.items():
            node = self.nodes[node_id]
            left = node.open if lent else node.open.plus(gang.each, -workers)
            self.set_room(node, node.free.plus(gang.each, -workers), left)

    def set_room(self, node: Node, free: Room, open_room: Room) -> None:
        """Change what is left of a node, and of that what is open."""
        before = node.shelf
        node.free, node.open = free, open_room.at_most(free)
        if node.shelf != before:
            del self._shelves[before][node.id]
            if not self._shelves[before]:
                del self._shelves[before]
            self._shelves.setdefault(node.shelf, {})[node.id] = None


def nodes_of(cluster: Cluster) -> Sequence[Node]:
    """The nodes that a cluster reports, or all of it as one."""
    capacity = cluster.capacity
    if capacity.node_capacities:
        return [_node_of(each) for each in capacity.node_capacities]
    total = Room(capacity.cpus, capacity.gpus, capacity.memory_bytes)
    free = Room(capacity.cpus_free, capacity.gpus_free, capacity.memory_free_bytes)
    return [Node("", total, free.at_most(total))]


def _node_of(capacity: NodeCapacity) -> Node:
    total = Room(capacity.cpus, capacity.gpus, capacity.memory_bytes)
    free = Room(capacity.cpus_free, capacity.gpus_free, capacity.memory_free_bytes)
    return Node(capacity.node_id, total, free.at_most(total), draining=capacity.draining)
