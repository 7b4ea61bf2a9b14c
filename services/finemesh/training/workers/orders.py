"""What operators want of nodes: which are drained, and how large the local pools are. Kept in SQL; carried to
clusters with every answer to their report, and counted as done once a report says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from sqlalchemy import delete, select, update

from finemesh.chassis.sql import Tx
from finemesh.core.attempts import Cluster, LocalPool, NodeCapacity
from finemesh.training.workers.tables import DRAINS, POOLS


@dataclass(frozen=True, slots=True)
class Drain:
    """A node that gets nothing new. `leaves_work`: trainings there are left to finish."""

    node: str
    leaves_work: bool
    create_time: datetime


@dataclass(frozen=True, slots=True)
class Orders:
    """What is wanted of the nodes of one cluster."""

    drains: Mapping[str, Drain] = field(default_factory=dict[str, Drain])
    pool: LocalPool | None = None

    def drains_node(self, node: NodeCapacity) -> bool:
        """Whether a node is to get nothing new: it is drained, or its pool is to be smaller."""
        return node.node_id in self.drains or self._is_surplus(node)

    def empties_node(self, node: NodeCapacity) -> bool:
        """Whether trainings on a node are to go elsewhere."""
        drain = self.drains.get(node.node_id)
        return self._is_surplus(node) or (drain is not None and not drain.leaves_work)

    def _is_surplus(self, node: NodeCapacity) -> bool:
        return self.pool is not None and node.pool_slot > self.pool.wanted_nodes

    def applied_to(self, cluster: Cluster) -> Cluster:
        """The cluster with the nodes marked that get nothing new, whether it knows already or not."""
        if not self.drains and self.pool is None:
            return cluster
        nodes = tuple(
            replace(each, draining=each.draining or self.drains_node(each))
            for each in cluster.capacity.node_capacities
        )
        return replace(cluster, capacity=replace(cluster.capacity, node_capacities=nodes))


async def orders_of(tx: Tx, clusters: Iterable[str]) -> dict[str, Orders]:
    """What is wanted of each of these clusters."""
    ids = list(clusters)
    drains: dict[str, dict[str, Drain]] = {each: {} for each in ids}
    for row in await tx.rows(select(DRAINS).where(DRAINS.c.cluster.in_(ids))):
        drains[row["cluster"]][row["node"]] = Drain(row["node"], row["leaves_work"], row["create_time"])
    rows = await tx.rows(select(POOLS).where(POOLS.c.cluster.in_(ids)))
    pools = {
        row["cluster"]: LocalPool(row["nodes"], cpus=row["cpus"], memory_bytes=row["memory_bytes"])
        for row in rows
    }
    return {each: Orders(drains[each], pools.get(each)) for each in ids}


async def ordered(tx: Tx, clusters: Iterable[Cluster]) -> list[Cluster]:
    """The clusters as work may be given to them now."""
    found = list(clusters)
    orders = await orders_of(tx, (each.id for each in found))
    return [orders[each.id].applied_to(each) for each in found]


async def put_drain(tx: Tx, cluster: str, drain: Drain) -> None:
    """Drain a node; one that is drained already only changes what is left there."""
    values = {"leaves_work": drain.leaves_work, "create_time": drain.create_time}
    if not await tx.insert_new(DRAINS, cluster=cluster, node=drain.node, **values):
        mine = (DRAINS.c.cluster == cluster, DRAINS.c.node == drain.node)
        await tx.execute(update(DRAINS).where(*mine).values(leaves_work=drain.leaves_work))


async def remove_drains(tx: Tx, cluster: str, nodes: Iterable[str]) -> None:
    """Drain these nodes no longer."""
    await tx.execute(delete(DRAINS).where(DRAINS.c.cluster == cluster, DRAINS.c.node.in_(list(nodes))))


async def put_pool(tx: Tx, cluster: str, pool: LocalPool) -> None:
    """Say what a local pool should be."""
    values = {"nodes": pool.wanted_nodes, "cpus": pool.cpus, "memory_bytes": pool.memory_bytes}
    if not await tx.insert_new(POOLS, cluster=cluster, **values):
        await tx.execute(update(POOLS).where(POOLS.c.cluster == cluster).values(values))
