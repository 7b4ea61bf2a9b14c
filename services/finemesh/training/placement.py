"""Who runs next, and where: a pure function of what waits, what clusters report and what attempts hold.

Jobs go by priority, then by age. One that fits into a cluster but not beside what runs there now is waited
for: nobody behind it takes that cluster's room, so a large job is not starved by small ones. One that no
live cluster could ever hold stops nobody.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from finemesh.core.attempts import Cluster, ClusterCapacity
from finemesh.core.spec.finetune import Resources


@dataclass(frozen=True, slots=True)
class Demand:
    """A job that waits, by its resource name; `message` is what it says about its waiting so far."""

    name: str
    resources: Resources
    message: str = ""


@dataclass(frozen=True, slots=True)
class Claim:
    """What an attempt holds, or held, on a cluster.

    Attributes:
        start_time: its first renewal; None while it has not been taken up.
        end_time: None while it is live.
    """

    cluster: str
    resources: Resources
    start_time: datetime | None = None
    end_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Room:
    """Resources as plain numbers that can be added and compared."""

    cpus: float
    gpus: float
    memory_bytes: float

    @classmethod
    def of(cls, resources: Resources) -> Room:
        return cls(resources.cpus, resources.gpus, resources.memory_bytes)

    @classmethod
    def free_in(cls, capacity: ClusterCapacity) -> Room:
        return cls(capacity.cpus_free, capacity.gpus_free, capacity.memory_free_bytes)

    @classmethod
    def total_of(cls, capacity: ClusterCapacity) -> Room:
        return cls(capacity.cpus, capacity.gpus, capacity.memory_bytes)

    def plus(self, other: Room, sign: int = 1) -> Room:
        return Room(
            self.cpus + sign * other.cpus,
            self.gpus + sign * other.gpus,
            self.memory_bytes + sign * other.memory_bytes,
        )

    def at_most(self, other: Room) -> Room:
        return Room(
            min(self.cpus, other.cpus),
            min(self.gpus, other.gpus),
            min(self.memory_bytes, other.memory_bytes),
        )

    def holds(self, other: Room) -> bool:
        """A demand of zero fits however little there is: free memory, for one, may be reported below zero."""
        pairs = (
            (self.cpus, other.cpus),
            (self.gpus, other.gpus),
            (self.memory_bytes, other.memory_bytes),
        )
        return all(wanted <= 0 or wanted <= have + 1e-9 for have, wanted in pairs)


@dataclass(frozen=True, slots=True)
class Plan:
    """What one pass decided: the cluster of each job that starts, and why each of the others waits."""

    placed: Mapping[str, str] = field(default_factory=dict[str, str])
    blocked: Mapping[str, str] = field(default_factory=dict[str, str])


def free_room(cluster: Cluster, claims: Iterable[Claim]) -> Room:
    """What a cluster has left, its last report corrected by what happened since.

    Attempts that were sent or taken up after the report are not in it; those that ended after it still are.
    """
    seen = cluster.last_seen_time
    room = Room.free_in(cluster.capacity)
    for claim in claims:
        if claim.cluster != cluster.id:
            continue
        counted = claim.start_time is not None and claim.start_time <= seen
        if claim.end_time is None and not counted:
            room = room.plus(Room.of(claim.resources), -1)
        elif claim.end_time is not None and claim.end_time > seen and counted:
            room = room.plus(Room.of(claim.resources))
    return room.at_most(Room.total_of(cluster.capacity))


def plan(waiting: Sequence[Demand], live: Collection[Cluster], claims: Collection[Claim]) -> Plan:
    """Place `waiting`, which is in the order of who is next, on the clusters in `live`."""
    rooms = {cluster.id: free_room(cluster, claims) for cluster in live}
    totals = {cluster.id: Room.total_of(cluster.capacity) for cluster in live}
    placed: dict[str, str] = {}
    blocked: dict[str, str] = {}
    reserved: dict[str, str] = {}
    for demand in waiting:
        needed = Room.of(demand.resources)
        possible = [cluster for cluster, total in totals.items() if total.holds(needed)]
        if not possible:
            blocked[demand.name] = _impossible(demand.resources, totals)
            continue
        fitting = [c for c in possible if c not in reserved and rooms[c].holds(needed)]
        if fitting:
            # The fullest that fits: what is left stays in one piece for a larger job.
            chosen = min(fitting, key=lambda c: (rooms[c].gpus, rooms[c].cpus, c))
            rooms[chosen] = rooms[chosen].plus(needed, -1)
            placed[demand.name] = chosen
            continue
        open_clusters = [c for c in possible if c not in reserved]
        if open_clusters:
            reserved[max(open_clusters, key=lambda c: (rooms[c].gpus, rooms[c].cpus, c))] = demand.name
        blocked[demand.name] = "waiting for resources"
    return Plan(placed, blocked)


def _impossible(resources: Resources, totals: Mapping[str, Room]) -> str:
    if not totals:
        return "waiting for a cluster: none is live"
    wanted = f"{resources.cpus:g} CPUs, {resources.gpus} GPUs and {resources.memory_bytes} bytes"
    have = "; ".join(
        f"{name} has {total.cpus:g} CPUs, {total.gpus:g} GPUs and {total.memory_bytes:.0f} bytes"
        for name, total in sorted(totals.items())
    )
    return f"waiting for a larger cluster: needs {wanted}; {have}"
