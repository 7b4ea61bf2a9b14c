"""Room that is kept for a job which has to wait, and what may run beside it until then.

EASY backfill (Lifka, JSSPP 1995; Mu'alem and Feitelson, IEEE TPDS 12(6), 2001) with reservations that stay:
a job that has one keeps it, on the same nodes, until it starts. On these nodes a later job may start if it is
known to be over by then, or if its room is left beside the reserved one when all that started since, or is
expected to run for longer, is still there. So wrong expectations can delay the job once, not for ever: those
that ran before it end some time, and nothing that came after is in its way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from finemesh.training.claims import USUAL_SECONDS, Claim
from finemesh.training.rooms import Gang, Room, Site, Spots


@dataclass(frozen=True, slots=True)
class Reservation:
    """The nodes that a job waits for. Times are UTC.

    Attributes:
        since: when it was made.
        until: when the job was expected to start, at that time.
        stopping_seen: when attempts were last seen to stop for it; None where none were told to.
    """

    job: str
    cluster: str
    gang: Gang
    spots: Spots
    since: datetime
    until: datetime
    stopping_seen: datetime | None = None

    @property
    def preempting(self) -> bool:
        """Whether attempts were told to stop for it."""
        return self.stopping_seen is not None

    def stands_in(self, sites: Mapping[str, Site]) -> bool:
        """Whether its nodes are all there and could still hold the job."""
        site = sites.get(self.cluster)
        return site is not None and all(
            node_id in site.nodes
            and not site.nodes[node_id].draining
            and self.gang.fits_into(site.nodes[node_id].total) >= workers
            for node_id, workers in self.spots.items()
        )

    def seen_by(self, claims: Iterable[Claim], sites: Mapping[str, Site], now: datetime) -> Reservation:
        """Seen anew where attempts are stopping that make enough room."""
        if not self.preempting or not self.stands_in(sites):
            return self
        nodes = sites[self.cluster].nodes
        free = {node_id: nodes[node_id].free for node_id in self.spots}
        for claim in claims:
            if claim.stopping and claim.end_time is None:
                for node_id, workers in claim.spots().items():
                    if node_id in free:
                        free[node_id] = free[node_id].plus(claim.gang.each, workers)
        enough = all(self.gang.fits_into(free[i]) >= workers for i, workers in self.spots.items())
        return replace(self, stopping_seen=now) if enough else self

    def ready_in(self, site: Site) -> bool:
        """Whether the job can start on its nodes now."""
        return all(self.gang.fits_into(site.nodes[i].free) >= workers for i, workers in self.spots.items())

    def lets_in(self, seconds: float | None, now: datetime) -> bool:
        """Whether a job that takes so long is over in time."""
        return seconds is not None and now + timedelta(seconds=seconds) <= self.until


def close_room(site: Site, reservation: Reservation, claims: Iterable[Claim], now: datetime) -> None:
    """Leave open on the reserved nodes only what the job can do without."""
    staying: dict[str, Room] = {}
    for claim in claims:
        if reservation.spots.keys().isdisjoint(claim.spots()):
            continue  # most are elsewhere
        if claim.end_time is None and _stays(claim, reservation, now):
            for node_id, workers in claim.spots().items():
                if node_id in reservation.spots:
                    room = staying.get(node_id, Room(0, 0, 0))
                    staying[node_id] = room.plus(claim.gang.each, workers)
    for node_id, workers in reservation.spots.items():
        node = site.nodes[node_id]
        spare = node.total.plus(reservation.gang.each, -workers)
        site.set_room(node, node.free, spare.plus(staying.get(node_id, Room(0, 0, 0)), -1))


def _stays(claim: Claim, reservation: Reservation, now: datetime) -> bool:
    if claim.create_time < reservation.since:
        return claim.likely_end(now) > reservation.until
    expected = claim.expected_end_time
    return expected is None or expected > reservation.until or now > reservation.until


def open_room(site: Site, reservation: Reservation) -> None:
    """Give back what was reserved."""
    for node_id in reservation.spots:
        node = site.nodes[node_id]
        site.set_room(node, node.free, node.free)


def reserve(
    site: Site, job: str, gang: Gang, claims: Sequence[Claim], reserved: set[str], now: datetime
) -> Reservation | None:
    """The nodes of `site` that the gang could start on first, by when the attempts are expected to end.

    `reserved` names nodes that are kept for others. None when the rest is too small.
    """
    usable = [node for node in site.nodes.values() if node.id not in reserved and not node.draining]
    free = {node.id: node.free for node in usable}
    search = _Search(gang, site.wants_one_node(gang), free)
    ends = sorted((c.likely_end(now), c.job, c) for c in claims if c.end_time is None)
    for end, _, claim in ends:
        for node_id, workers in claim.spots().items():
            search.release(node_id, claim.gang.each, workers)
        if search.done:
            return Reservation(job, site.id, gang, search.spots(), now, end)
    # Something else is there, too, which tells nobody when it ends.
    everything = _Search(gang, site.wants_one_node(gang), {node.id: node.total for node in usable})
    if not everything.done:
        return None
    until = now + timedelta(seconds=USUAL_SECONDS)
    return Reservation(job, site.id, gang, everything.spots(), now, until)


class _Search:
    """How many workers of a gang each node holds while more and more attempts end."""

    def __init__(self, gang: Gang, one_node: bool, free: dict[str, Room]) -> None:
        self._gang = gang
        self._one_node = one_node
        self._free = free
        self._counts = {node_id: gang.fits_into(room) for node_id, room in free.items()}
        self._sum = sum(self._counts.values())
        self._best = max(self._counts.values(), default=0)

    @property
    def done(self) -> bool:
        return (self._best if self._one_node else self._sum) >= self._gang.workers

    def release(self, node_id: str, each: Room, workers: int) -> None:
        if node_id not in self._free:
            return
        self._free[node_id] = self._free[node_id].plus(each, workers)
        count = self._gang.fits_into(self._free[node_id])
        self._sum += count - self._counts[node_id]
        self._counts[node_id] = count
        self._best = max(self._best, count)

    def spots(self) -> dict[str, int]:
        missing, found = self._gang.workers, dict[str, int]()
        for node_id, count in sorted(self._counts.items(), key=lambda item: (-item[1], item[0])):
            if missing and count:
                found[node_id] = min(missing, count)
                missing -= found[node_id]
        return found
