"""What attempts hold on clusters, and what is left beside them."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from finemesh.core.attempts import Cluster
from finemesh.training.rooms import Gang, Node, Site, Spots, nodes_of

USUAL_SECONDS: Final = 3600.0
STOPPING_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Claim:
    """What an attempt holds, or held, on a cluster. Times are UTC.

    Attributes:
        job: resource name of the job.
        nodes: where each worker was put; empty where the cluster counts as one.
        create_time: when it was given away.
        start_time: its first renewal; None while it has not been taken up.
        end_time: None while it is live.
        saved_time: when the latest checkpoint of the job was committed.
        expected_end_time: by the steps it has measured; None while nobody knows.
        stopping: it has been told to stop.
    """

    job: str
    project: str
    cluster: str
    gang: Gang
    create_time: datetime
    nodes: tuple[str, ...] = ()
    start_time: datetime | None = None
    end_time: datetime | None = None
    saved_time: datetime | None = None
    expected_end_time: datetime | None = None
    priority: int = 0
    stopping: bool = False

    @property
    def began(self) -> datetime:
        return self.start_time or self.create_time

    def counts_in(self, seen: datetime) -> bool:
        """Whether a report that was made at `seen` knew of it."""
        return self.start_time is not None and self.start_time <= seen

    def likely_end(self, now: datetime) -> datetime:
        """When it is expected to end. Without measured steps it takes USUAL_SECONDS, and once those are over
        as long again as it has taken already.
        """
        if self.stopping:
            return now + timedelta(seconds=STOPPING_SECONDS)
        if self.expected_end_time is not None and self.expected_end_time > now:
            return self.expected_end_time
        usual = self.began + timedelta(seconds=USUAL_SECONDS)
        return usual if usual > now else now + (now - self.began)

    def spots(self) -> Spots:
        """How many workers it has on each node."""
        return _spots(self.nodes) if self.nodes else {"": self.gang.workers}


@functools.lru_cache(1 << 16)
def _spots(nodes: tuple[str, ...]) -> Spots:
    """Counted once: a pass asks for those of every claim several times."""
    return Counter(nodes)


def site_of(cluster: Cluster, claims: Iterable[Claim]) -> Site:
    """A cluster with what is left of it: its last report corrected by what happened since.

    Attempts that were sent or taken up after the report are not in it; those that ended after it still are.
    An attempt is taken up before it has its room, so a report may miss it all the same: nobody gets what live
    attempts were given, whatever the report says.
    """
    seen, nodes = cluster.last_seen_time, nodes_of(cluster)
    free, ours = {node.id: node.free for node in nodes}, {node.id: node.total for node in nodes}
    for claim in claims:
        live, counted = claim.end_time is None, claim.counts_in(seen)
        for node_id, workers in claim.spots().items():
            if node_id not in free:
                continue  # what was given to a node that has gone holds nothing any more
            if live:
                ours[node_id] = ours[node_id].plus(claim.gang.each, -workers)
            if live and not counted:
                free[node_id] = free[node_id].plus(claim.gang.each, -workers)
            elif claim.end_time is not None and claim.end_time > seen and counted:
                free[node_id] = free[node_id].plus(claim.gang.each, workers)
    left = {node.id: free[node.id].at_most(ours[node.id]) for node in nodes}
    return Site(
        cluster.id, (Node(node.id, node.total, left[node.id], draining=node.draining) for node in nodes)
    )


def by_cluster(claims: Sequence[Claim]) -> dict[str, list[Claim]]:
    """The claims on each cluster."""
    found: dict[str, list[Claim]] = {}
    for claim in claims:
        found.setdefault(claim.cluster, []).append(claim)
    return found
